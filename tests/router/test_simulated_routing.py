"""The router in front of simulated nodes, in virtual time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

import node_reports
from drift_cli.routing import SimulatedRouter, making
from drift_engine import hashing, wire
from drift_engine.bench.results import Slo
from drift_engine.simulation.dispatching import Request
from drift_engine.simulation.nodes import PAGE_TOKENS
from drift_router.snapshots import Policy

SLO = Slo(ttft_ms=1000, tbt_ms=50)
BUSY = {"in_flight": 9, "running": 9}


@dataclass
class Told:
    """A node's words."""

    fields: dict[str, Any] = field(default_factory=dict)

    def report(self, now_s: float) -> wire.Report:
        usual = {"prefill_tokens_per_s": 10_000.0, "kv_pages_total": 10_000, "page_tokens": PAGE_TOKENS}
        return node_reports.report(**{**usual, "max_in_flight": 1000, "uptime_s": now_s, **self.fields})


def router(*nodes: Told, policy: Policy = Policy.CACHE_AWARE) -> SimulatedRouter:
    made = SimulatedRouter(policy, SLO)
    for index, node in enumerate(nodes):
        made.joined(index, node, 0.0)
    return made


def request(name: str, at_s: float = 0.0, ids: Sequence[int] = range(2000), drawn: int = 0) -> Request:
    return Request(name, list(ids), at_s, drawn)


def stored(ids: Sequence[int], pages: int) -> wire.Stored:
    names = list(hashing.names(ids, "", PAGE_TOKENS))[:pages]
    return wire.Stored(block_hashes=names, parent_hash=None, token_ids=[], page_tokens=PAGE_TOKENS)


def test_what_was_sent_to_a_node_and_what_it_tells_of_its_cache_bring_a_prompt_back_to_it() -> None:
    chooser = router(Told(), Told(), Told())
    first = chooser.choose(request("a"))
    assert first is not None
    chooser.told("a", [0.2], 0)
    chooser.kept(first, [stored(range(2000), 31)])
    chooser.ended("a", 0.2, ok=True)
    for number in range(5):
        at_s = 60.0 + number  # what was sent is forgotten by then; the events stay
        chooser.look(at_s)
        assert chooser.choose(request(f"b{number}", at_s)) == first
        chooser.told(f"b{number}", [at_s + 0.01], 1984)
        chooser.ended(f"b{number}", at_s + 0.01, ok=True)
    assert chooser.report(70.0).totals.cached_tokens == 5 * 1984


def test_a_node_that_is_gone_is_forgotten_with_its_cache() -> None:
    chooser = router(Told(), Told())
    first = chooser.choose(request("a"))
    assert first is not None
    chooser.told("a", [0.2], 0)
    chooser.kept(first, [stored(range(2000), 31)])
    chooser.left(first, 1.0)
    chooser.broken("a", 1.0)
    assert chooser.index.held_bytes > 0  # what its answer taught of the text
    assert chooser.choose(request("a", 1.0, drawn=1)) == 1 - first
    chooser.left(1 - first, 2.0)
    chooser.broken("a", 2.0)
    assert chooser.choose(request("a", 2.0, drawn=1)) is None


@pytest.mark.parametrize("policy", [Policy.CACHE_AWARE, Policy.LEAST_LOAD])
def test_a_request_that_would_wait_in_the_router_goes_where_it_would_without_a_promise(
    policy: Policy,
) -> None:
    waiting = Told({**BUSY, "queued_tokens": 90_000})
    chooser = router(waiting, Told({**BUSY, "queued_tokens": 50_000}), policy=policy)
    assert chooser.choose(request("a")) == 1


def test_cold_prompts_that_never_queue_are_spread() -> None:
    chooser = router(*(Told() for _ in range(4)))
    chosen = []
    for number in range(8):
        at_s = float(number)
        chooser.look(at_s)
        chosen.append(chooser.choose(request(str(number), at_s, range(9000 * number, 9000 * number + 2000))))
        chooser.told(str(number), [at_s + 0.2], 0)
        chooser.ended(str(number), at_s + 0.3, ok=True)
    assert sorted(map(int, map(str, chosen))) == [0, 0, 1, 1, 2, 2, 3, 3]


def test_a_node_of_weight_0_gets_nothing() -> None:
    chooser = router(Told({"weight": 0.0}), Told())
    assert {chooser.choose(request(str(number), 0.01 * number)) for number in range(6)} == {1}


def test_the_operator_reads_what_was_kept() -> None:
    chooser = router(Told())
    for name, first_s in (("a", 0.4), ("b", 2.0)):
        chooser.choose(request(name))
        chooser.told(name, [first_s, first_s + 0.01, first_s + 0.02], 0)
        chooser.ended(name, first_s + 0.02, ok=True)
    totals = chooser.report(5.0).totals
    assert (totals.requests, totals.ttft_kept, totals.ttft_missed, totals.tbt_kept) == (2, 1, 1, 2)
    assert (totals.prompt_tokens, totals.output_tokens, totals.failed) == (4000, 6, 0)


def test_rates_are_misjudged_as_far_as_asked_and_the_same_again() -> None:
    def chosen(rate_error: float) -> list[int | None]:
        chooser = making(Policy.LEAST_LOAD, SLO, rate_error, seed=5)()
        for index in range(8):
            chooser.joined(index, Told({"queued_tokens": 1000 * index}), 0.0)
        return [chooser.choose(request(str(number), 0.01 * number)) for number in range(20)]

    assert chosen(1.0) == chosen(1.0) != chosen(0.0)
    with pytest.raises(ValueError, match=r"--routing-error: 3 is not between 0 and 2"):
        making(Policy.LEAST_LOAD, SLO, 3.0)


def test_reports_are_as_old_as_they_would_be() -> None:
    node = Told()
    chooser = router(node)
    chooser.look(0.25)
    node.fields["weight"] = 0.0
    chooser.look(0.3)
    assert chooser.choose(request("a", 0.3)) == 0  # not asked again yet
    chooser.look(0.5)
    assert chooser.choose(request("b", 0.5)) is None


def test_a_decision_has_its_cost_counted() -> None:
    chooser = router(Told())
    chooser.choose(request("a"))
    assert chooser.cost.decisions == 1
    assert msgspec.to_builtins(chooser.cost)[1] >= 0
