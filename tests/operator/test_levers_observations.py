"""What of a report is believed: what cannot be is unknown, with a reason, and never zero."""

from __future__ import annotations

import math
from typing import Any

import pytest

import lever_scenes
from drift_engine import wire
from drift_operator.levers.observations import Node, Observation, Router, sane
from drift_router.counters import TTFT_EDGES_S, Histogram
from drift_router.pictures import LengthClass

COST = wire.SplitCost(8, 124, (0.0, 0.0, 1e-5, 1e-3), (0.0, 1e-5, 1e-2), math.nan)


def problems(*nodes: Node, routers: tuple[Router, ...] | None = None) -> tuple[str, ...]:
    return sane(Observation(nodes, routers if routers is not None else (lever_scenes.router(),)))[1]


def test_what_can_be_is_left_as_it_is() -> None:
    observation = Observation(lever_scenes.nodes(3), (lever_scenes.router(),))
    assert sane(observation) == (observation, ())


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"tbt_p99_ms": math.nan}, "tbt_p99_ms: nan cannot be"),
        ({"tbt_p50_ms": math.inf}, "tbt_p50_ms: inf cannot be"),
        ({"prefill_tokens_per_s": -1.0}, "prefill_tokens_per_s: -1 cannot be"),
        ({"kv_usage": 1.5}, "kv_usage: 1.5 cannot be"),
        ({"weight": -0.1}, "weight: -0.1 cannot be"),
        ({"queued_tokens": -5}, "queued_tokens: -5 cannot be"),
        ({"epoch": 1 << 60}, "epoch: 1152921504606846976 cannot be"),
        ({"legal_splits": (wire.Split(0, 4),)}, "split: 0 SMs cannot be"),
        ({"legal_splits": (wire.Split(1, 1),) * 1000}, "it has more than 128 splits"),
        ({"ahead": (wire.Ahead(512, -7),)}, "ahead: -7 cannot be"),
        ({"ahead": (wire.Ahead(512, 0),) * 17}, "it has more than 16 lengths in ahead"),
        ({"bounds": (3, 9999)}, "bounds: 9999 SMs cannot be"),
        ({"costs": (COST,)}, "contention: nan cannot be"),
        ({"whole": wire.SplitCost(4, 4, (0, 0, -1e-5, 0), (0, 0, 0))}, "costs: -1e-05 cannot be"),
    ],
)
def test_a_report_that_cannot_be_is_unknown(changes: dict[str, Any], problem: str) -> None:
    node = lever_scenes.node("a", **changes)
    observation, found = sane(Observation((node,), (lever_scenes.router(),)))
    assert observation.nodes[0].report is None
    assert found == (f"node a: {problem}",)


@pytest.mark.parametrize("age_s", [10.1, math.inf, math.nan, -1.0])
def test_an_old_report_is_unknown(age_s: float) -> None:
    assert sane(Observation((lever_scenes.node("a", age_s=age_s),)))[0].nodes[0].report is None


def test_only_nodes_that_serve_are_missed() -> None:
    absent = Node("a", ready=True, problem="no answer within 1 s")
    assert problems(absent) == ("node a: no answer within 1 s",)
    assert problems(Node("a", ready=True)) == ("node a: it has not reported yet",)
    assert problems(Node("a", ready=False)) == problems(Node("a", ready=True, leaving=True)) == ()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"uptime_s": -1.0}, "uptime_s: -1 cannot be"),
        ({"requests": -1}, "requests: -1 cannot be"),
        ({"in_flight": -1}, "in_flight: -1 cannot be"),
        ({"ttft": Histogram((1.0, 2.0), [1, 2])}, "ttft: a histogram of 2 edges and 2 counts cannot be"),
        ({"ttft": Histogram((2.0, 1.0), [0, 0, 0])}, "ttft: the edges do not ascend"),
        ({"tbt": Histogram((1.0, math.nan), [0, 0, 0])}, "tbt: nan cannot be"),
        ({"tbt": Histogram.over(range(100))}, "tbt: a histogram of 100 edges and 101 counts cannot be"),
        ({"ttft": Histogram((1.0,), [0, -1])}, "ttft: -1 cannot be"),
        ({"classes": (LengthClass(None, 0, 0, 0, 0),) * 2}, "its classes of lengths do not ascend"),
        ({"classes": (LengthClass(5, -1, 0, 0, 0),)}, "classes: -1 cannot be"),
    ],
)
def test_totals_that_cannot_be_are_unknown(changes: dict[str, Any], problem: str) -> None:
    router = lever_scenes.router("r", **changes)
    assert problems(routers=(router,)) == (f"router r: {problem}",)


def test_no_router_is_a_problem() -> None:
    assert problems(lever_scenes.node(), routers=()) == ("no router was found",)


def test_routers_have_edges_that_are_believed() -> None:
    assert len(TTFT_EDGES_S) < 64
