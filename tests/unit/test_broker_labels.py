"""The store of label sets: what it answers, its bounds, stale matrices, and the bytes of its files."""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import replace
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from hailo_clip.broker.labels import MAGIC, Change, LabelStore
from hailo_clip.broker.snapshot import snapshot
from hailo_clip.broker.work import Send
from hailo_clip.shared import label_messages as lm
from hailo_clip.shared.codec import decode_to_frontend, encode
from hailo_clip.shared.errors import LimitReached
from hailo_clip.shared.label_messages import DropLabels, GetLabels, Labels, ListLabels, PutLabels
from hailo_clip.shared.messages import Refused
from tests.doubles.broker_world import DIMENSION, FINGERPRINT, FRONTEND, World, policy

OTHER = "0" * 32


def rows(count: int, dimension: int = DIMENSION, seed: int = 0) -> bytes:
    """A matrix of rows of length 1."""
    made = np.random.default_rng(seed).standard_normal((count, dimension))
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype("<f4").tobytes()


def put(name: str = "ppe", n: int = 2, k: int = 1, seed: int = 0, **changes: Any) -> PutLabels:
    made = PutLabels(
        7,
        "acme",
        name,
        tuple(f"prompt {i}" for i in range(n)),
        ("a {}",),
        tuple(f"no {i}" for i in range(k)),
        "paper",
        FINGERPRINT,
        "",
        (rows(n + k, seed=seed),),
    )
    return replace(made, **changes)


def get(name: str = "ppe", version: str = "", namespace: str = "acme") -> GetLabels:
    return GetLabels(8, namespace, name, version)


def answered(store: LabelStore, request: lm.LabelRequest) -> Labels:
    answer = store.answer(request)
    assert isinstance(answer, Labels), answer
    assert answer.request_id == request.request_id
    assert decode_to_frontend(encode(answer)) == [answer]
    return answer


def refused(store: LabelStore, request: lm.LabelRequest) -> tuple[str, str]:
    before = dict(store._sets), store.bytes
    answer = store.answer(request)
    assert isinstance(answer, Refused), answer
    assert (store._sets, store.bytes) == before
    return answer.error[0], answer.error[1]


def planned(store: LabelStore, request: lm.LabelChange) -> Change:
    made = store.plan(request)
    assert isinstance(made, Change), made
    return made


def file_of(store: LabelStore, name: str = "ppe") -> bytes:
    """What a set is on the disk."""
    return planned(store, DropLabels(1, "acme", name)).former_file() or b""


def test_what_was_put_is_found():
    store = LabelStore(policy())
    kept = answered(store, put())
    assert (kept.outcome, kept.frames) == (lm.CREATED, ())
    found = answered(store, get())
    assert found.outcome == lm.FOUND
    assert found == replace(kept, request_id=8, outcome=lm.FOUND, frames=put().frames)
    assert (found.prompts, found.templates, found.negatives) == (
        ("prompt 0", "prompt 1"),
        ("a {}",),
        ("no 0",),
    )
    assert (found.model, found.fingerprint, found.dimension) == ("paper", FINGERPRINT, DIMENSION)


def test_who_has_a_version_is_told_that_it_holds():
    store = LabelStore(policy())
    version = answered(store, put()).version
    assert answered(store, get(version=version)) == Labels(8, lm.UNCHANGED, version)
    changed = answered(store, put(seed=1))
    assert changed.outcome == lm.REPLACED
    assert answered(store, get(version=version)).outcome == lm.FOUND
    assert answered(store, get(version=changed.version)).outcome == lm.UNCHANGED


def test_a_version_follows_from_the_set_alone():
    one, other = LabelStore(policy()), LabelStore(policy(broker_epoch="another"))
    versions = {
        answered(store, request).version
        for store in (one, other)
        for request in (put(), put(request_id=9), put(frames=(memoryview(rows(3)),)))
    }
    assert len(versions) == 1
    changes: list[dict[str, Any]] = [
        {"name": "x"},
        {"namespace": "x"},
        {"prompts": ("prompt 0", "prompt")},
        {"templates": ()},
        {"negatives": ("no",)},
        {"frames": (rows(3, seed=1),)},
        {"prompts": ("prompt 0",), "negatives": ("prompt 1", "no 0")},
    ]
    versions |= {answered(one, put(**change)).version for change in changes}
    assert len(versions) == 1 + len(changes)


def test_what_is_dropped_is_missing():
    store = LabelStore(policy())
    answered(store, put())
    assert answered(store, DropLabels(9, "acme", "ppe")) == Labels(9, lm.DROPPED)
    assert answered(store, DropLabels(9, "acme", "ppe")) == Labels(9, lm.MISSING)
    assert answered(store, get()) == Labels(8, lm.MISSING)
    assert (len(store), store.bytes) == (0, 0)


