"""`hailo-clip worker`: one worker alone."""

from __future__ import annotations

import argparse
import os
import socket

from hailo_clip.ops.cli_options import PROCESS_SETTINGS, Commands, add_command, add_settings, config_from


def register(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "worker",
        "run one worker alone, which encodes on one device",
        run,
        about="It registers at the broker by itself. A second one of its name takes its place.",
        examples="  hailo-clip worker --name left --device 0000:01:00.0",
    )
    parser.add_argument("--name", help="its name, unique at the broker (default: HOST-PID)")
    parser.add_argument("--device", metavar="ID", help="the device to use (default: the first that fits)")
    add_settings(parser, *PROCESS_SETTINGS)


def run(args: argparse.Namespace) -> int:
    """Run the worker until SIGTERM."""
    config = config_from(args)
    name = args.name or f"{socket.gethostname()}-{os.getpid()}"
    from hailo_clip.shared.logs import setup_logs
    from hailo_clip.workers.shell import run_worker

    setup_logs(config.log, name)
    return run_worker(config, name, args.device)
