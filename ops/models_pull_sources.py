"""Where models are fetched from: `data/sources.yaml`, or a file of its form, read and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import yaml

from hailo_clip.shared.errors import ModelError

FORMAT: Final = 1
SOURCES: Final = Path(__file__).parent / "data" / "sources.yaml"
BACKENDS: Final = ("hailo", "onnx")
NETWORKS: Final = ("image", "text")

_SHA256_DIGITS: Final = 64


@dataclass(frozen=True, slots=True)
class Place:
    """Where one file is fetched from.

    Attributes:
        name: how people name the file: "image.hef", "text.onnx.zip", "token_embedding.npy".
        url: http or https.
        sha256: the hash that it must have, None where the first one seen counts.
        member: the file wanted of a zip; None: it is no zip, or the only .onnx file in it.
    """

    name: str
    url: str
    sha256: str | None = None
    member: str | None = None


@dataclass(frozen=True, slots=True)
class Cut:
    """Names of the first and the last node of the text network within an ONNX file."""

    start: str
    end: str


@dataclass(frozen=True, slots=True)
class Weights:
    """A safetensors file and the names of the tensors that the host needs of it.

    Attributes:
        orientation: how the projection P is applied: "in_out" ``x @ P``, "out_in" ``x @ P.T``.
        final_norm: scale and shift of the last LayerNorm, None where the text network has it.
        sha256: hashes by file name ("token_embedding.npy").
    """

    url: str
    token_embedding: str
    text_projection: str
    orientation: Literal["in_out", "out_in"]
    final_norm: tuple[str, str] | None
    sha256: Mapping[str, str]

    def tensors(self) -> dict[str, tuple[str, ...]]:
        """File name to the tensors that it is made of."""
        found: dict[str, tuple[str, ...]] = {
            "token_embedding.npy": (self.token_embedding,),
            "text_projection.npy": (self.text_projection,),
        }
        return found if self.final_norm is None else found | {"final_norm.npy": self.final_norm}


@dataclass(frozen=True, slots=True)
class Source:
    """One model.

    Attributes:
        networks: backend to its image and text network.
        cut: where the ONNX text network is cut out of its file, None: the file is the network.
        hailort: the oldest HailoRT that is known to take the HEFs.
        photos: check that the photos of a cat and of a cup of coffee are told apart.
    """

    name: str
    title: str
    about: str
    licence: str
    source: str
    dimension: int
    image_size: int
    networks: Mapping[str, tuple[Place, Place]]
    cut: Cut | None
    hailort: str
    weights: Weights
    photos: bool = True

    def file_names(self) -> list[str]:
        """Names of all its files, in the order in which they are fetched."""
        return [*self.weights.tensors(), *(p.name for pair in self.networks.values() for p in pair)]


def load_sources(path: Path | None = None) -> dict[str, Source]:
    """The models of the file `path` (None: our own), by name.

    Raises:
        ModelError: it can't be read, or is not valid; the message names file and key.
    """
    file = path or SOURCES
    try:
        raw = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{file} does not exist") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as e:
        raise ModelError(f"{file} cannot be read: {e}") from e
    try:
        top = _Keys("", raw)
        if top.whole("format") != FORMAT:
            raise ModelError(f"format must be {FORMAT}")
        models = top.part("models")
        found = {name: _source(name, models.part(name)) for name in models}
        top.done()
    except ModelError as e:
        raise ModelError(f"{file}: {e.message}") from None
    return found


def _source(name: str, keys: _Keys) -> Source:
    networks: dict[str, tuple[Place, Place]] = {}
    cut, hailort = None, ""
    if "hailo" in keys:
        part = keys.part("hailo")
        hailort = part.text("hailort")
        networks["hailo"] = (_place("image.hef", part, "image"), _place("text.hef", part, "text"))
        part.done()
    if "onnx" in keys:
        part = keys.part("onnx")
        networks["onnx"] = (_place("image.onnx.zip", part, "image"), _place("text.onnx.zip", part, "text"))
        if "cut" in part:
            ends = part.part("cut")
            cut = Cut(ends.text("start"), ends.text("end"))
            ends.done()
        part.done()
    source = Source(
        name=name,
        **{k: keys.text(k) for k in ("title", "about", "licence", "source")},
        dimension=keys.whole("dimension"),
        image_size=keys.whole("image_size"),
        networks=networks,
        cut=cut,
        hailort=hailort,
        weights=_weights(keys.part("weights")),
        photos=keys.flag("photos", True),
    )
    keys.done()
    return source


def _place(name: str, keys: _Keys, key: str) -> Place:
    part = keys.part(key)
    place = Place(
        name,
        part.url("url"),
        part.sha256("sha256") if "sha256" in part else None,
        part.text("member") if "member" in part else None,
    )
    part.done()
    return place


def _weights(keys: _Keys) -> Weights:
    orientation = keys.text("orientation")
    if orientation not in ("in_out", "out_in"):
        raise ModelError(f"{keys.name}orientation must be in_out or out_in")
    norm: tuple[str, str] | None = None
    if "final_norm" in keys:
        names = keys.value("final_norm")
        if not isinstance(names, list) or len(names) != 2 or not all(isinstance(n, str) for n in names):
            raise ModelError(f"{keys.name}final_norm must be two names of tensors: scale and shift")
        norm = (names[0], names[1])
    hashes: dict[str, str] = {}
    if "sha256" in keys:
        part = keys.part("sha256")
        hashes = {f"{tensor}.npy": part.sha256(tensor) for tensor in part}
    weights = Weights(
        keys.url("url"),
        keys.text("token_embedding"),
        keys.text("text_projection"),
        "in_out" if orientation == "in_out" else "out_in",
        norm,
        hashes,
    )
    keys.done()
    return weights


class _Keys:
    """A mapping of the file, with each value checked as it is taken; `name` is its dotted key and a dot."""

    def __init__(self, name: str, raw: object) -> None:
        if not isinstance(raw, dict):
            raise ModelError(f"{name.rstrip('.') or 'it'} must be a mapping, is {type(raw).__name__}")
        self.name = name
        self._raw: dict[Any, Any] = raw
        self._taken: set[str] = set()

    def __contains__(self, key: str) -> bool:
        return key in self._raw

    def __iter__(self) -> Any:
        return iter([str(k) for k in self._raw])

    def value(self, key: str) -> Any:
        self._taken.add(key)
        if self._raw.get(key) is None:
            raise ModelError(f"{self.name}{key} is missing")
        return self._raw[key]

    def part(self, key: str) -> _Keys:
        return _Keys(f"{self.name}{key}.", self.value(key))

    def text(self, key: str) -> str:
        value = self.value(key)
        if not isinstance(value, str):
            raise ModelError(f"{self.name}{key} must be text, is {value!r}")
        return value

    def whole(self, key: str) -> int:
        value = self.value(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ModelError(f"{self.name}{key} must be a whole number above 0, is {value!r}")
        return value

    def flag(self, key: str, default: bool) -> bool:
        value = self.value(key) if key in self else default
        if not isinstance(value, bool):
            raise ModelError(f"{self.name}{key} must be true or false, is {value!r}")
        return value

    def url(self, key: str) -> str:
        value = self.text(key)
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ModelError(f"{self.name}{key} must be an address that begins with https://, is {value!r}")
        return value

    def sha256(self, key: str) -> str:
        return sha256_digits(self.text(key), f"{self.name}{key}")

    def done(self) -> None:
        """Raise for a key that nobody took."""
        for key in self:
            if key not in self._taken:
                raise ModelError(f"{self.name}{key} is no key of this file")


def sha256_digits(text: str, what: str) -> str:
    """`text` as a SHA-256 in lower-case hex. Raises `ModelError` that names `what`."""
    digits = text.strip().lower()
    if len(digits) != _SHA256_DIGITS or set(digits) - set("0123456789abcdef"):
        raise ModelError(f"{what} must be a SHA-256: 64 hex digits, is {text!r}")
    return digits
