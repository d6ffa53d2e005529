"""`hailo-clip classify`: which sentence fits a picture best, by a running service."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from typing import TYPE_CHECKING, Any

from hailo_clip.ops.cli_options import Commands, add_command, add_url

if TYPE_CHECKING:
    from hailo_clip.api.client import Classification

BAR_WIDTH = 24
ALL = 256
"""More labels than a request or a label set can have."""


def register(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "classify",
        "ask a running service which prompt fits an image best",
        run,
        examples="""
  hailo-clip classify photo.jpg "a cat" "a dog"
  hailo-clip classify photo.jpg "a cat" "a dog" --top-k 1 --json
  hailo-clip classify photo.jpg cat dog --template "a photo of a {}" --softmax --negative "a wall"
  hailo-clip classify photo.jpg --label-set ppe
  curl -s https://example.org/cat.jpg | hailo-clip classify - "a cat" "a dog"
""",
    )
    parser.add_argument("image", metavar="IMAGE", help="image file, or - for standard input")
    parser.add_argument("prompts", metavar="PROMPT", nargs="*", help="a description, e.g. 'a photo of a cat'")
    parser.add_argument(
        "--label-set", metavar="NAME", help="a set of labels that the service stores, instead"
    )
    parser.add_argument("--top-k", type=int, metavar="N", help="show the best N labels (default: all)")
    parser.add_argument(
        "--threshold", type=float, metavar="X", help="leave out scores below X, 0 to 1 (default: 0)"
    )
    parser.add_argument("--softmax", action="store_true", help="show probabilities instead of cosines")
    parser.add_argument(
        "--template", metavar="T", action="append", help="puts each prompt in place of {}; may be repeated"
    )
    parser.add_argument(
        "--negative",
        metavar="PROMPT",
        action="append",
        help="takes part in --softmax unseen; may be repeated",
    )
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")
    add_url(parser)
    parser.set_defaults(usage_error=parser.error)


def run(args: argparse.Namespace) -> int:
    """Ask and print."""
    if bool(args.prompts) == bool(args.label_set):
        args.usage_error("give one or more PROMPTs, or --label-set")
    from hailo_clip.ops.connect import read_image, service

    with service(args.url) as client:
        found = client.classify(
            read_image(args.image),
            args.prompts or None,
            label_set=args.label_set,
            top_k=(len(args.prompts) or ALL) if args.top_k is None else args.top_k,
            threshold=args.threshold,
            score_mode="softmax" if args.softmax else None,
            templates=args.template,
            negative_prompts=args.negative,
        )
    shown = json.dumps(as_answered(found), indent=2, ensure_ascii=False) if args.json else None
    print(shown or table(found, block_of(sys.stdout)))
    return 0


def as_answered(found: Classification) -> dict[str, Any]:
    """`found` in the shape that the service gives it."""
    return {
        "classifications": [dataclasses.asdict(label) for label in found.labels],
        "inference_time_ms": found.inference_time_ms,
        "model": found.model,
    }


def table(found: Classification, block: str) -> str:
    """`found` as lines of rank, score, bar (made of `block`) and prompt."""
    from hailo_clip.shared.logs import escaped

    lines = [
        f"{label.rank:>3}  {label.score:.3f}  {block * round(label.score * BAR_WIDTH):<{BAR_WIDTH}}  "
        f"{escaped(label.text)}"
        for label in found.labels
    ]
    if not lines:
        lines = ["no prompt reaches the threshold"]
    return "\n".join([*lines, f"model {escaped(found.model)}, {found.inference_time_ms} ms"])


def block_of(stream: Any) -> str:
    """What bars are made of: a block where `stream` can show one, else a plain sign."""
    try:
        "█".encode(stream.encoding or "ascii")
    except (LookupError, UnicodeEncodeError):
        return "#"
    return "█"
