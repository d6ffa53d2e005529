"""Runs the frontends: gunicorn as a library, with our application, settings and logs."""

from __future__ import annotations

import logging
import os
from typing import Any

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.glogging import Logger

from hailo_clip.api.app import Application, create_app
from hailo_clip.api.gunicorn_conf import settings
from hailo_clip.shared.config import Config
from hailo_clip.shared.logs import setup_logs


class OurLogger(Logger):  # type: ignore[misc]  # gunicorn has no type information
    """gunicorn's messages through the logging that the rest of the process uses."""

    def __init__(self, cfg: Any) -> None:
        super().__init__(cfg)
        logging.getLogger("gunicorn.error").propagate = True


class Master(Arbiter):  # type: ignore[misc]  # gunicorn has no type information
    """The process that starts the frontends' processes and watches them."""

    def handle_hup(self) -> None:
        """SIGHUP: keep serving; gunicorn itself would restart every process, and so end connections."""
        self.log.info("SIGHUP: API keys are read again when their file changes; the rest needs a restart")


class Frontends(BaseApplication):  # type: ignore[misc]  # gunicorn has no type information
    """gunicorn's view of our application.

    Args:
        app: made before the processes fork; it opens nothing until its lifespan starts in each of them.
        values: gunicorn's settings.
    """

    def __init__(self, app: Application, values: dict[str, Any]) -> None:
        self._app, self._values = app, values
        super().__init__()

    def load_config(self) -> None:
        """Set every setting that we name, and nothing from gunicorn's own files, flags or environment."""
        for name, value in self._values.items():
            self.cfg.set(name, value)
        self.cfg.set("logger_class", OurLogger)

    def load(self) -> Application:
        """The application."""
        return self._app

    def run(self) -> None:
        """Serve; ends with `SystemExit`."""
        Master(self).run()


def run_api(config: Config) -> int:
    """Serve the REST API until SIGTERM (answers what was accepted) or SIGINT.

    Returns:
        The exit code: 0 after an orderly end, 1 when the address is taken or a process can't start.

    Raises:
        ModelError: the model is not installed or its package is damaged.
    """
    setup_logs(config.log, "api")
    app = create_app(config)
    parent = os.getpid()
    try:
        Frontends(app, settings(config)).run()
    except SystemExit as e:
        if os.getpid() != parent:  # gunicorn ends its forked processes this way, too
            raise
        return 1 if e.code else 0
    return 0
