"""What a camera sees, frame by frame.

    python examples/webcam.py "a person" "an empty room"                     # camera 0; needs opencv-python
    python examples/webcam.py --source film.mp4 "a cat" "a dog"              # a film; needs opencv-python
    python examples/webcam.py --source examples/photos "a cat" "a rocket"    # a folder of pictures

The prompts are stored as a label set, so that a frame costs one image and no text. A frame whose answer is
not there within a second is given up: the next one shows more.
"""

import argparse
import os
import time
from collections.abc import Iterator
from pathlib import Path

from hailo_clip.api.client import (
    DEFAULT_URL,
    Client,
    DeadlineExceeded,
    Overloaded,
    RetryPolicy,
    Unavailable,
)

DEADLINE_S = 1.0


def frames(source: str) -> Iterator[bytes]:
    """Image files: those of a folder, or JPEGs of a camera's (its number) or a film's pictures."""
    if Path(source).is_dir():
        for path in sorted(Path(source).glob("*.jpg")):
            yield path.read_bytes()
        return
    try:
        import cv2
    except ImportError:
        raise SystemExit("a camera or a film needs OpenCV: pip install opencv-python") from None

    capture = cv2.VideoCapture(int(source) if source.isdigit() else source)
    if not capture.isOpened():
        raise SystemExit(f"there is no camera or film {source}")
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # a camera's newest picture, not the oldest one that waits
    try:
        while True:
            good, picture = capture.read()
            if not good:
                return
            yield cv2.imencode(".jpg", picture)[1].tobytes()
    finally:
        capture.release()


def watch(client: Client, labels: str, source: str, every_s: float) -> None:
    """Print what fits each frame best, at most one frame every `every_s` seconds."""
    for number, frame in enumerate(frames(source)):
        began = time.monotonic()
        try:
            best = client.classify(frame, label_set=labels, top_k=1).labels[0]
        except (Overloaded, Unavailable, DeadlineExceeded) as e:
            print(f"frame {number}: skipped, {e}", flush=True)
        else:
            took_ms = (time.monotonic() - began) * 1e3
            print(f"frame {number}: {best.text} ({best.score:.3f}, {took_ms:.0f} ms)", flush=True)
        time.sleep(max(0.0, began + every_s - time.monotonic()))


def main() -> None:
    """Store the prompts, watch until the source or the user ends it, remove the prompts."""
    parser = argparse.ArgumentParser(description="What a camera sees.")
    parser.add_argument("prompts", nargs="+", metavar="PROMPT")
    parser.add_argument("--source", default="0", help="a camera's number (default: 0), a film, or a folder")
    parser.add_argument(
        "--every", type=float, default=0.2, metavar="S", help="seconds a frame (default: 0.2)"
    )
    args = parser.parse_args()

    url, key = os.environ.get("HAILO_CLIP_URL", DEFAULT_URL), os.environ.get("HAILO_CLIP_API_KEY")
    labels = f"webcam-{os.getpid()}"
    once = RetryPolicy(attempts=1)
    with (
        Client(url, api_key=key) as patient,
        Client(url, api_key=key, deadline_s=DEADLINE_S, retry=once) as client,
    ):
        patient.put_label_set(labels, args.prompts)
        try:
            watch(client, labels, args.source, args.every)
        except KeyboardInterrupt:
            pass
        finally:
            patient.delete_label_set(labels)


if __name__ == "__main__":
    main()
