"""Prompts to ids: equal to CLIP's reference, and never at a loss whatever the prompt."""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from hailo_clip.shared.errors import ModelError
from hailo_clip.shared.manifest import Backend, Canary, ImageSpec, Manifest, TextSpec
from hailo_clip.shared.tokenizer import END_ID, START_ID, ClipTokenizer, PackageTokenizer, load_tokenizer

GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "clip_tokens.json").read_text(encoding="utf-8"))
CLIP = ClipTokenizer()
WIDE = ClipTokenizer(600)  # looks at 19,200 characters


def body(text: str) -> list[int]:
    """Ids of `text` between start and end token."""
    ids = CLIP.encode(text).tolist()
    assert ids[0] == START_ID
    assert ids[-1] == END_ID
    return ids[1:-1]


@pytest.mark.parametrize("entry", GOLDEN, ids=lambda e: e["text"][:30].encode("unicode_escape").decode())
def test_equals_the_reference(entry: dict[str, Any]) -> None:
    ids = CLIP.encode(entry["text"])
    assert ids.dtype == np.int32
    assert ids.tolist() + [0] * (77 - len(ids)) == entry["ids"]


def test_the_reference_data_is_whole() -> None:
    assert len(GOLDEN) == 29


# Ids worked out with open_clip 3.3.0's tokenizer, for what the golden file leaves out.
@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("<start_of_text> cat", [START_ID, 2368]),
        ("a <END_OF_TEXT> cat", [320, END_ID, 2368]),
        ("!<end_of_text>", [0, 283, 806, 318, 539, 318, 4160, 285]),
        ("'ſ", [6, 129, 379]),
        ("&Atilde;&copy;", [4166]),
        ("< &Atilde;&copy;", [283, 127, 352, 5811]),
        ("<\n&Atilde;&copy;", [283, 127, 352, 5811]),
        ("Ã ", [21259]),
        (" Ã ", [127, 352]),
        ("\ud800", [39802]),
        ("\ud83d\ude00", [7334]),
        ("\x00", []),
        (" \n\t ", []),
        ("\x85", [959]),
        ("x\u0345", [343]),
    ],
)
def test_equals_the_reference_at_the_edges(text: str, ids: list[int]) -> None:
    assert body(text) == ids


def test_openai_spelling_of_special_tokens_is_plain_text() -> None:
    assert END_ID not in body("<|endoftext|>")
    assert START_ID not in body("<|startoftext|>")


def test_a_long_prompt_is_cut_and_keeps_the_end_token() -> None:
    ids = CLIP.encode("word " * 2000)
    assert len(ids) == 77
    assert ids[-1] == END_ID
    assert set(ids[1:-1].tolist()) == {2653}


@pytest.mark.parametrize("context", [3, 16, 77])
def test_the_context_is_the_models(context: int) -> None:
    ids = ClipTokenizer(context).encode("word " * 100)
    assert len(ids) == context
    assert ids[-1] == END_ID


@pytest.mark.parametrize("unit", ["a", "7", "!", "=", "猫", "😀", "é", "a1!", "abcdefghij", "&"])
def test_only_what_fits_the_context_is_read(unit: str) -> None:
    """Looking at the beginning alone gives the tokens that the whole prompt gives."""
    long = unit * (16_384 // len(unit))
    ids = CLIP.encode(long)
    assert len(ids) == 77
    assert np.array_equal(ids[:-1], WIDE.encode(long)[:76])


HOSTILE: dict[str, str] = {
    "words": "word " * 3276,
    "one word": "a" * 16_384,
    "digits": "7" * 16_384,
    "newlines": "\n" * 16_384,
    "one letter a line": "é\n" * 5461,
    "control characters": "\0\n" * 8192,
    "combining marks": "a" + "\u0301\u0327" * 4096,
    "mojibake": "Ã©" * 4096,
    "lone surrogates": "\ud800" * 5461,
    "entities": "&amp;" * 3276,
    "dotted capital i": "\u0130" * 8192,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_prompt_costs_little(text: str) -> None:
    """A few milliseconds here; the bound is loose for busy machines, yet far below the uncut cost of many."""
    best = min(_seconds(lambda: CLIP.encode(text)) for _ in range(3))
    assert best < 0.05


def _seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


@given(st.text(alphabet=st.characters(codec=None), max_size=200))
def test_any_string_gives_ids_of_the_model(text: str) -> None:
    ids = CLIP.encode(text)
    assert 2 <= len(ids) <= 77
    assert ids[0] == START_ID
    assert ids[-1] == END_ID
    assert ids.min() >= 0
    assert ids.max() <= END_ID
    assert np.array_equal(ids, CLIP.encode(text))


def test_count_is_the_length_of_the_ids() -> None:
    assert CLIP.count("a photo of a cat") == 7
    assert CLIP.count("word " * 500) == 77


def test_threads_get_the_same_ids() -> None:
    prompts = [f"a photo of {i} cats, number {i * 7919}" for i in range(100)]
    expected = [CLIP.encode(p).tolist() for p in prompts]
    results: list[list[list[int]]] = []

    def work() -> None:
        fresh = [CLIP.encode(p).tolist() for p in prompts]
        results.append(fresh)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert results == [expected] * 4


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A tokenizer file with 7 words, [CLS] and [SEP], and padding and truncation that must not apply."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "cat", "dog"]
    tokenizer = tokenizers.Tokenizer(WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.enable_padding(length=12)
    tokenizer.enable_truncation(4)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def manifest(tokenizer: str, context: int, directory: Path | None) -> Manifest:
    return Manifest(
        name="small",
        dimension=8,
        logit_scale=20.0,
        image=ImageSpec(size=224),
        text=TextSpec(pipeline="pooled", context_length=context, tokenizer=tokenizer),
        backends={"onnx": Backend(image="image.onnx", text="text.onnx")},
        files={},
        canary=Canary(file="canary.npz", floor=0.99),
        directory=directory,
    )


def test_a_package_brings_its_own_tokenizer(package: Path) -> None:
    loaded = load_tokenizer(manifest("tokenizer.json", 6, package))
    assert isinstance(loaded, PackageTokenizer)
    ids = loaded.encode("a cat")
    assert ids.dtype == np.int32
    assert ids.tolist() == [2, 4, 5, 3]
    assert loaded.encode("").tolist() == [2, 3]
    assert loaded.encode("a cat a dog a cat").tolist() == [2, 4, 5, 4, 6, 3]
    assert loaded.encode("a \ud800 \0").tolist()[:2] == [2, 4]


def test_the_built_in_tokenizer_takes_the_models_context() -> None:
    loaded = load_tokenizer(manifest("clip", 16, None))
    assert loaded.count("word " * 100) == 16


@pytest.mark.parametrize("content", [None, b"", b"{}", b"\xff\xfe"])
def test_a_damaged_tokenizer_file_is_named(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"tokenizer\.json: cannot be read as a tokenizer"):
        load_tokenizer(manifest("tokenizer.json", 6, tmp_path))
