"""The ASGI application of one frontend process."""

from __future__ import annotations

from typing import Any

import falcon.asgi

from hailo_clip.api import problems
from hailo_clip.api.auth import Door
from hailo_clip.api.auth_file import KeyFile
from hailo_clip.api.body import ByteBudget
from hailo_clip.api.gateway import Gateway
from hailo_clip.api.intake import Intake, decode_threads
from hailo_clip.api.middleware import Edge, Lifespan, Receive, Scope, Send
from hailo_clip.api.resources import add_routes
from hailo_clip.api.service import Service
from hailo_clip.shared.config import Auth, Config
from hailo_clip.shared.errors import ConfigError, SetupError
from hailo_clip.shared.models import models_dir, open_model
from hailo_clip.shared.tokenizer import load_tokenizer


class Application(falcon.asgi.App[Any, Any]):
    """The REST API; sockets and threads are opened by its ASGI lifespan.

    Args:
        service: what answers.
        keys: the API keys; None: none are asked for.
    """

    def __init__(self, service: Service, keys: KeyFile | None = None) -> None:
        super().__init__(middleware=[Lifespan(service, keys)])
        self.service = service
        door = Door(keys, service.config.auth.metrics == "open")
        self._edge = Edge(super().__call__, service, door)
        problems.install(self)
        add_routes(self, service)

    async def __call__(  # type: ignore[override]  # Falcon's own ASGI app replaces the WSGI signature too
        self, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Serve one ASGI connection."""
        if scope["type"] == "http":
            await self._edge(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1003})
        else:
            await super().__call__(scope, receive, send)


def create_app(config: Config) -> Application:
    """The application for `config`. Opens no socket and starts no thread, so a fork may follow.

    Raises:
        ModelError: the model is not installed or its package is damaged.
        ConfigError: the file of API keys can't be used.
    """
    keys = _keys(config.auth)
    manifest = open_model(config.model.name, models_dir(config.model.dir))
    intake = Intake(manifest, load_tokenizer(manifest), decode_threads())
    held = max(config.queue.max_bytes_mib, 2 * config.server.max_body_mib) << 20
    service = Service(config, manifest, Gateway(config, manifest), intake, ByteBudget(held))
    return Application(service, keys)


def _keys(auth: Auth) -> KeyFile | None:
    if auth.keys_file is None:
        return None
    try:
        return KeyFile(auth.keys_file)
    except SetupError as e:  # with this configuration no restart helps
        raise ConfigError(f"auth.keys_file: {e.message}") from e
