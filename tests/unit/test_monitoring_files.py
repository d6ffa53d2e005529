"""Alert rules and dashboard ask only for what /metrics has, in PromQL that parses."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from hailo_clip.shared.metrics import COUNTERS, GAUGES, HISTOGRAMS, PREFIX

ROOT = Path(__file__).parents[2]
RULES = [
    rule
    for group in yaml.safe_load((ROOT / "ops/prometheus/alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
]
DASHBOARD = json.loads((ROOT / "ops/grafana/dashboard.json").read_text())
PANELS = DASHBOARD["panels"]

TARGET = {"job", "instance"}  # what Prometheus adds to every series

LABELS: dict[str, set[str]] = {
    **{f"{PREFIX}{name}": set(labels) for name, (labels, _) in (COUNTERS | GAUGES).items()},
    **{
        f"{PREFIX}{name}{end}": {*labels, *more}
        for name, (labels, _, _) in HISTOGRAMS.items()
        for end, more in (("_bucket", ["le"]), ("_sum", []), ("_count", []))
    },
}

# Values that the page gives, by label; rows such as "`outcome` of `finished_total`" together.
PAGE = re.findall(r"^\| (`\w+`.*?) \| (.*) \|$", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE)
VALUES: dict[str, set[str]] = {}
for head, values in PAGE:
    VALUES.setdefault(head.split("`")[1], set()).update(re.findall(r"`([\w/]+)`", values))


def nodes(expression: str) -> list[Any]:
    """All parts of an expression. Raises ValueError where it is no PromQL."""
    found: list[Any] = []
    tree = promql_parser.parse(expression.replace("$__rate_interval", "5m"))
    promql_parser.walk(tree, lambda node: found.append(node))
    return found


def selectors(expression: str) -> Iterator[Any]:
    for node in nodes(expression):
        if isinstance(node, promql_parser.MatrixSelector):
            yield node.vector_selector
        elif isinstance(node, promql_parser.VectorSelector):
            yield node


EXPRESSIONS = [
    *(pytest.param(rule["expr"], id=rule["alert"]) for rule in RULES),
    *(
        pytest.param(target["expr"], id=f"{panel['title']} {target['refId']}")
        for panel in PANELS
        for target in panel["targets"]
    ),
]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_only_what_exists_is_asked_for(expression: str) -> None:
    known: set[str] = set(TARGET)
    asked = list(selectors(expression))
    assert asked
    for selector in asked:
        assert selector.name in LABELS, selector.name
        known |= LABELS[selector.name]
        for matcher in selector.matchers.matchers:
            assert matcher.name in LABELS[selector.name] | TARGET
            if matcher.name in VALUES and matcher.name not in ("endpoint", "code"):
                assert set(matcher.value.split("|")) <= VALUES[matcher.name], matcher
    for node in nodes(expression):
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            assert set(node.modifier.labels) <= known


def test_counters_are_asked_for_as_rates() -> None:
    for expression in (parameter.values[0] for parameter in EXPRESSIONS):
        assert isinstance(expression, str)
        ranged = {n.vector_selector.name for n in nodes(expression) if hasattr(n, "vector_selector")}
        names = {selector.name for selector in selectors(expression)}
        gauges = {f"{PREFIX}{name}" for name in GAUGES}
        assert names - gauges <= ranged, expression


def test_every_rule_says_how_bad_it_is_and_what_happened() -> None:
    assert len({rule["alert"] for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert "{{ $labels.instance }}" in rule["annotations"]["summary"]
        for used in re.findall(r"\$labels\.(\w+)", str(rule["annotations"])):
            assert used in TARGET


def test_the_panels_stand_side_by_side() -> None:
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    places = [panel["gridPos"] for panel in PANELS]
    for place in places:
        assert place["x"] >= 0 and place["x"] + place["w"] <= 24
    for a, b in itertools.combinations(places, 2):
        apart_x = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        apart_y = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert apart_x or apart_y, (a, b)


def test_the_dashboard_uses_the_variables_that_it_has() -> None:
    have = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)\}?", json.dumps(DASHBOARD))) - {"__rate_interval"}
    assert used == have


@pytest.mark.parametrize(
    "broken", ["hailo_clip_nothing", "sum by (tenant) (hailo_clip_up)", "sum(rate(x[5m])"]
)
def test_a_mistake_would_be_found(broken: str) -> None:
    with pytest.raises((AssertionError, ValueError)):
        test_only_what_exists_is_asked_for(broken)
