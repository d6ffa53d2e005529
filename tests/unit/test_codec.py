"""Every message survives the wire; anything else raises ProtocolError and nothing else."""

from __future__ import annotations

import contextlib
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hailo_clip.shared import label_messages as lm
from hailo_clip.shared import messages as m
from hailo_clip.shared.codec import (
    MAX_LABEL_CHARACTERS,
    MAX_LABELS,
    VERSION,
    ProtocolError,
    decode_from_frontend,
    decode_from_worker,
    decode_to_frontend,
    decode_to_worker,
    encode,
    encode_together,
)

ERROR = ("inference_failed", "Failed to encode image", None)
DECODERS = (decode_from_frontend, decode_to_frontend, decode_from_worker, decode_to_worker)
EXAMPLES = [
    (decode_from_frontend, m.Submit(7, "r-1", "10.0.0.1", 1.0, False, 30.0, "ab", (0, 1), (b"img", b"ids"))),
    (decode_from_frontend, m.Cancel(7)),
    (decode_from_frontend, m.Ping(1, (("classify", 200, 3),), "e.1")),
    (decode_from_frontend, m.Control(1, "status")),
    (
        decode_from_frontend,
        lm.PutLabels(8, "acme", "ppe", ("helmet",), ("a {}",), ("none",), "demo", "ab", "v1", (b"\0" * 8,)),
    ),
    (decode_from_frontend, lm.GetLabels(8, "acme", "ppe", "v1")),
    (decode_from_frontend, lm.DropLabels(8, "acme", "ppe")),
    (decode_from_frontend, lm.ListLabels(8, "acme")),
    (
        decode_to_frontend,
        lm.Labels(
            *(8, lm.FOUND, "v1", "demo", "ab", 2),
            *(("helmet",), ("a {}",), ("none",), (("ppe", 1, 1),)),
            frames=(b"\0" * 8,),
        ),
    ),
    (decode_to_frontend, lm.Labels(8, lm.MISSING)),
    (decode_to_frontend, m.Reply(7, (None, ERROR), 0.1, 0.02, 1, (b"\0" * 8,))),
    (decode_to_frontend, m.Refused(7, ("queue_full", "full", 2.0))),
    (decode_to_frontend, m.Pong(1, "e.1", "ready", "", 2, "demo", "ab", "onnx")),
    (decode_to_frontend, m.Status(1, {"workers": ({"name": "w"},)})),
    (decode_from_worker, m.Hello("w", "e", 12, "cpu", "onnx", "demo", "ab", 384, 8, 60.0)),
    (decode_from_worker, m.Ready("e", 0.9999)),
    (decode_from_worker, m.Ready("e", 0.9999, ((2, 0.02), (3, 1.5)))),
    (decode_from_worker, m.Failed("e", "no device", True)),
    (decode_from_worker, m.Beat("e")),
    (decode_from_worker, m.Result("e", 3, 0.05, (None, ERROR), (b"\0" * 8,))),
    (decode_from_worker, m.Bye("e")),
    (decode_from_worker, m.Leave("e")),
    (decode_to_worker, m.Welcome("b", "e", 1.0)),
    (decode_to_worker, m.Reject("e", "other model")),
    (decode_to_worker, m.Batch("e", 3, 0, ("r-1", "r-2"), (b"a", b"b"))),
    (decode_to_worker, m.BeatAck("b", "e")),
    (decode_to_worker, m.Fence("e", "silent", False)),
    (decode_to_worker, m.Stop("e")),
]


@pytest.mark.parametrize(("decode", "message"), EXAMPLES, ids=lambda v: type(v).__name__)
def test_round_trip(decode, message):
    expected = [message] if decode is decode_to_frontend else message
    assert decode(encode(message)) == expected


TO_FRONTEND: list[Any] = [message for decode, message in EXAMPLES if decode is decode_to_frontend]


@pytest.mark.parametrize("count", range(1, len(TO_FRONTEND) + 1))
def test_several_messages_for_a_frontend_go_together(count: int) -> None:
    messages = TO_FRONTEND[:count] * 2
    frames = encode_together(messages)
    assert len(frames) == 1 + sum(len(encode(message)) - 1 for message in messages)
    assert decode_to_frontend(frames) == messages


def test_one_message_goes_as_it_is() -> None:
    assert encode_together(TO_FRONTEND[:1]) == encode(TO_FRONTEND[0])


REPLY = (1, 11, 7, (None,), 0.1, 0.02, 0)
REFUSED = (0, 12, 7, ("queue_full", "full", 2.0))


@pytest.mark.parametrize(
    "frames",
    [
        [msgpack.packb([VERSION, 0, REPLY])],
        [msgpack.packb([VERSION, 0, REPLY]), b"row", b"surplus"],
        [msgpack.packb([VERSION, 0, REPLY, REPLY]), b"row"],
        [msgpack.packb([VERSION, 0]), b"surplus"],
        [msgpack.packb([VERSION, 0, 7])],
        [msgpack.packb([VERSION, 0, [0]])],
        [msgpack.packb([VERSION, 0, [-1, *REFUSED[1:]]])],
        [msgpack.packb([VERSION, 0, ["0", *REFUSED[1:]]])],
        [msgpack.packb([VERSION, 0, [0, 0, *REFUSED[1:]]])],
        [msgpack.packb([VERSION, 0, REFUSED, [0, 1, 7]])],
    ],
)
def test_several_messages_of_which_one_is_malformed(frames: list[bytes]) -> None:
    with pytest.raises(ProtocolError):
        decode_to_frontend(frames)


