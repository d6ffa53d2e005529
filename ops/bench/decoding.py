"""What the image path costs beside the plain way, and what it changes (``make bench-decoding``).

The plain way is Pillow's: decode all of it, resize all of it, crop. CPU time of one thread, the least of
several runs. With ``--model demo`` it also compares the embeddings that a real model gives both inputs.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable
from pathlib import Path
from time import process_time

import numpy as np
from PIL import Image

from hailo_clip.api.image import decode_image
from hailo_clip.ops.bench.peers.job import Embeddings, Pixels, plain
from hailo_clip.ops.bench.photos import PHOTOS, photo_files
from hailo_clip.ops.bench.tables import table
from hailo_clip.shared.models import models_dir, open_model

SIZE = 288
SIZES = ((320, 320), (640, 480), (1920, 1080), (4000, 3000))
_SHORTS = (600, 750, 900, 1080, 1500, 2000, 3000, 4000)


def least_ms(job: Callable[[], object], runs: int) -> float:
    """The least CPU time of `runs` runs: what the job takes when nothing else gets in its way."""
    times = []
    for _ in range(runs):
        begun = process_time()
        job()
        times.append(process_time() - begun)
    return 1000 * min(times)


def costs() -> list[str]:
    """A table of both ways by size."""
    rows = []
    for size in SIZES:
        data = photo_files(size, 1)[0]
        runs = max(5, 20_000_000 // (size[0] * size[1]))
        a, b = (
            least_ms(lambda way=way, data=data: way(data, SIZE), min(runs, 60))  # type: ignore[misc]
            for way in (plain, decode_image)
        )
        rows.append(
            (f"{size[0]}x{size[1]}", f"{len(data) / 1000:.0f}", f"{a:.2f}", f"{b:.2f}", f"{a / b:.1f}")
        )
    return table(("JPEG", "kB", "plain ms", "ours ms", "times"), rows)


def likeness(model: str, directory: Path | None) -> str:
    """How alike the embeddings of both inputs are, over photos at many sizes; needs an installed model."""
    from hailo_clip.workers.catalog import make_encoder

    manifest = open_model(model, models_dir(directory))
    encoder = make_encoder(manifest, "onnx", "cpu", 8, run_dir=Path.cwd())
    encoder.load()

    def embedded(pixels: Pixels) -> Embeddings:
        return encoder.encode_images(np.ascontiguousarray(pixels)[None])

    found = []
    for photo in PHOTOS:
        for short in _SHORTS:
            data = _scaled(photo, short)
            side = manifest.image.size
            cosine = float((embedded(decode_image(data, side)) * embedded(plain(data, side))).sum())
            found.append((cosine, f"{photo.stem} at {short} pixels"))
    encoder.close()
    worst = min(found)
    return f"cosine of the embeddings by {model}, {len(found)} photos: at least {worst[0]:.5f} ({worst[1]})"


def _scaled(photo: Path, short: int) -> bytes:
    picture = Image.open(photo).convert("RGB")
    scale = short / min(picture.size)
    size = round(picture.width * scale), round(picture.height * scale)
    out = io.BytesIO()
    picture.resize(size, Image.Resampling.LANCZOS).save(out, "JPEG", quality=90)
    return out.getvalue()


def main(argv: list[str] | None = None) -> int:
    """Print the table, and the likeness when a model is named."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="an installed model with an ONNX encoder")
    parser.add_argument("--models-dir", type=Path)
    args = parser.parse_args(argv)
    print("\n".join(costs()))
    if args.model:
        print(f"\n{likeness(args.model, args.models_dir)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