def test_namespaces_see_their_own():
    store = LabelStore(policy())
    for request in (put("b"), put("a", 1, 0), put("b", namespace=""), put("c", namespace="acme-2")):
        answered(store, request)
    assert answered(store, ListLabels(9, "acme")).listing == (("a", 1, 0), ("b", 2, 1))
    assert answered(store, ListLabels(9, "")).listing == (("b", 2, 1),)
    assert answered(store, ListLabels(9, "nobody")) == Labels(9, lm.LISTED)
    assert answered(store, DropLabels(9, "", "c")).outcome == lm.MISSING
    assert answered(store, get("b", namespace="")).outcome == lm.FOUND


def test_a_replacement_of_a_version_that_is_gone_is_a_conflict():
    store = LabelStore(policy())
    assert answered(store, put(expects="v1")) == Labels(7, lm.CONFLICT)
    version = answered(store, put()).version
    assert answered(store, put(seed=1, expects="v1")).outcome == lm.CONFLICT
    assert answered(store, get(version=version)).outcome == lm.UNCHANGED
    assert answered(store, put(seed=1, expects=version)).outcome == lm.REPLACED


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        rows(2),
        rows(4),
        rows(3)[:-1],
        rows(3, DIMENSION + 1),
        rows(2) + bytes(4 * DIMENSION),
        rows(2) + np.full(DIMENSION, np.nan, "<f4").tobytes(),
        rows(2) + np.full(DIMENSION, np.inf, "<f4").tobytes(),
    ],
)
def test_a_matrix_that_does_not_fit_is_refused(frame: bytes):
    error = ("internal", "the matrix of the label set does not fit its prompts")
    assert refused(LabelStore(policy()), put(frames=(frame,))) == error


def test_a_matrix_of_another_model_is_refused():
    code, _ = refused(LabelStore(policy()), put(fingerprint=OTHER))
    assert code == "model_mismatch"


# Bounds


def test_one_set_too_many_is_refused_and_replacing_is_not():
    store = LabelStore(policy(max_label_sets=2))
    for name in ("a", "b"):
        answered(store, put(name))
    expected = ("limit", "There is no place for another label set: 2 of 2 are kept; delete one first")
    assert refused(store, put("c")) == expected
    assert answered(store, put("a", seed=1)).outcome == lm.REPLACED
    answered(store, DropLabels(9, "acme", "b"))
    assert answered(store, put("c")).outcome == lm.CREATED


def test_bytes_are_bounded():
    probe = LabelStore(policy())
    answered(probe, put())
    store = LabelStore(policy(max_label_bytes=2 * probe.bytes + 50))
    for name in ("a", "b"):
        answered(store, put(name))
    code, message = refused(store, put("c"))
    assert code == "limit"
    assert message == (
        f"There is no place for a label set of {probe.bytes} bytes: of {2 * probe.bytes + 50}, 50 are free; "
        "delete another one first"
    )
    assert answered(store, put("a", seed=1)).outcome == lm.REPLACED
    code, message = refused(store, put("a", 9))
    assert f", {probe.bytes + 50} are free;" in message  # what it replaces makes room


def test_long_prompts_count():
    store = LabelStore(policy())
    answered(store, put(prompts=("ä" * 1000, "prompt 1")))
    assert 2000 < store.bytes < 3000


# Changes that are planned


def test_a_plan_changes_nothing_until_it_is_applied():
    store = LabelStore(policy())
    first = planned(store, put())
    assert (len(store), store.bytes, first.former_file()) == (0, 0, None)
    assert answered(store, get()).outcome == lm.MISSING
    store.apply(first)
    assert first.file() == dumped() == file_of(store)
    kept = answered(store, get())
    other = planned(store, put(seed=1))
    assert (other.former_file(), other.answer.outcome) == (dumped(), lm.REPLACED)
    gone = planned(store, DropLabels(9, "acme", "ppe"))
    assert (gone.file(), gone.answer.outcome) == (None, lm.DROPPED)
    assert answered(store, get()) == kept
    store.apply(other)
    assert file_of(store) == other.file() != dumped()
    store.check_invariants()


def test_what_changes_nothing_is_no_change():
    store = LabelStore(policy(max_label_sets=0))
    assert store.plan(DropLabels(9, "acme", "ppe")) == Labels(9, lm.MISSING)
    assert store.plan(put(expects="wrong")) == Labels(7, lm.CONFLICT)
    assert isinstance(store.plan(put()), Refused)


def test_only_a_new_matrix_of_the_same_definition_renews():
    store = LabelStore(policy())
    assert not planned(store, put()).renews
    version = answered(store, put()).version
    assert planned(store, put(seed=1, expects=version)).renews
    assert not planned(store, put(seed=1)).renews  # a client's own
    assert not planned(store, put(prompts=("x", "y"), expects=version)).renews
    assert not planned(store, DropLabels(9, "acme", "ppe")).renews


