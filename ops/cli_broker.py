"""`hailo-clip broker`: the broker alone."""

from __future__ import annotations

import argparse

from hailo_clip.ops.cli_options import PROCESS_SETTINGS, Commands, add_command, add_settings, config_from


def register(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "broker",
        "run the broker alone, which queues and batches requests",
        run,
        about="Start workers and frontends with the same configuration; they connect by themselves.",
        examples="  hailo-clip broker --run-dir /run/hailo-clip",
    )
    add_settings(parser, *PROCESS_SETTINGS)


def run(args: argparse.Namespace) -> int:
    """Run the broker until SIGTERM."""
    config = config_from(args)
    from hailo_clip.broker.shell import run_broker
    from hailo_clip.shared.logs import setup_logs

    setup_logs(config.log, "broker")
    return run_broker(config)
