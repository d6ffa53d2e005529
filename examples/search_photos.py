"""Find photos by a sentence.

    python examples/search_photos.py index ~/Pictures photos.npz      # again: only what is new or changed
    python examples/search_photos.py find photos.npz "a cup of coffee"

The index remembers the fingerprint of the model that made its vectors. Vectors of two models can't be
compared, so finding asks for exactly that model, and indexing with another one begins anew.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hailo_clip.api.client import DEFAULT_URL, Client, ModelChanged, RequestFailed

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
GROUP = 16  # photos in one request, and
GROUP_BYTES = 12 << 20  # their size: in base64 they grow by a third, and a request may have 20 MiB
URL = os.environ.get("HAILO_CLIP_URL", DEFAULT_URL)
KEY = os.environ.get("HAILO_CLIP_API_KEY")


@dataclass
class Index:
    """Vectors of photos. `entries`: by path, when it was changed last (ns) and its float32 [D]."""

    fingerprint: str
    entries: dict[str, tuple[int, np.ndarray]]

    @classmethod
    def load(cls, file: str) -> "Index":
        """The index in `file`."""
        with np.load(file, allow_pickle=False) as data:
            changed_and_vectors = zip(data["changed"].tolist(), data["vectors"], strict=True)
            return cls(
                str(data["fingerprint"]), dict(zip(data["paths"].tolist(), changed_and_vectors, strict=True))
            )

    def save(self, file: str) -> None:
        """Write it, so that a reader sees the old one or the new one whole."""
        changed, vectors = zip(*self.entries.values(), strict=True) if self.entries else ((), ())
        unfinished = Path(f"{file}.new")
        with unfinished.open("wb") as out:
            np.savez(
                out,
                fingerprint=self.fingerprint,
                paths=np.array(list(self.entries), dtype=str),
                changed=np.array(changed, dtype=np.int64),
                vectors=np.array(vectors, dtype=np.float32),
            )
        unfinished.replace(file)


def groups(photos: list[Path]) -> Iterator[list[Path]]:
    """`photos` in portions that fit into a request."""
    group: list[Path] = []
    size = 0
    for photo in photos:
        more = photo.stat().st_size
        if group and (len(group) == GROUP or size + more > GROUP_BYTES):
            yield group
            group, size = [], 0
        group.append(photo)
        size += more
    if group:
        yield group


def index(folder: str, file: str) -> None:
    """Bring the index in `file` up to date with the photos below `folder`."""
    with Client(URL, api_key=KEY) as client:
        fingerprint = client.models()[0].fingerprint
    if not fingerprint:
        raise SystemExit("the service has no worker yet; try again soon")
    known = Index.load(file) if Path(file).exists() else Index(fingerprint, {})
    if known.fingerprint != fingerprint:
        print("the service runs another model than this index was made with; beginning anew")
        known.entries = {}

    photos = sorted(p for p in Path(folder).expanduser().rglob("*") if p.suffix.lower() in SUFFIXES)
    new = Index(fingerprint, {})
    wanted = []
    for photo in photos:
        entry = known.entries.get(str(photo))
        if entry is not None and entry[0] == photo.stat().st_mtime_ns:
            new.entries[str(photo)] = entry
        else:
            wanted.append(photo)
    with Client(URL, api_key=KEY, model_fingerprint=fingerprint) as client:
        for group in groups(wanted):
            changed = [photo.stat().st_mtime_ns for photo in group]
            found = client.embed_images(group)
            for photo, when, vector, error in zip(group, changed, found.vectors, found.errors, strict=True):
                if error is None:
                    new.entries[str(photo)] = (when, vector)
                else:
                    print(f"left out: {photo}: {error.message}")
    new.save(file)
    print(f"{len(new.entries)} photos in {file}, {len(wanted)} looked at")


def find(file: str, sentence: str, top: int) -> None:
    """Print the photos that fit `sentence` best."""
    known = Index.load(file)
    if not known.entries:
        raise SystemExit(f"{file} has no photos")
    with Client(URL, api_key=KEY, model_fingerprint=known.fingerprint) as client:
        try:
            wanted = client.embed_text(sentence).vector
        except ModelChanged:
            raise SystemExit(
                "the service runs another model than the index was made with; index again"
            ) from None
    paths = list(known.entries)
    scores = np.stack([vector for _, vector in known.entries.values()]) @ wanted
    for i in np.argsort(-scores)[:top]:
        print(f"{scores[i]:.3f}  {paths[i]}")


def main() -> None:
    """Index or find."""
    parser = argparse.ArgumentParser(description="Find photos by a sentence.")
    commands = parser.add_subparsers(required=True, dest="command")
    indexing = commands.add_parser("index", help="look at all photos of a folder")
    indexing.add_argument("folder")
    indexing.add_argument("file", metavar="INDEX.npz")
    finding = commands.add_parser("find", help="find photos in an index")
    finding.add_argument("file", metavar="INDEX.npz")
    finding.add_argument("sentence")
    finding.add_argument("--top", type=int, default=5, metavar="N")
    args = parser.parse_args()
    try:
        if args.command == "index":
            index(args.folder, args.file)
        else:
            find(args.file, args.sentence, args.top)
    except RequestFailed as e:
        sys.exit(f"error: {e}")


if __name__ == "__main__":
    main()
