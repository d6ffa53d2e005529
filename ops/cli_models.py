"""`hailo-clip models`: list, show, pull, import, verify and remove model packages."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hailo_clip.ops.cli_options import Commands, add_command, add_settings, config_from

if TYPE_CHECKING:
    from hailo_clip.ops.models_orientation import GoldenPair


def register(commands: Commands) -> None:
    """Add the command and its commands."""
    parser = add_command(
        commands,
        "models",
        "list, show, pull, import, verify and remove models",
        None,
        examples="""
  hailo-clip models list
  hailo-clip models pull demo
  hailo-clip models verify demo
""",
    )
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    add_settings(add_command(verbs, "list", "list the models, installed or not", _list), "model.dir")
    _named(verbs, "show", "show what is known about a model", _show)
    _register_pull(verbs)
    verify = _named(verbs, "verify", "check a model's files and run its golden inputs", _verify)
    verify.add_argument(
        "--record",
        action="store_true",
        help="take what the encoder computes as its golden embeddings from now on",
    )
    add_settings(verify, "model.dir", "model.encoder")
    remove = _named(verbs, "remove", "delete a model's files", _remove)
    remove.add_argument("-y", "--yes", action="store_true", help="do not ask")
    for verb in ("show", "remove"):
        add_settings(verbs.choices[verb], "model.dir")
    _register_import(verbs)


def _named(verbs: Commands, name: str, summary: str, run: object) -> argparse.ArgumentParser:
    parser = add_command(verbs, name, summary, run, examples=f"  hailo-clip models {name} demo")  # type: ignore[arg-type]
    parser.add_argument("name", metavar="NAME", help="the model's name")
    return parser


def _register_pull(verbs: Commands) -> None:
    parser = add_command(
        verbs,
        "pull",
        "fetch a model and install it",
        _pull,
        about="""
What an interrupted pull has fetched is kept, and the same command continues. The SHA-256 that a file has
when it is first fetched is the one it must have from then on (trusted.json in the models directory).
""",
        examples="""
  hailo-clip models pull clip-resnet-50x4                  for what this machine can run
  hailo-clip models pull clip-vit-b-32 --backend all       for Hailo-10H and for the CPU
  hailo-clip models pull clip-vit-b-32 --sha256 image.hef=0123...
""",
    )
    parser.add_argument("name", metavar="NAME", help="the model's name")
    parser.add_argument(
        "--backend",
        choices=("hailo", "onnx", "all"),
        help="what it shall run on (default: hailo where HailoRT is installed, else onnx)",
    )
    parser.add_argument(
        "--sha256",
        action="append",
        default=[],
        metavar="FILE=HEX",
        help="demand this hash of a file, e.g. of image.hef; may be repeated",
    )
    parser.add_argument("--sources", type=Path, metavar="FILE", help="fetch from the places in this file")
    parser.add_argument(
        "--replace", action="store_true", help="put it in the place of one that came from elsewhere"
    )
    add_settings(parser, "model.dir")


def _register_import(verbs: Commands) -> None:
    parser = add_command(
        verbs,
        "import",
        "build a model from files at hand",
        _import,
        about="""
Hashes the files, works the golden embeddings out on the encoders that are here, and says what it could
not verify. Token ids are CLIP's own unless --tokenizer names another tokenizer. A square projection fits both
ways round; a prompt with its embedding by the original model settles which one is right.
""",
        examples="""
  hailo-clip models import clip-resnet-50x4 --image-hef image.hef --text-hef text.hef \\
      --token-embedding token_embedding.npy --text-projection text_projection.npy \\
      --projection-orientation in_out
