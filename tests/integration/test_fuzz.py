"""Mutated requests over HTTP: each gets an answer, and none is the service's fault.

``HAILO_CLIP_SOAK=1`` sends 100,000 to a whole service, whose memory must stay flat and whose processes must
stay the same.
"""

from __future__ import annotations

import collections
import contextlib
import http.client
import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.doubles.frontend import MODEL
from tests.doubles.fuzz import Fuzzer, Sent
from tests.doubles.running_service import RunningService
from tests.doubles.served import serving

SOAK = bool(os.environ.get("HAILO_CLIP_SOAK"))
SHORT, LONG, CLIENTS = 3000, 100_000, 4
BUSY = (429,)  # the queue is bounded


class Client:
    """Sends requests over one connection for as long as it lasts, and counts the answers by their codes."""

    def __init__(self, port: int, seed: int) -> None:
        self._port, self._fuzzer = port, Fuzzer(seed, MODEL)
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self.codes: collections.Counter[int] = collections.Counter()
        self.wrong: list[str] = []

    def run(self, count: int) -> None:
        """Send `count` requests."""
        for _ in range(count):
            sent = self._fuzzer.next()
            try:
                self._one(sent)
            except (OSError, http.client.HTTPException) as e:
                self.wrong.append(f"{e!r}: {sent}"[:1000])
                self._connection.close()
        self._connection.close()

    def _one(self, sent: Sent) -> None:
        self._connection.request(sent.method, sent.path, sent.body or None, sent.headers)
        answer = self._connection.getresponse()
        data = answer.read()
        self.codes[answer.status] += 1
        fault = fault_of(sent, answer.status, answer.headers.get("Content-Type", ""), data)
        if fault:
            self.wrong.append(f"{fault}: {answer.status} {data[:200]!r} to {sent}"[:1000])
        if answer.will_close:
            self._connection.close()


def fault_of(sent: Sent, status: int, kind: str, data: bytes) -> str:
    """What is wrong with an answer, if anything is."""
    if status >= 500:
        return "the service's fault"
    if status >= 400 and sent.method != "HEAD":
        try:
            error = json.loads(data)["error"]
        except (ValueError, KeyError):
            return "no error in JSON"
        words = error if isinstance(error, str) else error["message"]
        if kind != "application/json" or not words or "Traceback" in words or len(words) > 1000:
            return "no error for a person"
    return ""


def send(
    port: int, count: int, meanwhile: Callable[[int], None] = lambda sent: None
) -> collections.Counter[int]:
    """Send `count` requests with several clients; the answers by their codes."""
    clients = [Client(port, seed) for seed in range(CLIENTS)]
    threads = [threading.Thread(target=client.run, args=(count // CLIENTS,)) for client in clients]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        time.sleep(0.2)
        meanwhile(sum(client.codes.total() for client in clients))
    wrong = [text for client in clients for text in client.wrong]
    assert wrong == [], f"{len(wrong)} of {count}; the first: " + "\n".join(wrong[:5])
    codes = sum((client.codes for client in clients), collections.Counter[int]())
    assert codes.total() == count // CLIENTS * CLIENTS
    return codes


def test_mutated_requests_are_answered_and_none_is_the_services_fault() -> None:
    with serving(max_body_mib=2) as served:
        pid = only_child(served.process.pid)
        codes = send(served.port, SHORT)
        assert only_child(served.process.pid) == pid
        assert all(line["level"] not in ("error", "critical") for line in served.logged())
        assert served.healthy()
    # Enough of both, or the mutations are of no use.
    assert codes[200] > SHORT / 10
    assert codes[400] > SHORT / 10
    assert {404, 405, 415} <= codes.keys()


def only_child(pid: int) -> int:
    (child,) = psutil.Process(pid).children()
    return int(child.pid)


@pytest.mark.skipif(not SOAK, reason="takes minutes; set HAILO_CLIP_SOAK=1")
@pytest.mark.xdist_group("serve")
def test_a_hundred_thousand_leave_the_service_as_it_was(tmp_path: Path) -> None:
    service = RunningService(
        tmp_path, HAILO_CLIP_EMULATED_FAULTS="time_scale=0.05", HAILO_CLIP__SERVER__MAX_BODY_MIB="2"
    )
    sizes: list[tuple[int, dict[str, int]]] = []

    def note(sent: int) -> None:
        if sent >= (len(sizes) + 1) * LONG // 20:
            sizes.append((sent, memory(service)))

    try:
        service.wait_ready()
        children = service.children()
        began = time.monotonic()
        codes = send(service.port, LONG, note)
        took = time.monotonic() - began
        assert service.children() == children
        assert service.healthy()
        sizes.append((LONG, memory(service)))
        print(f"\n{LONG} in {took:.0f} s: {dict(sorted(codes.items()))}")
        for sent, kib in sizes:
            print(f"{sent:7d} {kib}")
        early, late = sizes[len(sizes) // 2][1], sizes[-1][1]
        for name, before in early.items():
            assert late[name] < before * 1.05 + 4096, f"{name} grows: {before} -> {late[name]} KiB"
        log = [json.loads(line) for line in service.log.read_text().splitlines() if line.startswith("{")]
        assert [line for line in log if line["level"] in ("error", "critical")] == []
    finally:
        with contextlib.suppress(Exception):
            service.stop()
        service.end()


def memory(service: RunningService) -> dict[str, int]:
    """KiB of resident memory of each process, frontends' workers included."""
    found = {}
    for name, pid in service.children().items():
        processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        found[name] = sum(process.memory_info().rss for process in processes) >> 10
    return found
