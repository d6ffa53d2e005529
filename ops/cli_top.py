"""`hailo-clip top`: a live view of a running service."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time

from hailo_clip.ops.cli_options import Commands, add_command, add_settings, config_from

_EXAMPLES = """\
  hailo-clip top                  until q is pressed
  hailo-clip top --once           one frame, for a log or a ticket
  hailo-clip top --json | jq .workers
"""


def register(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "top",
        "watch a running service: queue, tenants, workers, batches, cache, rates",
        run,
        about="It asks the broker on this machine, so it works without a frontend.",
        examples=_EXAMPLES,
    )
    parser.add_argument(
        "--interval", type=_interval, default=1.0, metavar="S", help="seconds between frames (default: 1)"
    )
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--once", action="store_true", help="print one frame, whose rates are of one interval")
    shape.add_argument("--json", action="store_true", help="print the broker's whole status as JSON")
    add_settings(parser, "broker.run_dir", "server.port")


def run(args: argparse.Namespace) -> int:
    """Show it. Raises `Unavailable` when no broker answers."""
    config = config_from(args)
    from hailo_clip.ops.broker_link import BrokerLink
    from hailo_clip.ops.top import frame
    from hailo_clip.ops.top_live import live, take

    with BrokerLink(config) as link:
        if args.json:
            print(json.dumps(take(link, config).snapshot, indent=2))
        elif args.once or not (sys.stdin.isatty() and sys.stdout.isatty()):
            before = take(link, config)
            time.sleep(args.interval)
            size = shutil.get_terminal_size()
            print("\n".join(frame(take(link, config), before, size.columns, 1000)))
        else:
            live(link, config, args.interval)
    return 0


def _interval(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0.1 to 3600")
    return seconds
