"""`hailo-clip keys`: create, list and revoke API keys."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hailo_clip.ops.cli_options import Commands, add_command, add_settings, config_from

_ABOUT = """
The service asks for keys once auth.keys_file names their file. The file holds hashes, so a lost key can't be
shown again: revoke it and create another. A running service sees a change within a second.
"""

_CURVE = """
Two pairs of CURVE keys, for tcp:// endpoints. Set broker.curve_keys to their directory on each machine. The
broker's needs broker.key_secret and client.key; machines with frontends or workers need client.key_secret and
broker.key. Every other NAME.key beside the broker's is of a client that may connect, too.
"""


def register(commands: Commands) -> None:
    """Add the command and its commands."""
    parser = add_command(
        commands,
        "keys",
        "create, list and revoke API keys",
        None,
        about=_ABOUT,
        examples="""
  hailo-clip keys create door-camera --file /etc/hailo/keys.yaml
  hailo-clip keys create nightly-index --tenant search --weight 2 --class bulk
  hailo-clip keys list
  hailo-clip keys revoke door-camera
  hailo-clip keys curve /etc/hailo/curve
""",
    )
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _register_create(verbs)
    listed = add_command(
        verbs,
        "list",
        "list the keys' names, tenants, weights and classes",
        _list,
        examples="  hailo-clip keys list",
    )
    revoked = add_command(
        verbs,
        "revoke",
        "make a key invalid and forget it",
        _revoke,
        examples="  hailo-clip keys revoke door-camera",
    )
    revoked.add_argument("name", metavar="NAME", help="the key's name, as `hailo-clip keys list` shows it")
    for verb in (listed, revoked):
        _add_file(verb)
    curve = add_command(
        verbs,
        "curve",
        "make the keys for a broker, frontends and workers on several machines",
        _curve,
        about=_CURVE,
        examples="  hailo-clip keys curve /etc/hailo/curve",
    )
    curve.add_argument("directory", type=Path, metavar="DIR", help="where to; made where it is missing")


def _register_create(verbs: Commands) -> None:
    parser = add_command(
        verbs,
        "create",
        "make a key and print it, this once",
        _create,
        about="The key alone goes to standard output. Clients send it as 'Authorization: Bearer KEY' or "
        "'X-API-Key: KEY'.",
        examples="""
  hailo-clip keys create door-camera
  KEY=$(hailo-clip keys create nightly-index --tenant search --weight 2 --class bulk)
""",
    )
    parser.add_argument("name", metavar="NAME", help="what logs and `hailo-clip keys` call it")
    parser.add_argument(
        "--tenant",
        metavar="T",
        help="whose it is: keys of one tenant share its part of the device (default: NAME)",
    )
    parser.add_argument(
        "--weight",
        type=float,
        metavar="W",
        help="the tenant's part relative to others, 0.01 to 100 (default: as its other keys, else 1)",
    )
    parser.add_argument(
        "--class",
        dest="class_",
        choices=("interactive", "bulk"),
        default="interactive",
        help="bulk yields to interactive (default: interactive)",
    )
    _add_file(parser)


def _add_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--file", type=Path, metavar="F", help="the keys file (default: auth.keys_file)")
    add_settings(parser)


def _file(args: argparse.Namespace) -> Path:
    """The file that is meant. Raises `ConfigError` when nothing names one."""
    from hailo_clip.shared.errors import ConfigError

    if args.file is not None:
        file: Path = args.file.expanduser().absolute()
        return file
    configured = config_from(args).auth.keys_file
    if configured is None:
        raise ConfigError("which file? auth.keys_file is not set; name one with --file")
    return configured


def _create(args: argparse.Namespace) -> int:
    from hailo_clip.ops.keys import create

    file = _file(args)
    key, entry = create(file, args.name, args.tenant, args.weight, args.class_ == "bulk")
    print(key)
    print(
        f"key {entry.name} of tenant {entry.tenant}, weight {entry.weight:g}, class {args.class_}, "
        f"is in {file}; keep it, it is not shown again",
        file=sys.stderr,
    )
    return 0


def _list(args: argparse.Namespace) -> int:
    from hailo_clip.ops.keys import listing
    from hailo_clip.shared.keys import load_keys

    print(listing(load_keys(_file(args))))
    return 0


def _revoke(args: argparse.Namespace) -> int:
    from hailo_clip.ops.keys import revoke

    entry = revoke(_file(args), args.name)
    print(f"revoked {entry.name} of tenant {entry.tenant}")
    return 0


def _curve(args: argparse.Namespace) -> int:
    from hailo_clip.shared.curve import make_keys

    for file in make_keys(args.directory):
        print(file)
    return 0
