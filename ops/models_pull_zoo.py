"""Fetching a CLIP model's parts, proving that they belong together, and putting the package in its place.

Each part is fetched into ``.downloads/NAME`` of the models directory and stays there until the package is
built, so that an interrupted or failed pull continues with what it has. Parts of a sound package that is
installed already and came from the same places are taken from it.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hailo_clip.ops.atomic import exclusive
from hailo_clip.ops.fetch import Progress, sha256_of, step
from hailo_clip.ops.models_golden import check_photos, photo_golden
from hailo_clip.ops.models_import import Checks, Imported, import_model
from hailo_clip.ops.models_parts import Parts
from hailo_clip.ops.models_pull_http import Client
from hailo_clip.ops.models_pull_onnx import check_libraries, cut_out, unpack
from hailo_clip.ops.models_pull_sources import BACKENDS, NETWORKS, Place, Source
from hailo_clip.ops.models_pull_tensors import Tensor, fetch_tensor, read_header
from hailo_clip.ops.models_pull_trust import Trust
from hailo_clip.shared.errors import ConfigError, ModelError
from hailo_clip.shared.manifest import Manifest, load_manifest
from hailo_clip.shared.models import verify_files

if TYPE_CHECKING:
    from hailo_clip.ops.models_pull import Pulled, Wish

CONTEXT = 77
"""Tokens of a CLIP prompt (Radford et al. 2021)."""

DOWNLOADS = ".downloads"


def pull_zoo(source: Source, directory: Path, progress: Progress, wish: Wish) -> Pulled:
    """Install the model `source` below `directory`; see `models_pull.pull`."""
    from hailo_clip.ops.models_pull import Pulled

    for name in wish.pins:
        if name not in source.file_names():
            raise ConfigError(
                f"--sha256 {name}=...: {source.name} has no such file, only {', '.join(source.file_names())}"
            )
    backends = wanted_backends(source, wish.backends)
    directory.mkdir(parents=True, exist_ok=True)
    with exclusive(directory / f".{source.name}.pull.lock", lambda: _say_waiting(progress, source.name)):
        old = _installed(source, directory, wish.replace)
        missing = [b for b in backends if old is None or b not in old.backends]
        if old is not None and not missing and not wish.pins and _whole(old):
            return Pulled(old.path(""), (f"{source.name} is installed already, and its files are whole",))
        every = [b for b in BACKENDS if b in backends or (old is not None and b in old.backends)]
        if "onnx" in every:
            check_libraries(source.cut)
        work = directory / DOWNLOADS / source.name
        work.mkdir(parents=True, exist_ok=True)
        fetched = _Fetch(source, work, old, Trust(directory), Client(wish.patience), progress, wish)
        imported = import_model(
            _parts(source, every, fetched), directory, progress, replace=True, checks=_checks(source)
        )
        shutil.rmtree(work)
        return Pulled(imported.manifest.path(""), _lines(imported, fetched.first_seen))


def wanted_backends(source: Source, asked: Sequence[str] | None) -> list[str]:
    """The backends to fetch: those asked for, else the best one that this machine can run.

    Raises:
        ConfigError: a backend was asked for that the model does not have.
        ModelError: nothing here can run it; the message says what to install.
    """
    if asked is not None:
        for backend in asked:
            if backend not in source.networks:
                known = ", ".join(source.networks)
                raise ConfigError(f"--backend {backend}: {source.name} is published for {known} only")
        return [b for b in BACKENDS if b in asked]
    for backend, package in (("hailo", "hailo_platform"), ("onnx", "onnxruntime")):
        if backend in source.networks and importlib.util.find_spec(package) is not None:
            return [backend]
    raise ModelError(
        f"nothing here can run {source.name}: for a Hailo-10H install HailoRT's Python package (sudo apt "
        "install python3-h10-hailort, in a venv made with --system-site-packages), for the CPU type: pip "
        "install 'hailo-clip[onnx]'. To fetch it for another machine, say which with --backend"
    )


class _Fetch:
    """Gets parts: from the package that is installed, from what was fetched before, or from their places."""

    def __init__(
        self,
        source: Source,
        work: Path,
        old: Manifest | None,
        trust: Trust,
        client: Client,
        progress: Progress,
        wish: Wish,
    ) -> None:
        self._source = source
        self._work = work
        self._old = old
        self._trust = trust
        self._client = client
        self._progress = progress
        self._pins = wish.pins
        self._header: dict[str, Tensor] | None = None
        self.first_seen: list[str] = []

    def tensor(self, name: str) -> Path:
        """The .npy file `name`, float32: a matrix, or the rows that several vectors make."""
        kept = self._kept(name)
        if kept is not None:
            return kept
        weights, target = self._source.weights, self._work / name
        tensors = weights.tensors()[name]
        if not target.exists():
            if self._header is None:
                self._header = read_header(self._client, weights.url)
            raw = [self._work / f"{name}.{i}.raw" for i in range(len(tensors))]
            found = [
                fetch_tensor(self._client, weights.url, self._header, tensor, file, self._progress)
                for tensor, file in zip(tensors, raw, strict=True)
            ]
            with (self._work / f"{name}.new").open("wb") as out:
                np.save(out, found[0] if len(found) == 1 else np.stack(found))
            (self._work / f"{name}.new").replace(target)
            for file in raw:
                file.unlink()
        self._check(Place(name, f"{weights.url}#{'+'.join(tensors)}", weights.sha256.get(name)), target)
        return target

    def network(self, backend: str, kind: str) -> Path:
        """The network `kind` ("image", "text") of `backend`, ready to be run."""
        ending = {"hailo": "hef", "onnx": "onnx"}[backend]
        place = self._source.networks[backend][NETWORKS.index(kind)]
        kept = self._kept(f"{kind}.{ending}", place.name)
        if kept is not None:
            return kept
        fetched = self._work / place.name
        self._client.fetch(place.url, fetched, self._progress, f"fetching {place.name}")
        self._check(place, fetched)
        return fetched if backend == "hailo" else self._unpacked(place, kind, fetched)

    def _unpacked(self, place: Place, kind: str, archive: Path) -> Path:
        """The .onnx file of a zip; the text network cut out of it."""
        whole, cut = self._work / f"{kind}.whole.onnx", self._source.cut
        with step(self._progress, f"unpacking {place.name}"):
            unpack(archive, place.member, whole)
            if kind != "text" or cut is None:
                return whole
            width = int(np.load(self.tensor("token_embedding.npy"), mmap_mode="r").shape[1])
            part = self._work / f"{kind}.cut.onnx"
            cut_out(whole, cut, CONTEXT, width, part)
            return part

    def _kept(self, name: str, pinned_as: str = "") -> Path | None:
        """The installed package's own file `name`, when it is whole and nobody demands another."""
        old = self._old
        if old is None or name not in old.files or (pinned_as or name) in self._pins:
            return None
        path, entry = old.path(name), old.files[name]
        sound = path.is_file() and path.stat().st_size == entry.size and sha256_of(path) == entry.sha256
        return path if sound else None

    def _check(self, place: Place, file: Path) -> None:
        pinned = self._pins.get(place.name, place.sha256)
        known = self._trust.knows(place.url)
        found = self._trust.check(place.url, file, place.name, pinned)
        if pinned is None and not known:
            self.first_seen.append(f"{place.name}={found}")


