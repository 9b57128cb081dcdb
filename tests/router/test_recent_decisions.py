"""The ring of last decisions: bounded, sampled, of several workers, and told by the router's report."""

from __future__ import annotations

from drift_router import recent_decisions
from drift_router.policies import choosing
from drift_router.recent_decisions import APART_S, KEPT, SCORES, Decided, RecentDecisions
from drift_router.snapshots import Ask, Node, Policy, Reason
from running_router import ask, chat, routing, run
from scripted_node import ScriptedNode, stream

NODES = [Node(f"node-{slot}", slot, prefill_tokens_per_s=1000.0 + slot) for slot in range(20)]
ASK = Ask(tokens=100, matched_tokens={3: 64}, key=1, ttft_s=0.4, ttft_per_token_s=0.0, tbt_s=0.08)


def kept(ring: RecentDecisions, nodes: list[Node], now_s: float) -> None:
    decision = choosing.choose(Policy.CACHE_AWARE, ASK, nodes, 0.5, explain=True)
    ring.keep(ASK, decision, nodes, now_s)


def test_a_kept_decision_names_node_lengths_and_scores() -> None:
    ring = RecentDecisions()
    kept(ring, NODES, 10.0)
    (decided,) = ring.told(12.5)
    assert (decided.node, decided.age_s, decided.nodes) == ("node-3", 2.5, 20)
    assert (decided.prompt_tokens, decided.matched_tokens, decided.uncached_tokens) == (100, 64, 36)


def test_scores_are_few_the_cheapest_first_and_the_chosen_node_is_among_them() -> None:
    ring = RecentDecisions()
    kept(ring, NODES, 10.0)
    scores = ring.told(10.0)[0].scores
    assert len(scores) == SCORES
    assert [score.cost_s for score in scores] == sorted(score.cost_s for score in scores)
    assert "node-3" in {score.name for score in scores}


def test_where_there_is_no_node_the_reason_is_kept() -> None:
    ring = RecentDecisions()
    kept(ring, [], 10.0)
    (decided,) = ring.told(10.0)
    assert (decided.node, decided.reason, decided.scores) == (None, Reason.UNAVAILABLE, ())


def test_decisions_that_come_quickly_are_sampled() -> None:
    ring = RecentDecisions()
    assert ring.due(0.0)
    kept(ring, NODES, 0.0)
    assert not ring.due(APART_S / 2)
    assert ring.due(APART_S)


def test_the_oldest_ones_go() -> None:
    ring = RecentDecisions()
    for turn in range(KEPT + 5):
        kept(ring, NODES, float(turn))
    assert [decided.age_s for decided in ring.told(KEPT + 4.0)] == list(range(KEPT))


def test_those_of_several_workers_are_told_newest_first_and_bounded() -> None:
    def told(*ages_s: float) -> list[Decided]:
        return [Decided(age_s, None, Reason.TURN, 1, 0, 1, 0.0, 1) for age_s in ages_s]

    both = recent_decisions.merged([told(1, 3, 5), told(*range(2, 2 + KEPT))])
    assert [decided.age_s for decided in both] == sorted([1, 3, 5, *range(2, 2 + KEPT)])[:KEPT]


def test_a_router_tells_where_its_requests_went_and_nothing_of_what_they_said() -> None:
    async def test() -> None:
        async with routing(ScriptedNode("a", stream(words=2, gap_s=0.0), ours=True)) as router:
            await ask(router, chat("a secret", stream=True))
            (decided,) = (await router.picture()).decided
        assert (decided.node, len(decided.scores)) == ("node-0", 1)
        assert "secret" not in repr(decided)

    run(test())
