"""Which prompt fits each photo best.

    python examples/classify.py --prompt "a cat" --prompt "a rocket" examples/photos/*.jpg

The service is the one at $HAILO_CLIP_URL, else on this machine; if it wants a key: $HAILO_CLIP_API_KEY.
"""

import argparse
import os

from hailo_clip.api.client import DEFAULT_URL, Client, ItemError

GROUP = 16  # photos in one request


def main() -> None:
    """Ask for all photos, some at a time; a file that is no image has its error in its line."""
    parser = argparse.ArgumentParser(description="Which prompt fits each photo best.")
    parser.add_argument("photos", nargs="+", metavar="PHOTO")
    parser.add_argument("--prompt", action="append", required=True, dest="prompts", metavar="TEXT")
    args = parser.parse_args()

    url, key = os.environ.get("HAILO_CLIP_URL", DEFAULT_URL), os.environ.get("HAILO_CLIP_API_KEY")
    with Client(url, api_key=key) as client:
        for start in range(0, len(args.photos), GROUP):
            group = args.photos[start : start + GROUP]
            found = client.classify_many(group, args.prompts, score_mode="softmax", top_k=1)
            for photo, result in zip(group, found, strict=True):
                if isinstance(result, ItemError):
                    print(f"{photo}: {result.message}")
                elif result.best:
                    print(f"{photo}: {result.best.text} ({result.best.score:.0%})")


if __name__ == "__main__":
    main()
