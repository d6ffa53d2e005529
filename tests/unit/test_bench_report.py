"""The benchmark's tables, plots and comparisons, and its command line's refusals."""

from __future__ import annotations

import json
import math
import xml.etree.ElementTree as ET

import pytest

from hailo_clip.ops.bench.decoding import least_ms
from hailo_clip.ops.bench.peers import job
from hailo_clip.ops.bench.peers.compare import Target, figure_table, verdict, verdict_table
from hailo_clip.ops.bench.photos import photo_files
from hailo_clip.ops.bench.plot import HEIGHT, WIDTH, Line, Mark, Plot, ticks
from hailo_clip.ops.bench.report import part_table, plain, result_table
from hailo_clip.ops.bench.run import Part, Result, Scenario
from hailo_clip.ops.bench.stages import REST, TOTAL, Stages, medians, stage_table, timings
from hailo_clip.ops.bench.stats import Record, summary
from hailo_clip.ops.bench.tables import number, table
from hailo_clip.ops.bench.workload import Mix
from hailo_clip.ops.cli import main
from tests.doubles.pictures import plain as reference

PARTS = (Part("broker", 0.25, 50.0, 30.0), Part("api", 0.5, 80.0, 40.0))


def result(codes: dict[int, int], **more: float) -> Result:
    records = [Record(0.0, 0.0, 0.1, code) for code, n in codes.items() for _ in range(n)]
    return Result(Scenario("a load", Mix(), clients=4), summary(records, 0.0, 1.0), PARTS, 0.01, **more)


def cells(line: str) -> list[str]:
    return [c.strip() for c in line.strip("|").split("|")]


def test_a_row_says_what_was_measured():
    head, _, row = (cells(line) for line in result_table([result({200: 99, 429: 1}, limit=198.0)]))
    found = dict(zip(head, row, strict=True))
    assert found["load"] == "a load"
    assert found["requests/s"] == "99.0"
    assert found["of limit"] == "0.500"
    assert found["p50 ms"] == "100.0"
    assert found["most"] == "never"
    assert found["answers"] == "200:99 429:1"
    assert found["cores"] == "0.75"
    assert found["MiB"] == "70"


def test_processes_add_up():
    assert cells(part_table(PARTS)[-1]) == ["all", "75.0 %", "", "70"]


def test_columns_line_up():
    lines = table(["a", "long head"], [["x", "1"], ["a longer one", "22"]])
    assert len({len(line) for line in lines}) == 1


@pytest.mark.parametrize(
    ("value", "text"), [(1.26, "1.3"), (None, "-"), (math.nan, "-"), (math.inf, "never"), (0.0, "0.0")]
)
def test_numbers(value: float | None, text: str):
    assert number(value) == text


def test_json_is_json():
    """Infinity is no JSON."""
    written = json.dumps(plain([result({429: 3}, limit=100.0)]), allow_nan=False)
    found = json.loads(written)[0]
    assert found["summary"]["latency"]["p50"] is None
    assert found["summary"]["codes"] == {"429": 3}
    assert found["share"] == 0.0


# Plots


