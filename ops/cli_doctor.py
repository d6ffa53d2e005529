"""`hailo-clip doctor`: what is missing or wrong on this machine, and the command that mends it."""

from __future__ import annotations

import argparse

from hailo_clip.ops.cli_options import Commands, add_command, add_settings, config_from
from hailo_clip.shared.config_schema import SETTINGS


def register(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "doctor",
        "look at everything that the service needs, and say what mends what is wrong",
        run,
        about="""
Python, libraries, Hailo devices and who holds them, models, port, directories, limits. Where a Hailo device
would serve the model, its golden inputs are run on it, unless the service runs already. Run it as the user
who runs the service: models and directories are looked for where that user's are. Exit code 1 when something
is a problem.
""",
        examples="""
  hailo-clip doctor
  hailo-clip doctor --quick                                             without the trial on the device
  hailo-clip doctor --json | jq '.findings[] | select(.level != "ok")'
""",
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.add_argument("--quick", action="store_true", help="do not run the model on the device")
    add_settings(parser, *(s.key for s in SETTINGS.values() if s.flag))


def run(args: argparse.Namespace) -> int:
    """Examine and print; 1 when there is a problem."""
    from hailo_clip.ops.doctor import as_json, as_text, examine, healthy
    from hailo_clip.shared.config import Config
    from hailo_clip.shared.errors import ConfigError

    faults: list[str] = []
    try:
        config = config_from(args)
    except ConfigError as e:
        config, faults = Config(), e.message.splitlines()
    findings = list(examine(config, faults, trial=not args.quick))
    print(as_json(findings) if args.json else as_text(findings))
    return 0 if healthy(findings) else 1
