"""`hailo-clip embed`: the embedding of an image or a text, by a running service."""

from __future__ import annotations

import argparse
import json

from hailo_clip.ops.cli_options import Commands, add_command, add_url


def register(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "embed",
        "print the embedding of an image or a text, by a running service",
        run,
        about="Prints the vector as a JSON list: numbers whose squares add up to 1.",
        examples="""
  hailo-clip embed --image photo.jpg
  hailo-clip embed --text "a photo of a cat" --json
""",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--image", metavar="FILE", help="image file, or - for standard input")
    what.add_argument("--text", metavar="TEXT", help="the text")
    parser.add_argument("--json", action="store_true", help="print the service's response as it is")
    add_url(parser)


def run(args: argparse.Namespace) -> int:
    """Ask and print."""
    from hailo_clip.ops.rest import post, read_image, service_url

    url = service_url(args.url)
    if args.image is not None:
        answer = post(url, "/v1/embed/image", {"image": read_image(args.image)})
    else:
        answer = post(url, "/v1/embed/text", {"text": args.text})
    print(json.dumps(answer if args.json else answer["embedding"]))
    return 0
