"""The broker's benchmark measures what it says, and fails when a request is not answered."""

from __future__ import annotations

import json

import pytest

from hailo_clip.ops import bench_broker
from hailo_clip.ops.bench_broker import Outcome, Round, as_json, as_text, measure
from hailo_clip.ops.bench_broker_procs import Load
from hailo_clip.shared.messages import Kind

pytestmark = pytest.mark.xdist_group("serve")

TEXT = Load("200 B", Kind.TEXT, 1500)
IMAGE = Load("249 KB", Kind.IMAGE, 400)


def rounds(*rates: float) -> list[Round]:
    return [Round(rate, 1e-5) for rate in rates]


@pytest.mark.parametrize("load", [TEXT, IMAGE], ids=["text", "image"])
def test_a_small_load_gives_plausible_numbers(load):
    outcome = measure(load, rounds=1, clients=2, workers=2)
    assert outcome.load == load.name
    for (done,) in (outcome.broker, outcome.echo):
        assert 100 < done.rate < 1e6
        assert 1e-6 < done.cpu_s < 1e-2
        assert done.rate * done.cpu_s < 2.5  # one busy thread, and the one that moves the bytes
    assert outcome.ratio == outcome.broker[0].rate / outcome.echo[0].rate


def test_a_refused_request_is_an_error(capfd):
    with pytest.raises(RuntimeError, match="client ended"):
        measure(TEXT, 1, clients=1, workers=1, changes={"queue.max_depth": 1})
    assert "queue_full" in capfd.readouterr().err


def test_the_ratio_is_the_median_of_the_rounds():
    # A machine that is slower for a while slows both of a round; the medians' ratio would be 8 / 5.
    assert Outcome("x", rounds(8, 4, 9), rounds(10, 5, 3)).ratio == 0.8


@pytest.mark.parametrize(("rate", "code"), [(8.0, 0), (7.9, 1)])
def test_the_exit_code_says_whether_the_aim_was_met(monkeypatch, capsys, rate, code):
    loads = []

    def fake(load, *how):
        loads.append((load.count, how))
        return Outcome(load.name, rounds(rate), rounds(10))

    monkeypatch.setattr(bench_broker, "measure", fake)
    assert bench_broker.main(["--rounds", "3", "--clients", "1", "--scale", "0.5"]) == code
    assert loads == [(3000, (3, 1, 2)), (750, (3, 1, 2))]
    assert f"{rate / 10:.2f}" in capsys.readouterr().out


def test_reports():
    outcomes = [Outcome("200 B", rounds(800, 900, 1000), rounds(1000, 1000, 1000))]
    (told,) = json.loads(as_json(outcomes))
    assert told["ratio"] == 0.9
    assert [r["rate"] for r in told["broker"]] == [800, 900, 1000]
    row = as_text(outcomes).splitlines()[3].split()
    assert row == ["200", "B", "900", "1000", "0.90", "10", "10", "0.80", "0.90", "1.00"]