""",
    )
    parser.add_argument("name", metavar="NAME", help="the model's name")
    for backend, kind in (("hef", "Hailo"), ("onnx", "ONNX")):
        for part in ("image", "text"):
            parser.add_argument(
                f"--{part}-{backend}", type=Path, metavar="F", help=f"{part} encoder for {kind}"
            )
    parser.add_argument(
        "--token-embedding", type=Path, metavar="F.npy", required=True, help="table [vocabulary, width]"
    )
    parser.add_argument("--text-projection", type=Path, metavar="F.npy", required=True, help="projection P")
    parser.add_argument(
        "--projection-orientation",
        choices=("in_out", "out_in"),
        help="in_out: features are x @ P; out_in: x @ P.T (default: what the golden prompt tells)",
    )
    parser.add_argument("--golden-prompt", metavar="TEXT", help="a prompt whose embedding is known")
    parser.add_argument("--golden-embedding", type=Path, metavar="F.npy", help="that embedding")
    parser.add_argument("--tokenizer", type=Path, metavar="F.json", help="a file of the tokenizers library")
    parser.add_argument("--image-size", type=int, metavar="N", help="side of the image in pixels")
    parser.add_argument("--context-length", type=int, metavar="N", default=77, help="tokens (default: 77)")
    parser.add_argument("--logit-scale", type=float, metavar="X", default=100.0, help="(default: 100)")
    for fact in ("title", "licence", "source"):
        parser.add_argument(f"--{fact}", default="", help=f"the model's {fact}, for `models show`")
    parser.add_argument("--replace", action="store_true", help="put it in the place of one of this name")
    add_settings(parser, "model.dir")


def _directory(args: argparse.Namespace) -> Path:
    from hailo_clip.shared.models import models_dir

    return models_dir(config_from(args).model.dir)


def _list(args: argparse.Namespace) -> int:
    from hailo_clip.ops.models_show import listing

    print(listing(_directory(args)))
    return 0


def _show(args: argparse.Namespace) -> int:
    from hailo_clip.ops.models_show import description
    from hailo_clip.shared.models import open_model

    print(description(open_model(args.name, _directory(args))))
    return 0


def _pull(args: argparse.Namespace) -> int:
    from hailo_clip.ops.models_pull import Wish, pull

    backends = {None: None, "all": ("hailo", "onnx")}.get(args.backend, (args.backend,))
    wish = Wish(backends, args.sources, _pins(args.sha256), args.replace)
    directory = _directory(args)
    try:
        pulled = pull(args.name, directory, wish=wish)
    except KeyboardInterrupt:
        print("\ninterrupted; what was fetched is kept, and the same command continues", file=sys.stderr)
        raise
    for line in pulled.lines:
        print(line)
    print(f"installed in {pulled.directory}")
    return 0


def _pins(given: Sequence[str]) -> dict[str, str]:
    """FILE=HEX as a mapping. Raises `ConfigError`."""
    from hailo_clip.ops.models_pull_sources import sha256_digits
    from hailo_clip.shared.errors import ConfigError, ModelError

    pins = {}
    for text in given:
        name, _, digits = text.partition("=")
        try:
            pins[name] = sha256_digits(digits, f"--sha256 {name}")
        except ModelError as e:
            raise ConfigError(e.message) from e
    return pins


def _verify(args: argparse.Namespace) -> int:
    from hailo_clip.ops.models_verify import verify

    config = config_from(args)
    for line in verify(args.name, _directory(args), config.model.encoder, args.record):
        print(line, flush=True)
    return 0


def _remove(args: argparse.Namespace) -> int:
    from hailo_clip.ops.models_remove import remove

    return remove(args.name, _directory(args), args.yes)


def _import(args: argparse.Namespace) -> int:
    from hailo_clip.ops.fetch import TerminalProgress
    from hailo_clip.ops.models_import import import_model
    from hailo_clip.ops.models_parts import Parts

    parts = Parts(
        name=args.name,
        networks=_networks(args),
        token_embedding=args.token_embedding,
        text_projection=args.text_projection,
        orientation=args.projection_orientation,
        image_size=args.image_size,
        context_length=args.context_length,
        tokenizer=args.tokenizer,
        golden=_golden_pair(args),
        facts={k: getattr(args, k) for k in ("title", "licence", "source", "logit_scale")},
    )
    imported = import_model(parts, _directory(args), TerminalProgress(), replace=args.replace)
    for remark in imported.remarks:
        print(f"note: {remark}")
    for backend, cosine in imported.cosines.items():
        print(f"{backend}: runs; canary cosine {cosine:.6f}")
    for doubt in imported.unverified:
        print(f"not verified: {doubt}")
    print(f"installed in {imported.manifest.path('')}")
    return 0


def _golden_pair(args: argparse.Namespace) -> GoldenPair | None:
    """The prompt with its known embedding, if given. Raises `ConfigError` for half a pair."""
    from hailo_clip.ops.models_orientation import read_pair
    from hailo_clip.shared.errors import ConfigError

    if (args.golden_prompt is None) != (args.golden_embedding is None):
        raise ConfigError("--golden-prompt and --golden-embedding belong together; give both or none")
    return None if args.golden_prompt is None else read_pair(args.golden_prompt, args.golden_embedding)


def _networks(args: argparse.Namespace) -> dict[str, tuple[Path, Path]]:
    """The pairs of networks given. Raises `ConfigError` for half a pair."""
    from hailo_clip.shared.errors import ConfigError

    pairs = {"hailo": (args.image_hef, args.text_hef), "onnx": (args.image_onnx, args.text_onnx)}
    for ending, pair in (("hef", pairs["hailo"]), ("onnx", pairs["onnx"])):
        if (pair[0] is None) != (pair[1] is None):
            raise ConfigError(f"--image-{ending} and --text-{ending} belong together; give both or none")
    return {name: pair for name, pair in pairs.items() if pair[0] is not None}
