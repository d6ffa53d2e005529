"""`hailo-clip classify`: which sentence fits a picture best, by a running service."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from hailo_clip.ops.cli_options import Commands, add_command, add_url

BAR_WIDTH = 24


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
  curl -s https://example.org/cat.jpg | hailo-clip classify - "a cat" "a dog"
""",
    )
    parser.add_argument("image", metavar="IMAGE", help="image file, or - for standard input")
    parser.add_argument("prompts", metavar="PROMPT", nargs="+", help="a description, e.g. 'a photo of a cat'")
    parser.add_argument("--top-k", type=int, metavar="N", help="show the best N prompts (default: all)")
    parser.add_argument(
        "--threshold", type=float, metavar="X", help="leave out scores below X, 0 to 1 (default: 0)"
    )
    parser.add_argument("--json", action="store_true", help="print the service's response as it is")
    add_url(parser)


def run(args: argparse.Namespace) -> int:
    """Ask and print."""
    from hailo_clip.ops.rest import post, read_image, service_url

    url = service_url(args.url)
    body: dict[str, Any] = {"image": read_image(args.image), "prompts": args.prompts}
    body["top_k"] = len(args.prompts) if args.top_k is None else args.top_k
    if args.threshold is not None:
        body["threshold"] = args.threshold
    answer = post(url, "/v1/classify", body)
    print(
        json.dumps(answer, indent=2, ensure_ascii=False) if args.json else table(answer, block_of(sys.stdout))
    )
    return 0


def table(answer: Mapping[str, Any], block: str) -> str:
    """A response of /v1/classify as lines of rank, score, bar (made of `block`) and prompt."""
    from hailo_clip.shared.logs import escaped

    entries: Sequence[Mapping[str, Any]] = answer["classifications"]
    lines = [
        f"{e['rank']:>3}  {e['score']:.3f}  {block * round(e['score'] * BAR_WIDTH):<{BAR_WIDTH}}  "
        f"{escaped(e['text'])}"
        for e in entries
    ]
    if not lines:
        lines = ["no prompt reaches the threshold"]
    return "\n".join([*lines, f"model {escaped(answer['model'])}, {answer['inference_time_ms']} ms"])


def block_of(stream: Any) -> str:
    """What bars are made of: a block where `stream` can show one, else a plain sign."""
    try:
        "█".encode(stream.encoding or "ascii")
    except (LookupError, UnicodeEncodeError):
        return "#"
    return "█"
