"""The ONNX Runtime encoder: a model package's .onnx files on the CPU.

One thread a session and no spinning: workers are processes, and on a small machine threads that spin
for each other's work cost more than they win.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hailo_clip.shared.errors import EncoderError
from hailo_clip.shared.manifest import Manifest
from hailo_clip.workers.clip_text import ClipText, load_clip_text
from hailo_clip.workers.encoder import Embeddings, Images, TokenIds, normalised

NAME = "onnx"
MISSING = "onnxruntime is not installed; type: pip install 'hailo-clip[onnx]'"
_POOLED_INPUTS = ("ids", "mask")

Floats = npt.NDArray[np.float32]
Shape = tuple[int | None, ...]  # None: any


@dataclass(frozen=True, slots=True)
class Network:
    """One opened .onnx file whose inputs and output are what the manifest makes us expect.

    Attributes:
        path: the file, for messages.
        session: `onnxruntime.InferenceSession`.
        shapes: the file's own input shapes by name; 1 in the first place means one item a run.
        output: name of its one output.
    """

    path: Path
    session: Any
    shapes: dict[str, Shape]
    output: str

    @property
    def single(self) -> bool:
        """True when the graph's batch size is fixed to 1."""
        return next(iter(self.shapes.values()))[0] == 1

    def run(self, inputs: dict[str, npt.NDArray[Any]]) -> Floats:
        """The output for a batch. Raises `EncoderError` when ONNX Runtime fails."""
        count = len(next(iter(inputs.values())))
        if not self.single or count == 1:
            return self._run(inputs)
        return np.concatenate([self._run({k: v[i : i + 1] for k, v in inputs.items()}) for i in range(count)])

    def _run(self, inputs: dict[str, npt.NDArray[Any]]) -> Floats:
        fed = {k: v.reshape(v.shape[0], *self._inner(k, v)) for k, v in inputs.items()}
        try:
            (out,) = self.session.run([self.output], fed)
        except Exception as e:
            raise EncoderError(f"{self.path}: ONNX Runtime failed: {e}") from e
        found: Floats = out
        return found

    def _inner(self, name: str, value: npt.NDArray[Any]) -> tuple[int, ...]:
        """Shape of one item as the file has it, which may hold extra dimensions of 1."""
        sizes = iter(d for d in value.shape[1:] if d != 1)
        return tuple(1 if d == 1 else next(sizes, 1) for d in self.shapes[name][1:])


class OnnxEncoder:
    """See `Encoder`. `device_id` is "cpu" unless told otherwise; nothing is opened before `load`."""

    def __init__(self, manifest: Manifest, device_id: str = "cpu", max_batch: int = 8) -> None:
        self._manifest = manifest
        self._device_id = device_id
        self._max_batch = max_batch
        self._image: Network | None = None
        self._text: Network | None = None
        self._clip: ClipText | None = None

    @property
    def name(self) -> str:
        """What runs: ONNX Runtime."""
        return NAME

    @property
    def device_id(self) -> str:
        """What this encoder runs on; workers of one id share it."""
        return self._device_id

    @property
    def max_batch(self) -> int:
        """Most items of one call."""
        return self._max_batch

    def load(self) -> None:
        """Open both networks and the text tables.

        Raises:
            EncoderError: fatal; ONNX Runtime or a file is missing, or a network's inputs or output are
                not what the manifest says. The message names the file.
        """
        m = self._manifest
        if NAME not in m.backends:
            raise EncoderError(f"model {m.name} has no ONNX files", fatal=True)
        image, text = m.path(m.backends[NAME].image), m.path(m.backends[NAME].text)
        self._image = open_network(image, _image_inputs(m), (None, m.dimension), fixed_shapes=True)
        if m.text.pipeline == "clip":
            self._clip = load_clip_text(m)
            hidden = (None, m.text.context_length, self._clip.width)
            self._text = open_network(text, {"": ("tensor(float)", hidden)}, hidden, fixed_shapes=True)
            return
        ids = ("tensor(int64)", (None, None))
        self._text = open_network(text, dict.fromkeys(_POOLED_INPUTS, ids), (None, m.dimension))

    def encode_images(self, images: Images) -> Embeddings:
        """See `Encoder.encode_images`."""
        network = _loaded(self._image)
        size = self._manifest.image.size
        if images.dtype != np.uint8 or images.shape[1:] != (size, size, 3):
            raise EncoderError(
                f"images are {images.dtype} {list(images.shape)}, expected uint8 [n, {size}, {size}, 3]"
            )
        (name,) = network.shapes
        raw = network.run({name: self._image_input(images)})
        return normalised(raw.reshape(len(images), -1), len(images), self._manifest.dimension)

    def encode_tokens(self, ids: Sequence[TokenIds]) -> Embeddings:
        """See `Encoder.encode_tokens`."""
        network = _loaded(self._text)
        if self._clip is None:
            raw = network.run(dict(zip(_POOLED_INPUTS, _masked(ids, _fixed_length(network)), strict=True)))
            return normalised(raw, len(ids), self._manifest.dimension)
        (name,) = network.shapes
        rows = self._clip.rows(ids)
        hidden = network.run({name: rows}).reshape(rows.shape)
        return normalised(self._clip.features(hidden, ids), len(ids), self._manifest.dimension)

    def close(self) -> None:
        """Drop the sessions. Safe to call twice and after a failed `load`."""
        self._image = self._text = self._clip = None

    def _image_input(self, images: Images) -> npt.NDArray[Any]:
        """What the image network takes: the bytes as they are, or ``(x - mean) / std`` as NCHW float32."""
        spec = self._manifest.image
        if self._manifest.backends[NAME].image_input == "nhwc_uint8":
            return images
        planes = images.transpose(0, 3, 1, 2).astype(np.float32, order="C")
        planes -= np.array(spec.mean, np.float32)[:, None, None]
        planes /= np.array(spec.std, np.float32)[:, None, None]
        return planes


