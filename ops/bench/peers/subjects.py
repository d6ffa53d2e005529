"""The servers that are compared, each as it serves this job best, and the loads they get."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

from hailo_clip.ops.bench.peers.job import DECODER, DIRECTORY, MODEL
from hailo_clip.ops.bench.service import Served, our_service
from hailo_clip.ops.bench.suite import QUEUE
from hailo_clip.ops.bench.workload import Mix

OURS = "hailo-clip"
_PEERS = "hailo_clip.ops.bench.peers"


@dataclass(frozen=True, slots=True)
class Load:
    """One shape of load, a closed loop."""

    name: str
    mix: Mix
    clients: int


SMALL = Load("320x320, 32 clients", Mix(), 32)
MEDIUM = Load("640x480, 32 clients", Mix(size=(640, 480)), 32)
LARGE = Load("1920x1080, 16 clients", Mix(size=(1920, 1080)), 16)
ALONE = Load("320x320, 1 client", Mix(), 1)
CLASSIFY = Load("classify, 4 prompts, 32 clients", Mix({"classify": 1.0}), 32)
LOADS = (SMALL, MEDIUM, LARGE, ALONE, CLASSIFY)

_IMAGES = (SMALL, MEDIUM, LARGE, ALONE)


@dataclass(frozen=True, slots=True)
class Subject:
    """One server in one configuration.

    Attributes:
        name: for the table. family: which server it is.
        argv: after the interpreter; empty for our own service.
        environ: more of its environment. loads: those that it can serve.
    """

    name: str
    family: str
    argv: tuple[str, ...] = ()
    environ: Mapping[str, str] = field(default_factory=dict)
    loads: tuple[Load, ...] = _IMAGES

    def served(self) -> Served:
        """A new instance, not started yet."""
        if not self.argv:
            return our_service(MODEL, QUEUE)
        given = {DIRECTORY: "{dir}", **self.environ}
        return Served([sys.executable, *self.argv], given, self.name)


def _mosec(name: str, family: str, setting: str, decoder: str = "plain") -> Subject:
    environ = {
        "MOSEC_PORT": "{port}",
        "MOSEC_ADDRESS": Served.host,
        "MOSEC_LOG_LEVEL": "warning",
        "BENCH_MOSEC": setting,
        DECODER: decoder,
    }
    return Subject(name, family, ("-m", f"{_PEERS}.mosec_server"), environ)


def _litserve(name: str, setting: str) -> Subject:
    environ = {"BENCH_PORT": "{port}", "BENCH_LITSERVE": setting}
    return Subject(name, "LitServe", ("-m", f"{_PEERS}.litserve_server"), environ)


_FLASK = ("-m", "gunicorn", "-k", "gthread", "-w", "1", "--threads", "32", "--log-level", "warning")

SUBJECTS = (
    Subject(OURS, OURS, loads=LOADS),
    _mosec("mosec, 2 decoders, 1 encoder", "mosec", "2,1,1"),
    _mosec("mosec, 2 decoders, 2 encoders", "mosec", "2,2,1"),
    _mosec("mosec 2+1 with our decoder", "mosec with our decoder", "2,1,1", "ours"),
    _litserve("LitServe, 1 worker", "2,1,5"),
    _litserve("LitServe, 3 workers", "2,3,5"),
    Subject(
        "Flask with a lock",
        "Flask",
        (*_FLASK, "-b", Served.host + ":{port}", f"{_PEERS}.flask_server:app"),
        loads=LOADS,
    ),
)
