"""The command line, `hailo-clip`: finds the command, runs it, turns errors into messages and exit codes.

A command is a module ``hailo_clip.ops.cli_NAME`` with ``register(commands)``, which adds its parser and sets
``run``: a function from the parsed arguments to the exit code. Modules import what is heavy inside `run`,
so that ``--help`` is quick. To add a command, write the module and add its name to `COMMANDS`.

Exit codes: 0 fine, 1 failure, 2 usage or configuration, 130 interrupted, 141 nobody reads the output.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from hailo_clip import __version__
from hailo_clip.ops.lifeline import die_with_parent
from hailo_clip.shared.errors import ConfigError, HailoClipError

COMMANDS = (
    "serve",
    "classify",
    "embed",
    "models",
    "keys",
    "doctor",
    "config",
    "top",
    "bench",
    "broker",
    "worker",
    "api",
)
"""In the order in which --help lists them."""

EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141

_ABOUT = """\
Image and sentences in, best sentence or embedding out: CLIP as a REST service.

examples:
  hailo-clip serve --model demo                   a small model for any CPU, on port 5000
  hailo-clip classify photo.jpg "a cat" "a dog"   ask a running service
  hailo-clip models list                          what is installed
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser with all commands."""
    parser = argparse.ArgumentParser(
        prog="hailo-clip",
        description=_ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="hailo-clip COMMAND --help tells more about a command.",
    )
    parser.add_argument("--version", action="version", version=f"hailo-clip {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, dest="command")
    for name in COMMANDS:
        importlib.import_module(f"hailo_clip.ops.cli_{name}").register(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that `argv` (None: this process's arguments) names; the exit code.

    Raises:
        SystemExit: from argparse, for --help, --version (0) and wrong usage (2).
    """
    die_with_parent()
    _open_standard_streams()
    args = build_parser().parse_args(argv)
    try:
        code = int(args.run(args))
        sys.stdout.flush()
        return code
    except ConfigError as e:
        return _fail(e.message, EXIT_USAGE)
    except HailoClipError as e:
        return _fail(e.message, EXIT_FAILURE)
    except BrokenPipeError:
        # Python would try to flush once more at exit, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    except OSError as e:
        return _fail(f"{e.filename}: {e.strerror}" if e.filename and e.strerror else str(e), EXIT_FAILURE)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _open_standard_streams() -> None:
    """Have something behind all three, where whoever started this closed some: `hailo-clip serve >&-`.

    Else the next file or socket that is opened takes the number, and what is printed ends up there.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDONLY if mode == "r" else os.O_WRONLY)
            if descriptor != number:
                os.dup2(descriptor, number)
                os.close(descriptor)
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115  (for as long as we live)


def _fail(message: str, code: int) -> int:
    """Print `message`, each problem of a configuration on its own line."""
    first, *rest = message.splitlines() or [""]
    sys.stdout.flush()
    print(f"error: {first}", file=sys.stderr)
    for line in rest:
        print(line if line.startswith(" ") else f"error: {line}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