# Another model


def served_by_another(store: LabelStore, fingerprint: str = OTHER, **changes: Any) -> LabelStore:
    """A store of another model that loaded the files of `store`."""
    made = LabelStore(policy(fingerprint=fingerprint, **changes))
    for key in store._sets:
        assert made.load(file_of(store, key[1])) == key
    return made


def test_the_definition_outlives_the_model_and_the_matrix_does_not():
    old = LabelStore(policy())
    kept = answered(old, put())
    store = served_by_another(old, dimension=6)
    for version in ("", kept.version):
        assert answered(store, get(version=version)) == replace(kept, request_id=8, outcome=lm.STALE)
    renewed = put(fingerprint=OTHER, expects=kept.version, frames=(rows(3, 6),))
    again = answered(store, renewed)
    assert (again.outcome, again.dimension, again.fingerprint) == (lm.REPLACED, 6, OTHER)
    assert answered(store, renewed).outcome == lm.CONFLICT  # another frontend was faster
    assert answered(store, get(version=again.version)).outcome == lm.UNCHANGED


def test_a_matrix_is_good_again_when_its_model_is_back():
    store = LabelStore(policy())
    kept = answered(store, put())
    back = served_by_another(served_by_another(store), FINGERPRINT)
    assert answered(back, get(version=kept.version)).outcome == lm.UNCHANGED


# Files


def signed(body: bytes) -> bytes:
    """A file whose checksum is right, whatever its body is."""
    return MAGIC + hashlib.sha256(body).digest() + body


def dumped() -> bytes:
    store = LabelStore(policy())
    answered(store, put())
    return file_of(store)


def spoiled(data: bytes, match: str = ".") -> None:
    store = LabelStore(policy())
    answered(store, put("held"))
    before = dict(store._sets), store.bytes
    with pytest.raises(ValueError, match=match):
        store.load(data)
    assert (store._sets, store.bytes) == before


def test_a_set_makes_the_round_trip():
    store = LabelStore(policy())
    assert store.load(dumped()) == ("acme", "ppe")
    assert answered(store, get()).frames == put().frames
    assert file_of(store) == dumped()


def test_there_may_be_no_place_for_it():
    with pytest.raises(LimitReached):
        LabelStore(policy(max_label_sets=0)).load(dumped())


def test_every_flipped_byte_is_noticed():
    data = dumped()
    for i in range(len(data)):
        spoiled(data[:i] + bytes([data[i] ^ 1]) + data[i + 1 :], "the checksum does not match")


@pytest.mark.parametrize("cut", [0, 1, 8, 39, 40, 60, -1])
def test_a_truncated_file_is_refused(cut: int):
    spoiled(dumped()[:cut])


def packed(**changes: object) -> bytes:
    fields: dict[str, object] = {
        **{"namespace": "acme", "name": "ppe", "prompts": ["a"], "templates": [], "negatives": []},
        **{"model": "paper", "fingerprint": FINGERPRINT, "matrix": rows(1)},
    }
    return bytes(msgpack.packb(list((fields | changes).values())))


def test_the_helper_above_makes_a_sound_file():
    LabelStore(policy()).load(signed(packed()))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        packed() + b"\0",
        packed(more=1),
        msgpack.packb(7),
        msgpack.packb([]),
        msgpack.packb([1] * 8),
        packed(prompts=[]),
        packed(prompts="a"),
        packed(prompts=[1]),
        packed(name=1),
        packed(name=b"ppe"),
        packed(name={}),
        packed(matrix="x"),
        packed(matrix=7),
        packed(matrix=None),
        packed(matrix=b""),
        packed(matrix=rows(1)[:-1]),
        packed(matrix=rows(1) + bytes(16)),
        packed(matrix=bytes(16)),
        packed(templates=1 << 63),
        b"\x98" + b"\xd9\x02\xff\xff" * 8,
    ],
)
def test_a_body_that_is_no_set_under_a_right_checksum_is_refused(body: bytes):
    """As another version of this program, or a hand, might leave it."""
    spoiled(signed(body))


@given(st.binary(max_size=200))
def test_no_bytes_whatever_raise_anything_else(noise: bytes):
    spoiled(noise)
    spoiled(signed(noise))


@given(st.integers(0, 400), st.integers(0, 255))
def test_one_changed_byte_under_a_right_checksum_raises_nothing_else(at: int, value: int):
    body = bytearray(packed())
    body[at % len(body)] = value
    with contextlib.suppress(ValueError):
        LabelStore(policy()).load(signed(bytes(body)))


# In the scheduler


