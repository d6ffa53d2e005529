"""`hailo-clip serve`: the whole service on this machine."""

from __future__ import annotations

import argparse

from hailo_clip.ops.cli_options import Commands, add_command, add_settings, config_from
from hailo_clip.shared.config_schema import SETTINGS


def register(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "serve",
        "run the whole service: broker, workers and REST frontends",
        run,
        about="""
What dies is started again. SIGTERM or Ctrl-C drains: accepted requests are answered, new ones get 503; a
second one does not wait. Exit code 0 after a stop that was asked for.
""",
        examples="""
  hailo-clip serve                             the default model on port 5000
  hailo-clip serve --model demo --port 5050    the demo model, fetched when it is missing
  hailo-clip serve --model emulated-clip-resnet-50x4   a Hailo-10H's timing without the device
""",
    )
    add_settings(parser, *(s.key for s in SETTINGS.values() if s.flag))


def run(args: argparse.Namespace) -> int:
    """Serve until stopped."""
    config = config_from(args)
    from hailo_clip.ops.serve import serve

    return serve(config)
