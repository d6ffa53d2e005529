"""`hailo-clip api`: the REST frontends alone."""

from __future__ import annotations

import argparse

from hailo_clip.ops.cli_options import PROCESS_SETTINGS, Commands, add_command, add_settings, config_from


def register(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "api",
        "run the REST frontends alone, which parse requests and decode images",
        run,
        about="They need the model's manifest and tokenizer, not its networks, and no device.",
        examples="  hailo-clip api --port 5050 --run-dir /run/hailo-clip",
    )
    add_settings(parser, "server.host", "server.port", *PROCESS_SETTINGS)


def run(args: argparse.Namespace) -> int:
    """Run the frontends until SIGTERM."""
    config = config_from(args)
    from hailo_clip.api.server import run_api
    from hailo_clip.shared.logs import setup_logs

    setup_logs(config.log, "api")
    return run_api(config)