def _parts(source: Source, backends: Sequence[str], fetch: _Fetch) -> Parts:
    """All that the package is made of, fetched: small things first, so that what fails fails soon."""
    files = {name: fetch.tensor(name) for name in source.weights.tensors()}
    networks = {b: (fetch.network(b, "image"), fetch.network(b, "text")) for b in backends}
    return Parts(
        name=source.name,
        networks=networks,
        token_embedding=files["token_embedding.npy"],
        text_projection=files["text_projection.npy"],
        orientation=source.weights.orientation,
        image_size=source.image_size,
        context_length=CONTEXT,
        final_norm=files.get("final_norm.npy"),
        facts={k: getattr(source, k) for k in ("title", "about", "licence", "source")},
    )


def _checks(source: Source) -> Checks:
    return Checks(golden=photo_golden, judge=check_photos if source.photos else None, unproven=True)


def _installed(source: Source, directory: Path, replace: bool) -> Manifest | None:
    """The package that is there already, if it came from the same places.

    Raises:
        ModelError: it came from elsewhere, and `replace` is False.
    """
    place = directory / source.name
    if not place.exists():
        return None
    try:
        manifest = load_manifest(place)
    except ModelError:
        return None  # broken: it is replaced
    if manifest.source == source.source:
        return manifest
    if replace:
        return None
    raise ModelError(
        f"{place} is there already and came from elsewhere ({manifest.source or 'it does not say where'}); "
        "--replace puts the published one in its place"
    )


def _whole(manifest: Manifest) -> bool:
    try:
        for backend in manifest.backends:
            verify_files(manifest, backend)
    except ModelError:
        return False
    return True


def _lines(imported: Imported, first_seen: Sequence[str]) -> tuple[str, ...]:
    lines = [f"note: {remark}" for remark in imported.remarks]
    lines += [f"{b}: runs; canary cosine {cosine:.6f}" for b, cosine in imported.cosines.items()]
    lines += [f"not verified: {doubt}" for doubt in imported.unverified]
    if first_seen:
        lines.append("fetched for the first time, and trusted from now on:")
        lines += [f"  --sha256 {entry}" for entry in first_seen]
    return tuple(lines)


def _say_waiting(progress: Progress, name: str) -> None:
    with step(progress, f"another process is fetching {name}: waiting for it"):
        pass
