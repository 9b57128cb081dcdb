"""docs/operations.md tells of every condition, reason, metric and alert that there is, and of nothing else.

Its tables have what they tell of in backticks in their first column; what the code has is asked from the code.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import get_args

import pytest

import documents
import router_pictures
from drift_cli import advice
from drift_operator import manifests
from drift_operator.doors.figures import ServiceFigures, TargetFigures
from drift_operator.doors.metrics import Metrics as OperatorMetrics
from drift_operator.driftservice import Autoscaling
from drift_operator.objects import alerts, kinds
from drift_operator.objects.facts import Facts
from drift_operator.status import Condition, Decision
from drift_router import metrics as router_metrics
from drift_router.counters import Counters
from kept_figures import KeptFigures

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "operations.md").read_text()
OPERATOR = ROOT / "operator" / "drift_operator"

CONDITIONS = set(get_args(Condition.model_fields["type"].annotation))
LEVERS = set(get_args(Decision.model_fields["lever"].annotation))
DECIDING = ("split", "weights", "replicas")
"""Modules of levers whose words are reasons of decisions, apart from what they say in conditions."""


def told(heading: str) -> set[str]:
    """First columns of the tables of a section, without labels and parentheses."""
    section = re.split(r"^## ", PAGE, flags=re.M)
    (text,) = [part for part in section if part.startswith(heading + "\n")]
    cells = re.findall(r"^\| *(`[^|]*`) *\|", text, re.M)
    return {name for cell in cells for name in re.findall(r"`([A-Za-z0-9_:]+)(?:\{[^`]*\})?`", cell)}


def words(files: Iterable[Path]) -> set[str]:
    """Every CamelCase word that a module says as a whole text."""
    found = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found |= set(re.findall(r"\A[A-Z][a-z]+(?:[A-Z]?[a-z]+)*\Z", node.value))
    return (
        found
        - {"True", "False", "Unknown", "Normal", "Warning", "None"}
        - set(get_args(Autoscaling.model_fields["predictor"].annotation))
    )


def decided() -> set[str]:
    """Reasons of decisions: words of the levers that are in no `Fact`."""
    found = words(OPERATOR / "levers" / f"{name}.py" for name in DECIDING)
    return found - stated() - set(get_args(Autoscaling.model_fields["mode"].annotation))


def stated() -> set[str]:
    """Reasons of conditions."""
    found = words(OPERATOR / "reconciling" / f"{name}.py" for name in ("conditions", "faults"))
    for file in (OPERATOR / "levers").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            match node:
                case ast.Call(func=ast.Name(id="Fact"), args=[_, ast.Constant(value=str(reason)), *_]):
                    found.add(reason)
                case ast.FunctionDef(name="why_not"):
                    found |= set(_camel(node))
    return found - CONDITIONS | set(get_args(Autoscaling.model_fields["mode"].annotation)) | {"Paused"}


def _camel(function: ast.FunctionDef) -> Iterator[str]:
    for node in ast.walk(function):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from re.findall(r"\A[A-Z][a-z]+(?:[A-Z][a-z]+)+\Z", node.value)


def series(text: bytes) -> set[str]:
    return set(re.findall(r"^# TYPE (\S+) ", text.decode(), re.M))


def operator_series() -> set[str]:
    target = TargetFigures(400.0, 0.99, 0.995, burn_rates={"1m": 0.5})
    figures = ServiceFigures("default", "demo", 0.0, 0.8, 1, 1, target, target, feasible=True)
    return series(OperatorMetrics(KeptFigures(figures), clock=lambda: 0.0).render())


def router_series() -> set[str]:
    picture = router_pictures.picture_of(Counters.fresh(0.4, 0.08), [router_pictures.status_of("a")])
    return series(router_metrics.render(picture))


def node_series() -> set[str]:
    """As declared: most of them have no sample before the core has spoken."""
    source = ast.parse((ROOT / "engine" / "drift_engine" / "api" / "metrics.py").read_text())
    found: set[str] = set()
    for node in ast.walk(source):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found |= set(re.findall(r"\A(?:vllm:|drift_)[a-z0-9_]+\Z", node.value))
    return found


def alert_names() -> set[str]:
    facts = Facts("uid", "", 1, 1, kinds=frozenset({str(kinds.POD_MONITOR), str(kinds.RULE)}))
    (rule,) = alerts.build(manifests.parse(documents.minimal()), facts)
    templates = (ROOT / "charts" / "drift" / "templates").glob("*.yaml")
    charts = {name for file in templates for name in re.findall(r"- alert: (\w+)", file.read_text())}
    return {each["alert"] for group in rule["spec"]["groups"] for each in group["rules"]} | charts


def test_conditions() -> None:
    assert told("Conditions") & CONDITIONS == CONDITIONS
    assert told("Conditions") - CONDITIONS == stated() - CONDITIONS


def test_decisions() -> None:
    assert told("Decisions") == decided()


def without_total(names: Iterable[str]) -> set[str]:
    return {name.removesuffix("_total") for name in names}


@pytest.mark.parametrize(
    ("heading", "found"),
    [
        ("Metrics of the operator", operator_series),
        ("Metrics of a router", router_series),
        ("Metrics of a node", node_series),
    ],
)
def test_metrics(heading: str, found: Callable[[], set[str]]) -> None:
    assert without_total(told(heading)) == without_total(found())


def test_alerts() -> None:
    assert told("Alerts") == alert_names()


def test_advice_is_on_reasons_that_there_are() -> None:
    assert advice.ADVICE.keys() - stated() == set()
