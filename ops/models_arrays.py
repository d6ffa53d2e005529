"""The parts of a model that is imported: matrices, what an ONNX file says of its input, golden items."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from hailo_clip.shared.canary import Golden
from hailo_clip.shared.errors import ModelError
from hailo_clip.shared.manifest import ImageInput, Manifest
from hailo_clip.shared.tokenizer import load_tokenizer

Floats = npt.NDArray[np.float32]

GOLDEN_PROMPTS = (
    "a photo of a cat",
    "two people on bicycles in front of a red brick house, seen from the other side of the street at noon",
    "A Café-crème, s'il vous plaît: 咖啡 ☕!",
)


def read_projection(path: Path) -> Floats:
    """The text projection, float32, a matrix as it stands in the file. Raises `ModelError`."""
    return _matrix(path)


def read_table(path: Path, width: int) -> tuple[Floats, bool]:
    """The token table as float32 ``[vocabulary, width]``, and whether the file held it transposed.

    Raises:
        ModelError: it is no matrix with a side of `width`.
    """
    table = _matrix(path)
    if table.shape[1] == width:
        return table, False
    if table.shape[0] == width:
        return np.ascontiguousarray(table.T), True
    raise ModelError(
        f"{path} has shape {list(table.shape)}; with this projection it must be [vocabulary, {width}]"
    )


def onnx_image_input(path: Path) -> tuple[int | None, ImageInput]:
    """Side in pixels (None: any) and kind of the one input of an ONNX image network. Raises `ModelError`."""
    try:
        import onnxruntime
    except ImportError as e:
        raise ModelError("reading .onnx files needs onnxruntime; type: pip install 'hailo-clip[onnx]'") from e
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as e:  # the library raises nothing more precise
        raise ModelError(f"{path}: ONNX Runtime cannot open it: {e}") from e
    inputs = session.get_inputs()
    shape = [d if isinstance(d, int) else None for d in inputs[0].shape]
    if len(inputs) == 1 and len(shape) == 4:
        if inputs[0].type == "tensor(uint8)" and shape[3] == 3:
            return _side(path, shape[1], shape[2]), "nhwc_uint8"
        if inputs[0].type == "tensor(float)" and shape[1] == 3:
            return _side(path, shape[2], shape[3]), "nchw_normalised"
    raise ModelError(
        f"{path}: an image network takes one input, uint8 [n, H, W, 3] or float [n, 3, H, W]; this one takes "
        + ", ".join(f"{i.type} {i.shape}" for i in inputs)
    )


def golden_items(draft: Manifest) -> Golden:
    """Two plain patterns as images, and a short, a long and an odd prompt; nothing expected of them yet."""
    size = draft.image.size
    y, x = np.mgrid[0:size, 0:size] / size
    smooth = np.stack([x, y, 1 - x], axis=-1)
    rings = np.stack([np.sin(40 * np.hypot(x - c, y - c)) / 2 + 0.5 for c in (0.2, 0.5, 0.8)], axis=-1)
    images: npt.NDArray[np.uint8] = np.rint(255 * np.stack([smooth, rings])).astype(np.uint8)
    tokenizer = load_tokenizer(draft)
    return Golden(images, tuple(tokenizer.encode(text) for text in GOLDEN_PROMPTS), {})


def _side(path: Path, height: int | None, width: int | None) -> int | None:
    if height != width:
        raise ModelError(f"{path}: images must be square, this network takes {height} x {width}")
    return height


def _matrix(path: Path) -> Floats:
    try:
        raw = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise ModelError(f"{path} does not exist") from None
    except (OSError, ValueError, EOFError) as e:
        raise ModelError(f"{path} cannot be read as a .npy file: {e}") from e
    if not isinstance(raw, np.ndarray) or raw.ndim != 2 or not np.issubdtype(raw.dtype, np.floating):
        raise ModelError(f"{path} must hold one matrix of floating-point numbers")
    matrix: Floats = np.ascontiguousarray(raw, dtype=np.float32)
    if not np.isfinite(matrix).all():
        raise ModelError(f"{path} holds values that are not finite in float32")
    return matrix