@pytest.mark.parametrize(
    ("most", "expected"),
    [
        (1.0, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (157.0, [0, 50, 100, 150, 200]),
        (450, [0, 100, 200, 300, 400, 500]),
        (0.0, [0, 1]),
    ],
)
def test_ticks_are_round_and_reach_the_top(most: float, expected: list[float]):
    assert ticks(most) == pytest.approx(expected)


def test_a_plot_stays_in_its_frame():
    lines = [Line("p50 <&>", [(1, 5), (10, 50)]), Line("p99", [(1, 9), (5, math.inf), (10, 5000)])]
    plot = Plot("t", "x", "y", lines, [Mark("x", 9, "limit"), Mark("y", 40, "bound")], y_most=100)
    root = ET.fromstring(plot.svg())
    dots = [e for e in root.iter() if e.tag.endswith("circle")]
    assert len(dots) == 4  # infinity is left out
    assert all(0 < float(d.get("cx", "")) < WIDTH and 0 < float(d.get("cy", "")) < HEIGHT for d in dots)
    assert {"p50 <&>", "p99", "limit", "bound"} <= {e.text for e in root.iter() if e.tag.endswith("text")}


def test_higher_values_are_drawn_higher():
    root = ET.fromstring(Plot("t", "x", "y", [Line("l", [(0, 1), (1, 2)])]).svg())
    low, high = (float(e.get("cy", "")) for e in root.iter() if e.tag.endswith("circle"))
    assert high < low


# Stages


def test_stages_and_what_they_leave_add_up():
    header = "receive;dur=0.5, decode;dur=2.0, queue;dur=1.5, device;dur=16"
    assert timings(header) == {"receive": 0.5, "decode": 2.0, "queue": 1.5, "device": 16.0}
    seen = [{**timings(header), TOTAL: total} for total in (21.0, 22.0, 29.0)]
    found = medians("x", seen)
    assert found.ms[REST] == pytest.approx(2.0)
    assert sum(ms for stage, ms in found.ms.items() if stage != TOTAL) == pytest.approx(found.ms[TOTAL])
    assert cells(stage_table([found])[-1])[1:] == ["0.50", "2.00", "1.50", "16.00", "2.00", "22.00"]


def test_a_stage_that_only_some_kinds_have():
    lines = stage_table([Stages("a", {"decode": 1.0, TOTAL: 1.0}), Stages("b", {"queue": 2.0, TOTAL: 2.0})])
    assert cells(lines[0])[1:] == ["decode", "queue", "rest", "total"]
    assert cells(lines[-1])[1:] == ["0.00", "2.00", "0.00", "2.00"]


# Comparisons

FIGURES = {
    "ours": {"load": [150.0, 100.0, 156.0], "alone": [18.0, 20.0, 19.0]},
    "peer a": {"load": [100.0, 50.0, 120.0], "alone": [27.0, 30.0, 28.5]},
    "peer b": {"load": [75.0, 80.0, 60.0], "alone": [20.0, 21.0, 19.0]},
}


def test_a_ratio_is_the_median_of_the_rounds():
    found = verdict(Target("load", "peer", 1.5), "ours", "peer a", FIGURES)
    assert found.ratio == pytest.approx(1.5)
    assert found.spread == pytest.approx((1.3, 2.0))
    assert found.met
    assert "met" in verdict_table([found])[-1]


def test_times_compare_the_other_way_round():
    found = verdict(Target("alone", "peer", 1.1, lower=True), "ours", "peer b", FIGURES)
    assert found.ratio == pytest.approx(1.05)
    assert not found.met
    assert "missed" in verdict_table([found])[-1]


def test_what_a_server_does_not_serve_is_a_dash():
    lines = figure_table(["load", "other"], {**FIGURES, "c": {"other": [1.0]}}, ())
    assert cells(lines[2]) == ["ours", "150.0", "-"]
    assert cells(lines[-1]) == ["c", "-", "1.0"]


# The command line


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--mix", "video"], "not one of image, text, classify"),
        (["--size", "640"], "size such as 640x480"),
        (["--clients", "0"], "from 1 to 2000"),
        (["--rate", "-1"], "not a number over 0"),
        (["--set", "workers"], "setting such as"),
        (["--rate", "5", "--overload", "5"], "not allowed with"),
    ],
)
def test_wrong_flags_are_refused(flags: list[str], said: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(["bench", *flags])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags", [["--url", "https://x"], ["--url", "x", "--suite"], ["--rate", "5", "--clients", "5"]]
)
def test_wrong_targets_are_refused(flags: list[str], capsys: pytest.CaptureFixture[str]):
    assert main(["bench", *flags]) == 2
    assert flags[-2 if flags[-1] == "5" else 0] in capsys.readouterr().err


# The decoder


def test_the_plain_way_is_the_one_that_tests_compare_with():
    data = photo_files((500, 333), 1)[0]
    assert (job.plain(data, 96) == reference(data, 96)).all()


def test_the_least_time_is_of_the_job():
    assert least_ms(lambda: sum(range(200_000)), 3) > 0.2
    assert least_ms(lambda: None, 3) < 0.2
