"""What the commands' parsers share: their looks, and flags made from the settings' declarations."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hailo_clip.shared.config_schema import SETTINGS, Setting

if TYPE_CHECKING:
    from hailo_clip.shared.config import Config

PROCESS_SETTINGS = ("model.name", "model.dir", "model.encoder", "broker.run_dir", "log.level", "log.format")
"""What the processes of one service must agree on, and how they log."""

Commands = Any  # argparse names its type of sub-parsers privately
Run = Callable[[argparse.Namespace], int]


def add_command(
    commands: Commands, name: str, summary: str, run: Run | None, *, about: str = "", examples: str = ""
) -> argparse.ArgumentParser:
    """A parser for the command `name`.

    Args:
        commands: what `add_subparsers` gave.
        name: what the user types.
        summary: one line for the list of commands, beginning in lower case, without a full stop.
        run: from parsed arguments to the exit code; None for a command that has commands itself.
        about: more for its own --help.
        examples: command lines, each with what it does.
    """
    shown = [summary[0].upper() + summary[1:] + "."]
    shown += [about.strip()] if about else []
    shown += ["examples:\n" + examples.strip("\n")] if examples else []
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description="\n\n".join(shown),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if run is not None:
        parser.set_defaults(run=run)
    return parser


def add_settings(parser: argparse.ArgumentParser, *keys: str) -> None:
    """Flags for --config and for the settings `keys` (dotted), with help and defaults as declared."""
    group = parser.add_argument_group("settings", "Any other setting: see `hailo-clip config --reference`.")
    group.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="configuration file (default: $HAILO_CLIP_CONFIG, else /etc/hailo/hailo-clip.yaml)",
    )
    for key in keys:
        declared = SETTINGS[key]
        group.add_argument(
            declared.flag or "--" + key.rpartition(".")[2].replace("_", "-"),
            dest=key,
            type=_reader(declared),
            metavar=key.rpartition(".")[2].upper(),
            help=_help(declared),
        )


def config_from(args: argparse.Namespace) -> Config:
    """The configuration from the flags of `add_settings` and everywhere else. Raises `ConfigError`."""
    from hailo_clip.shared.config import load_config

    return load_config(args.config, None, {k: v for k, v in vars(args).items() if k in SETTINGS})


def _reader(declared: Setting) -> Callable[[str], object]:
    """From a flag's text to a plain value; what can't be read is left for the configuration to refuse."""

    def read(text: str) -> object:
        try:
            return declared.kind.from_text(text)
        except ValueError:
            return text

    return read


def _help(declared: Setting) -> str:
    default = "" if declared.default is None else f" (default: {declared.default})"
    return (declared.doc + default).replace("%", "%%")


def add_url(parser: argparse.ArgumentParser) -> None:
    """The flag that names a running service."""
    parser.add_argument(
        "--url", metavar="URL", help="the service (default: $HAILO_CLIP_URL, else http://127.0.0.1:5000)"
    )