@pytest.mark.parametrize(("decode", "message"), EXAMPLES, ids=lambda v: type(v).__name__)
def test_only_its_own_direction(decode, message):
    for other in DECODERS:
        if other is not decode:
            with pytest.raises(ProtocolError):
                other(encode(message))


def put_labels(**changes: object) -> list[bytes]:
    """The frames of a `PutLabels`, with a field of its header changed."""
    fields = {
        **{"request_id": 7, "namespace": "acme", "name": "ppe", "prompts": ["helmet"]},
        **{"templates": [], "negatives": [], "model": "demo", "fingerprint": "ab", "expects": ""},
    }
    return [msgpack.packb([VERSION, 5, *(fields | changes).values()]), b"\0" * 8]


def test_the_helper_above_makes_a_sound_message():
    assert isinstance(decode_from_frontend(put_labels()), lm.PutLabels)


@pytest.mark.parametrize(
    "fields",
    [
        [7, "eaten", "", "", "", 0, [], [], [], []],
        [7, lm.FOUND, "", "", "", -1, [], [], [], []],
        [7, lm.LISTED, "", "", "", 0, [], [], [], [["ppe", 1]]],
        [7, lm.LISTED, "", "", "", 0, [], [], [], [["ppe", 1, -1]]],
        [7, lm.LISTED, "", "", "", 0, [], [], []],
    ],
)
def test_malformed_answers_about_labels(fields: list[object]) -> None:
    with pytest.raises(ProtocolError):
        decode_to_frontend([msgpack.packb([VERSION, 15, *fields])])


@pytest.mark.parametrize(
    "frames",
    [
        [],
        [b""],
        [b"\xc1"],
        [msgpack.packb(7)],
        [msgpack.packb([])],
        [msgpack.packb([VERSION + 1, 2, 7])],
        [msgpack.packb([VERSION, 99, 7])],
        [msgpack.packb([VERSION, "2", 7])],
        [msgpack.packb([VERSION, 2])],
        [msgpack.packb([VERSION, 2, 7, 8])],
        [msgpack.packb([VERSION, 2, -1])],
        [msgpack.packb([VERSION, 2, True])],
        [msgpack.packb([VERSION, 2, 7]), b"surplus frame"],
        [msgpack.packb([VERSION, 1, 7, "t", "a", 1.0, False, 1.0, "f", [0, 1]]), b"one frame for two items"],
        [msgpack.packb([VERSION, 1, 7, "t", "a", 0.0, False, 1.0, "f", [0]]), b"weight zero"],
        [msgpack.packb([VERSION, 1, 7, "t", "a", float("nan"), False, 1.0, "f", [0]]), b"weight nan"],
        [msgpack.packb([VERSION, 1, 7, "t", "a", 1.0, False, 1.0, "f", [2]]), b"unknown kind"],
        [msgpack.packb([VERSION, 1, 7, "t", "a", 1.0, False, 1.0, "f", []])],
        [msgpack.packb([VERSION, 2, 7]) + b"trailing"],
        put_labels(prompts=[]),
        put_labels(prompts=["x"] * (MAX_LABELS + 1)),
        put_labels(prompts=["x" * (MAX_LABEL_CHARACTERS + 1)]),
        put_labels(prompts=["x", 7]),
        put_labels(prompts="x"),
        put_labels(negatives=[b"x"]),
        put_labels(templates=[None]),
        put_labels(namespace="x" * 1025),
        put_labels(name=7),
        put_labels()[:1],
        [*put_labels(), b"surplus frame"],
        [msgpack.packb([VERSION, 6, 7, "acme", "ppe"])],
        [msgpack.packb([VERSION, 7, 7, "acme", "ppe"]), b"surplus frame"],
        [msgpack.packb([VERSION, 8, 7, 7])],
        [b"\x91" * 2000],
    ],
)
def test_malformed_is_a_protocol_error(frames: list[bytes]) -> None:
    with pytest.raises(ProtocolError):
        decode_from_frontend(frames)


@given(st.lists(st.binary(max_size=64), max_size=4))
def test_random_frames_never_raise_anything_else(frames: list[bytes]) -> None:
    for decode in DECODERS:
        with contextlib.suppress(ProtocolError):
            decode(frames)


@given(st.sampled_from(EXAMPLES), st.integers(0, 200), st.integers(0, 255))
def test_one_changed_byte_never_raises_anything_else(example, at, value):
    decode, message = example
    header, *payload = encode(message)
    changed = bytearray(header)
    changed[at % len(changed)] = value
    with contextlib.suppress(ProtocolError):
        decode([bytes(changed), *payload])
