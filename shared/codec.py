"""Messages to frames and back; the only place that knows the header's bytes (see messages.py).

Decoding is strict: a wrong version, type, field count, field type or frame count raises `ProtocolError`
and nothing else. The receiver counts it and drops the message.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

import msgpack

from hailo_clip.shared import label_messages as lm
from hailo_clip.shared import messages as m
from hailo_clip.shared.messages import Buffer, FromFrontend, FromWorker, Message, ToFrontend, ToWorker

VERSION = 1
MAX_ITEMS = 2048
"""Most items of one Submit or Batch; far above what a frontend accepts."""

MAX_LABELS = 1024
"""Most prompts, templates or negative prompts of one label set; above what a frontend accepts."""

MAX_LABEL_CHARACTERS = 16 << 10

Check = Callable[[Any], bool]


class ProtocolError(Exception):
    """A message that is not of this protocol version; it is counted and dropped, never acted on."""


def _is_str(v: Any) -> bool:
    return type(v) is str and len(v) <= 1024


def _is_long_str(v: Any) -> bool:
    return type(v) is str


def _is_id(v: Any) -> bool:
    return type(v) is int and 0 <= v < 1 << 63


def _is_bool(v: Any) -> bool:
    return type(v) is bool


def _is_number(v: Any) -> bool:
    return type(v) in (int, float) and math.isfinite(v)


def _is_seconds(v: Any) -> bool:
    return type(v) in (int, float) and 0 <= v < math.inf


def _is_weight(v: Any) -> bool:
    return type(v) in (int, float) and 1e-6 <= v <= 1e6


def _is_kind(v: Any) -> bool:
    return type(v) is int and v in (0, 1)


def _is_kinds(v: Any) -> bool:
    return type(v) is tuple and 0 < len(v) <= MAX_ITEMS and all(map(_is_kind, v))


def _is_traces(v: Any) -> bool:
    return type(v) is tuple and 0 < len(v) <= MAX_ITEMS and all(map(_is_str, v))


def _is_error(v: Any) -> bool:
    return (
        type(v) is tuple
        and len(v) == 3
        and _is_str(v[0])
        and _is_long_str(v[1])
        and (v[2] is None or _is_seconds(v[2]))
    )


def _is_errors(v: Any) -> bool:
    return type(v) is tuple and len(v) <= MAX_ITEMS and all(e is None or _is_error(e) for e in v)


def _is_tallies(v: Any) -> bool:
    return type(v) is tuple and all(
        type(e) is tuple and len(e) == 3 and _is_str(e[0]) and _is_id(e[1]) and _is_id(e[2]) for e in v
    )


def _is_labels(v: Any) -> bool:
    return (
        type(v) is tuple
        and len(v) <= MAX_LABELS
        and all(type(e) is str and len(e) <= MAX_LABEL_CHARACTERS for e in v)
    )


def _is_filled(v: Any) -> bool:
    return _is_labels(v) and len(v) > 0


def _is_outcome(v: Any) -> bool:
    return type(v) is str and v in lm.OUTCOMES


def _is_timings(v: Any) -> bool:
    return (
        type(v) is tuple
        and len(v) in (0, len(m.Kind))
        and all(
            type(e) is tuple and len(e) == 2 and _is_id(e[0]) and e[0] > 0 and _is_seconds(e[1]) for e in v
        )
    )


def _is_dict(v: Any) -> bool:
    return type(v) is dict


_Spec = tuple[type[Any], tuple[Check, ...], Callable[[Any], int]]


def _none(_: Any) -> int:
    return 0


def _per_kind(fields: Any) -> int:
    return len(fields[7])


def _per_trace(fields: Any) -> int:
    return len(fields[3])


def _one(_: Any) -> int:
    return 1


# At most one frame of embeddings; -1 stands for "0 or 1".
def _embeddings(_: Any) -> int:
    return -1


# The number on the wire, the class, one check a field, and how many payload frames there must be.
_SPECS: dict[int, _Spec] = {
    1: (
        m.Submit,
        (_is_id, _is_str, _is_str, _is_weight, _is_bool, _is_number, _is_str, _is_kinds),
        _per_kind,
    ),
    2: (m.Cancel, (_is_id,), _none),
    3: (m.Ping, (_is_id, _is_tallies, _is_str), _none),
    4: (m.Control, (_is_id, _is_str), _none),
    5: (
        lm.PutLabels,
        (_is_id, _is_str, _is_str, _is_filled, _is_labels, _is_labels, _is_str, _is_str, _is_str),
        _one,
    ),
    6: (lm.GetLabels, (_is_id, _is_str, _is_str, _is_str), _none),
    7: (lm.DropLabels, (_is_id, _is_str, _is_str), _none),
    8: (lm.ListLabels, (_is_id, _is_str), _none),
    11: (m.Reply, (_is_id, _is_errors, _is_seconds, _is_seconds, _is_id), _embeddings),
    12: (m.Refused, (_is_id, _is_error), _none),
    13: (
        m.Pong,
        (_is_id, _is_str, _is_str, _is_long_str, _is_id, _is_str, _is_str, _is_str),
        _none,
    ),
    14: (m.Status, (_is_id, _is_dict), _none),
    15: (
        lm.Labels,
        (
            *(_is_id, _is_outcome, _is_str, _is_str, _is_str, _is_id),
            *(_is_labels, _is_labels, _is_labels, _is_tallies),
        ),
        _embeddings,
    ),
    21: (
        m.Hello,
        (_is_str, _is_str, _is_id, _is_str, _is_str, _is_str, _is_str, _is_id, _is_id, _is_seconds),
        _none,
    ),
    22: (m.Ready, (_is_str, _is_number, _is_timings), _none),
    23: (m.Failed, (_is_str, _is_long_str, _is_bool), _none),
    24: (m.Beat, (_is_str,), _none),
    25: (m.Result, (_is_str, _is_id, _is_seconds, _is_errors), _embeddings),
    26: (m.Bye, (_is_str,), _none),
    27: (m.Leave, (_is_str,), _none),
    31: (m.Welcome, (_is_str, _is_str, _is_seconds), _none),
    32: (m.Reject, (_is_str, _is_long_str), _none),
    33: (m.Batch, (_is_str, _is_id, _is_kind, _is_traces), _per_trace),
    34: (m.BeatAck, (_is_str, _is_str), _none),
    35: (m.Fence, (_is_str, _is_long_str, _is_bool), _none),
    36: (m.Stop, (_is_str,), _none),
}


def _fields(cls: type[Any]) -> tuple[str, ...]:
    return tuple(f.name for f in dataclasses.fields(cls) if f.name != "frames")


def _getter(cls: type[Any]) -> Callable[[Any], tuple[Any, ...]]:
    """All header fields of a message as a tuple, also where there is only one."""
    names = _fields(cls)
    get = attrgetter(*names)
    return (lambda msg: (get(msg),)) if len(names) == 1 else get


_NUMBER: dict[type[Any], int] = {cls: number for number, (cls, _, _) in _SPECS.items()}
_GETTERS: dict[type[Any], Callable[[Any], tuple[Any, ...]]] = {cls: _getter(cls) for cls in _NUMBER}
_FRAMED = frozenset(cls for cls in _NUMBER if any(f.name == "frames" for f in dataclasses.fields(cls)))


def encode(message: Message) -> list[Buffer]:
    """The frames of `message`: header, then its payload frames as they are."""
    cls = type(message)
    header = msgpack.packb((VERSION, _NUMBER[cls], *_GETTERS[cls](message)))
    framed: Any = message
    return [header, *framed.frames] if cls in _FRAMED else [header]


def encode_together(messages: Sequence[Message]) -> list[Buffer]:
    """The frames of several messages as one (see messages.py): received with one system call and wake-up."""
    if len(messages) == 1:
        return encode(messages[0])
    headers: list[Any] = [VERSION, _TOGETHER]
    payload: list[Buffer] = []
    for message in messages:
        cls = type(message)
        framed: Any = message
        frames = framed.frames if cls in _FRAMED else ()
        headers.append((len(frames), _NUMBER[cls], *_GETTERS[cls](message)))
        payload += frames
    return [msgpack.packb(headers), *payload]


def _decode(frames: Sequence[Buffer], allowed: frozenset[int]) -> Any:
    header = _header(frames)
    return _message(header[1], header[2:], frames[1:], allowed)


def _header(frames: Sequence[Buffer]) -> tuple[Any, ...]:
    """The header's array, of this protocol's version."""
    if not frames:
        raise ProtocolError("empty message")
    try:
        header = msgpack.unpackb(frames[0], use_list=False, strict_map_key=True)
    except (ValueError, TypeError, msgpack.exceptions.UnpackException, RecursionError) as e:
        raise ProtocolError(f"header is not msgpack: {type(e).__name__}") from None
    if type(header) is not tuple or len(header) < 2:
        raise ProtocolError("header is not an array")
    if header[0] != VERSION:
        raise ProtocolError(f"protocol version {header[0]!r:.40}, this is {VERSION}")
    return header


def _message(number: Any, fields: tuple[Any, ...], payload: Sequence[Buffer], allowed: frozenset[int]) -> Any:
    if type(number) is not int or number not in allowed:
        raise ProtocolError(f"message type {number!r:.40} is not expected here")
    cls, checks, count = _SPECS[number]
    if len(fields) != len(checks):
        raise ProtocolError(f"{cls.__name__}: {len(fields)} fields instead of {len(checks)}")
    for check, value in zip(checks, fields, strict=True):  # a loop: twice as fast as all() of a generator
        if not check(value):
            raise ProtocolError(f"{cls.__name__}: wrong fields")
    return _framed(cls, fields, tuple(payload), count(fields))


def _framed(cls: type[Any], fields: tuple[Any, ...], payload: tuple[Buffer, ...], expected: int) -> Any:
    """`cls` from its fields and payload, with the number of payload frames checked."""
    if len(payload) > 1 if expected < 0 else len(payload) != expected:
        raise ProtocolError(f"{cls.__name__}: {len(payload)} payload frames")
    return cls(*fields, payload) if cls in _FRAMED else cls(*fields)


_TOGETHER = 0
_FROM_FRONTEND = frozenset((1, 2, 3, 4, 5, 6, 7, 8))
_TO_FRONTEND = frozenset((11, 12, 13, 14, 15))
_FROM_WORKER = frozenset((21, 22, 23, 24, 25, 26, 27))
_TO_WORKER = frozenset((31, 32, 33, 34, 35, 36))


def decode_from_frontend(frames: Sequence[Buffer]) -> FromFrontend:
    """What a frontend or operator sent. Raises `ProtocolError`."""
    message: FromFrontend = _decode(frames, _FROM_FRONTEND)
    return message


def decode_to_frontend(frames: Sequence[Buffer]) -> list[ToFrontend]:
    """What the broker sent to a frontend: one message, or several together. Raises `ProtocolError`."""
    header = _header(frames)
    if header[1] != _TOGETHER:
        return [_message(header[1], header[2:], frames[1:], _TO_FRONTEND)]
    messages: list[ToFrontend] = []
    at = 1
    for part in header[2:]:
        if type(part) is not tuple or len(part) < 2 or not _is_id(part[0]):
            raise ProtocolError("several messages together: one is not an array")
        messages.append(_message(part[1], part[2:], frames[at : at + part[0]], _TO_FRONTEND))
        at += part[0]
    if at != len(frames):
        raise ProtocolError(f"several messages together: {len(frames) - at} payload frames too many")
    return messages


def decode_from_worker(frames: Sequence[Buffer]) -> FromWorker:
    """What a worker sent. Raises `ProtocolError`."""
    message: FromWorker = _decode(frames, _FROM_WORKER)
    return message


def decode_to_worker(frames: Sequence[Buffer]) -> ToWorker:
    """What the broker sent to a worker. Raises `ProtocolError`."""
    message: ToWorker = _decode(frames, _TO_WORKER)
    return message