def open_network(
    path: Path, inputs: dict[str, tuple[str, Shape]], output: Shape, *, fixed_shapes: bool = False
) -> Network:
    """Open an .onnx file and check it.

    Args:
        path: the file.
        inputs: expected type (as ONNX Runtime writes it) and shape by name; the name "" stands for a
            single input of any name. Shapes begin with the batch.
        output: expected shape of the one output.
        fixed_shapes: only the batch size varies, so memory plans are worth keeping.

    Raises:
        EncoderError: fatal; names the file and what does not fit.
    """
    session = _open_session(path, fixed_shapes)
    found = {i.name: (str(i.type), _shape(i.shape)) for i in session.get_inputs()}
    if "" in inputs and len(found) == 1:
        inputs = {next(iter(found)): inputs[""]}
    if set(found) != set(inputs):
        wanted = "one input" if "" in inputs else f"inputs {', '.join(sorted(inputs))}"
        raise EncoderError(f"{path}: expected {wanted}, found {', '.join(sorted(found))}", fatal=True)
    for name, (dtype, shape) in inputs.items():
        _check(path, f"input {name}", found[name], (dtype, shape))
    outputs = session.get_outputs()
    if len(outputs) != 1:
        raise EncoderError(f"{path}: expected one output, found {len(outputs)}", fatal=True)
    _check(
        path,
        f"output {outputs[0].name}",
        (outputs[0].type, _shape(outputs[0].shape)),
        ("tensor(float)", output),
    )
    return Network(path, session, {n: found[n][1] for n in inputs}, outputs[0].name)


def _open_session(path: Path, fixed_shapes: bool) -> Any:
    try:
        import onnxruntime as ort
    except ImportError as e:
        raise EncoderError(MISSING, fatal=True) from e
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.enable_mem_pattern = fixed_shapes  # a plan is kept for each shape seen: prompts have many
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(str(path), sess_options=options, providers=["CPUExecutionProvider"])
    except Exception as e:
        raise EncoderError(f"{path}: ONNX Runtime cannot open it: {e}", fatal=True) from e


def _image_inputs(m: Manifest) -> dict[str, tuple[str, Shape]]:
    size = m.image.size
    if m.backends[NAME].image_input == "nhwc_uint8":
        return {"": ("tensor(uint8)", (None, size, size, 3))}
    return {"": ("tensor(float)", (None, 3, size, size))}


def _shape(dims: Sequence[object]) -> Shape:
    """A shape as ONNX Runtime gives it, with symbolic dimensions as None."""
    return tuple(d if isinstance(d, int) and d > 0 else None for d in dims)


def _check(path: Path, what: str, found: tuple[str, Shape], expected: tuple[str, Shape]) -> None:
    """Raise when type or shape don't fit; a batch of any size or 1 does, extra dimensions of 1 do."""
    (dtype, shape), (wanted, dims) = found, expected
    inner = [d for d in shape[1:] if d != 1]
    outer = [d for d in dims[1:] if d != 1]
    fits = len(inner) == len(outer) and all(
        a is None or b is None or a == b for a, b in zip(inner, outer, strict=True)
    )
    if dtype != wanted or shape[:1] not in ((None,), (1,)) or not fits:
        raise EncoderError(
            f"{path}: {what} is {_words(dtype, shape)}, expected {_words(wanted, dims)}", fatal=True
        )


def _words(dtype: str, shape: Shape) -> str:
    return f"{dtype} [{', '.join('any' if d is None else str(d) for d in shape)}]"


def _fixed_length(network: Network) -> int | None:
    """Tokens that the graph insists on, None when any number will do."""
    return network.shapes["ids"][1]


def _masked(
    ids: Sequence[TokenIds], length: int | None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Ids and mask, int64 ``[n, L]``, padded with 0 to the longest prompt or to `length`."""
    longest = max(len(prompt) for prompt in ids)
    if length is not None and longest > length:
        raise EncoderError(f"a prompt has {longest} tokens, the text network takes {length}")
    padded = np.zeros((len(ids), length or longest), np.int64)
    mask = np.zeros_like(padded)
    for i, prompt in enumerate(ids):
        padded[i, : len(prompt)] = prompt
        mask[i, : len(prompt)] = 1
    return padded, mask


def _loaded(network: Network | None) -> Network:
    if network is None:
        raise EncoderError("encoder used before load", fatal=True)
    return network
