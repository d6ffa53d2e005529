"""`hailo-clip config`: what is configured, and what can be."""

from __future__ import annotations

import argparse

from hailo_clip.ops.cli_options import Commands, add_command, add_settings, config_from
from hailo_clip.shared.config_schema import SETTINGS, reference


def register(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "config",
        "print the configuration, checked and complete",
        run,
        examples="""
  hailo-clip config                     what the other commands would use, as YAML
  hailo-clip config --config new.yaml   check a file before it is used
  hailo-clip config --reference         every setting: default, what is allowed, meaning
""",
    )
    parser.add_argument("--reference", action="store_true", help="print the table of all settings instead")
    add_settings(parser, *(s.key for s in SETTINGS.values() if s.flag))


def run(args: argparse.Namespace) -> int:
    """Print it."""
    from hailo_clip.shared.config import dump_config

    print(reference() if args.reference else dump_config(config_from(args)), end="")
    return 0
