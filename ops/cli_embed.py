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
    parser.add_argument("--json", action="store_true", help="print dimension and model, too")
    add_url(parser)


def run(args: argparse.Namespace) -> int:
    """Ask and print."""
    from hailo_clip.ops.connect import read_image, service

    with service(args.url) as client:
        if args.image is not None:
            found = client.embed_image(read_image(args.image))
        else:
            found = client.embed_text(args.text)
    # As short as float32 allows, as the service writes them.
    vector = [float(str(x)) for x in found.vector]
    whole = {"embedding": vector, "dimension": len(vector), "model": found.model}
    print(json.dumps(whole if args.json else vector))
    return 0
