"""Messages and workers that do not belong: counted, named, and without effect on anybody else."""

from __future__ import annotations

from collections.abc import Iterator

import msgpack
import pytest
import zmq

from hailo_clip.shared.codec import MAX_ITEMS, encode
from hailo_clip.shared.messages import Batch, Beat, Control, Pong, Submit
from hailo_clip.shared.models import open_model
from hailo_clip.shared.sockets import MAX_FRAME_BYTES, backend_dealer, frontend_dealer
from hailo_clip.workers.session import ExitCode
from tests.doubles.processes import Running, Service, counter, image

pytestmark = pytest.mark.xdist_group("broker-answers")


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with Service() as service, service.running(2) as running:
        yield running


def nested(depth: int) -> bytes:
    return b"\x91" * depth + b"\xc0"


def submit(request_id: int, payload: bytes = b"1234") -> list[bytes]:
    """A `Submit` of the right form, for no model that anybody serves."""
    return encode(Submit(request_id, "r", "t", 1.0, False, 5.0, "other", (1,), (payload,)))


MALFORMED = {
    "empty": [b""],
    "no msgpack": [b"\xc1"],
    "truncated": [submit(1)[0][:-3]],
    "trailing bytes": [submit(1)[0] + b"\x00", b"1234"],
    "nested": [nested(100_000)],
    "a map": [msgpack.packb({"version": 1})],
    "version 2": [msgpack.packb((2, *msgpack.unpackb(submit(1)[0])[1:])), b"1234"],
    "unknown type": [msgpack.packb((1, 99, 1))],
    "type of another direction": encode(Pong(1, "e.1", "ready", "", 2, "m", "f", "onnx")),
    "a broker's own message": encode(Batch("e", 1, 0, ("t",), (b"x",))),
    "too few frames": submit(1)[:1],
    "too many frames": [*submit(1), *[b"x"] * 1000],
    "too many items": [
        msgpack.packb((1, 1, 1, "r", "t", 1.0, False, 5.0, "f", (1,) * (MAX_ITEMS + 1))),
        *[b"x"] * (MAX_ITEMS + 1),
    ],
    "bad UTF-8": [b"\x93\x01\x18\xa2\xff\xfe"],
    "a NaN deadline": [msgpack.packb((1, 1, 1, "r", "t", 1.0, False, float("nan"), "f", (1,))), b"1234"],
    "no weight": [msgpack.packb((1, 1, 1, "r", "t", 0.0, False, 5.0, "f", (1,))), b"1234"],
    "hardly a weight": [msgpack.packb((1, 1, 1, "r", "t", 5e-324, False, 5.0, "f", (1,))), b"1234"],
    "a negative id": [msgpack.packb((1, 2, -1))],
}
ALSO_FOR_WORKERS = encode(Control(1, "status"))
ALSO_FOR_FRONTENDS = encode(Beat("e"))


@pytest.mark.parametrize("plane", ["frontend", "backend"])
def test_malformed_messages_are_counted_and_dropped(running, plane):
    dealer = {"frontend": frontend_dealer, "backend": backend_dealer}[plane]
    strangers = [ALSO_FOR_FRONTENDS if plane == "frontend" else ALSO_FOR_WORKERS]
    before = counter(running.service.snapshot(), "protocol_errors_total", plane)
    with zmq.Context() as context, dealer(context, running.service.config) as socket:
        for message in [*MALFORMED.values(), *strangers]:
            socket.send_multipart(message)
        expected = before + len(MALFORMED) + 1
        frontend = running.frontend
        frontend.until(
            lambda: counter(running.service.snapshot(), "protocol_errors_total", plane) == expected, 5.0
        )
        assert not socket.poll(0)  # nobody answers nonsense
    answer(running)


def answer(running: Running) -> None:
    """The service still works, with both workers."""
    number = running.frontend.submit([image(1), image(2)])
    running.frontend.until_settled()
    assert running.frontend.check(number).errors == (None, None)
    assert [w["state"] for w in running.service.snapshot()["workers"]] == ["ready", "ready"]
    assert running.broker.alive


@pytest.mark.parametrize("plane", ["frontend", "backend"])
def test_an_oversized_frame_costs_its_sender_the_connection(running, plane):
    dealer = {"frontend": frontend_dealer, "backend": backend_dealer}[plane]
    with zmq.Context() as context, dealer(context, running.service.config) as socket:
        events = socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        socket.send_multipart([submit(1)[0], bytes(MAX_FRAME_BYTES + 1)])
        assert events.poll(5000)
        socket.disable_monitor()
        events.close(linger=0)
    answer(running)


def test_a_request_for_another_model_is_refused_with_both_named(running):
    with zmq.Context() as context, frontend_dealer(context, running.service.config) as socket:
        socket.send_multipart(submit(7))
        assert socket.poll(5000)
        _, number, request_id, error = msgpack.unpackb(socket.recv_multipart()[0])
    ours = running.service.manifest.fingerprint("emulated")
    assert (number, request_id, error[0]) == (12, 7, "model_mismatch")
    assert "other" in error[1] and ours in error[1]


def test_a_worker_with_another_model_is_rejected_with_both_named(running):
    other = "emulated-tinyclip-61m-32"
    worker = running.service.worker("stranger", "emu:9", settings={"model.name": other})
    assert worker.wait() == ExitCode.REJECTED.value
    theirs = open_model(other, running.service.directory).fingerprint("emulated")
    ours = running.service.manifest.fingerprint("emulated")
    for log in (worker.logged(), running.broker.logged()):
        assert theirs in log and ours in log
    answer(running)


def test_a_second_worker_of_a_name_takes_its_place(running):
    first = running.workers[0]
    second = running.service.worker("w0", "emu:0")
    assert first.wait() == ExitCode.FENCED.value
    assert f"process {second.pid} registered under the same name, w0" in first.logged()
    running.frontend.until_workers(2)
    running.workers[0] = second
    answer(running)
    assert counter(running.service.snapshot(), "worker_restarts_total", "superseded") == 1