def test_the_scheduler_answers_and_counts():
    world = World()
    scheduler = world.scheduler
    for request in (put(), get(), get("other")):
        scheduler.from_frontend(world.now, FRONTEND, request)
    sent = [a.message for a in scheduler.flush(world.now) if isinstance(a, Send)]
    assert [m.outcome for m in sent if isinstance(m, Labels)] == [lm.CREATED, lm.FOUND, lm.MISSING]
    told = snapshot(scheduler, world.now)
    assert told["labels"] == {"sets": 1, "bytes": scheduler.labels.bytes, "max_sets": 1000}
    assert ["label_sets", [], 1] in told["gauges"]


class Histories(RuleBasedStateMachine):
    """Any order of requests, restarts and changes of the model, against a plain dictionary."""

    @initialize(most=st.integers(0, 4), room=st.sampled_from([1 << 20, 1500, 700]))
    def start(self, most: int, room: int) -> None:
        self.limits = {"max_label_sets": most, "max_label_bytes": room}
        self.fingerprint = FINGERPRINT
        self.store = LabelStore(policy(**self.limits))
        self.plain: dict[tuple[str, str], Labels] = {}
        self.disk: dict[tuple[str, str], bytes] = {}

    names = st.sampled_from(["a", "b", "c"])
    spaces = st.sampled_from(["", "acme"])

    @rule(
        name=names,
        space=spaces,
        prompts=st.integers(1, 8),
        seed=st.integers(0, 2),
        stale=st.booleans(),
        expects=st.sampled_from(["", "", "held", "wrong"]),
        full=st.booleans(),
    )
    def put(
        self, name: str, space: str, prompts: int, seed: int, stale: bool, expects: str, full: bool
    ) -> None:
        held = self.plain.get((space, name))
        version = {"held": held.version if held else "gone", "wrong": "wrong"}.get(expects, "")
        fingerprint = "f" * 31 + "e" if stale else self.fingerprint
        request = put(name, prompts, 0, seed, namespace=space, fingerprint=fingerprint, expects=version)
        before = len(self.store), self.store.bytes
        answer = self._carried_out(request, full)
        if answer is None:
            assert not stale
        elif isinstance(answer, Refused):
            assert (len(self.store), self.store.bytes) == before
            assert answer.error[0] == ("model_mismatch" if stale else "limit")
            if not stale and self.limits["max_label_bytes"] == 1 << 20:
                assert held is None and len(self.plain) == self.limits["max_label_sets"]
        elif answer.outcome == lm.CONFLICT:
            assert version and (held is None or held.version != version)
        else:
            assert not stale and (held is None or not version or version == held.version)
            assert answer.outcome == (lm.CREATED if held is None else lm.REPLACED)
            self.plain[space, name] = replace(answer, request_id=8, outcome=lm.FOUND, frames=request.frames)

    @rule(name=names, space=spaces, known=st.booleans())
    def get(self, name: str, space: str, known: bool) -> None:
        held = self.plain.get((space, name))
        answer = answered(self.store, get(name, held.version if held and known else "", space))
        if held is None:
            assert answer == Labels(8, lm.MISSING)
        elif held.fingerprint != self.fingerprint:
            assert answer == replace(held, outcome=lm.STALE, frames=())
        else:
            assert answer == (Labels(8, lm.UNCHANGED, held.version) if known else held)

    @rule(name=names, space=spaces, full=st.booleans())
    def drop(self, name: str, space: str, full: bool) -> None:
        answer = self._carried_out(DropLabels(9, space, name), full)
        if answer is not None:
            held = self.plain.pop((space, name), None)
            assert answer == Labels(9, lm.DROPPED if held else lm.MISSING)

    def _carried_out(self, request: lm.LabelChange, full: bool) -> Labels | Refused | None:
        """None when it would have been, and the disk was full."""
        change = self.store.plan(request)
        if not isinstance(change, Change):
            return change
        assert change.former_file() == self.disk.get(change.key)
        if full:
            return None
        data = change.file()
        if data is None:
            del self.disk[change.key]
        else:
            self.disk[change.key] = data
        self.store.apply(change)
        return change.answer

    @rule(fingerprint=st.sampled_from([FINGERPRINT, FINGERPRINT, OTHER]))
    def restart(self, fingerprint: str) -> None:
        self.fingerprint = fingerprint
        self.store = LabelStore(policy(fingerprint=fingerprint, **self.limits))
        assert {self.store.load(data) for data in self.disk.values()} == self.plain.keys()

    @invariant()
    def agrees(self) -> None:
        self.store.check_invariants()
        assert self.store._sets.keys() == self.plain.keys()
        for space in ("", "acme"):
            own = sorted((n, len(s.prompts), 0) for (of, n), s in self.plain.items() if of == space)
            assert answered(self.store, ListLabels(9, space)).listing == tuple(own)


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
