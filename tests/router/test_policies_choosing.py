"""Where requests go: who is never chosen, what makes a node better, and what a decision says."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from drift_router.policies.choosing import choose
from drift_router.snapshots import Ask, Decision, IndexState, Node, Policy, Reason

AWARE = Policy.CACHE_AWARE
GRID = [(step + 0.5) / 200 for step in range(200)]


def node(slot: int, **fields: object) -> Node:
    told = {"prefill_tokens_per_s": 10_000.0, "index": IndexState.EXACT, **fields}
    return Node(f"node-{slot}", slot, **told)  # type: ignore[arg-type]


def ask(tokens: int = 5000, held: dict[int, int] | None = None, **fields: object) -> Ask:
    told = {"key": 7, "ttft_s": 1.0, "ttft_per_token_s": 0.0, "tbt_s": 0.05, **fields}
    return Ask(tokens, held or {}, **told)  # type: ignore[arg-type]


NODES = st.builds(
    node,
    slot=st.just(0),
    weight=st.sampled_from([0.0, 0.3, 1.0]),
    warmth=st.sampled_from([0.1, 1.0]),
    prefill_tokens_per_s=st.sampled_from([0.0, 500.0, 10_000.0, 40_000.0]),
    queued_tokens=st.integers(0, 60_000),
    ahead=st.sampled_from([(), ((512, 0), (8192, 3000), (65_536, 9000))]),
    in_flight=st.integers(0, 4),
    max_in_flight=st.sampled_from([1, 3, 1 << 30]),
    fixed_s=st.sampled_from([0.0, 0.02]),
    tbt_s=st.sampled_from([0.0, 0.03, 0.2]),
    kv_usage=st.floats(0.0, 1.0),
    kv_tokens=st.sampled_from([0, 50_000, 1_000_000]),
    assigned_tokens=st.floats(0.0, 1e6),
    index=st.sampled_from(IndexState),
    trust=st.floats(0.0, 1.0),
)


@st.composite
def situations(draw: st.DrawFn) -> tuple[Ask, list[Node]]:
    nodes = [
        replace(one, name=f"node-{slot}", slot=slot)
        for slot, one in enumerate(draw(st.lists(NODES, max_size=6)))
    ]
    slots = st.integers(0, 6)
    tokens = draw(st.integers(0, 50_000))
    held = draw(st.dictionaries(slots, st.integers(0, tokens)))
    return (
        ask(
            tokens,
            held,
            key=draw(st.integers(0, 2**64 - 1)),
            ttft_s=draw(st.sampled_from([0.2, 1.0, 5.0])),
            session_slot=draw(st.none() | slots),
            excluded=frozenset(draw(st.sets(slots, max_size=3))),
        ),
        nodes,
    )


def may(request: Ask, one: Node) -> bool:
    return one.weight > 0 and one.in_flight < one.max_in_flight and one.slot not in request.excluded


@given(situations(), st.sampled_from(Policy), st.sampled_from([0.0, 0.5, 0.999]), st.integers(0, 20))
def test_a_decision_names_a_node_that_may_serve_or_says_why_none(
    situation: tuple[Ask, list[Node]], policy: Policy, draw: float, turn: int
) -> None:
    request, nodes = situation
    decision = choose(policy, request, nodes, draw, turn=turn)
    assert decision == choose(policy, request, nodes, draw, turn=turn)
    leaving = all(one.weight == 0 or one.slot in request.excluded for one in nodes)
    assert (decision.reason is Reason.UNAVAILABLE) == leaving
    assert (decision.slot is None) == (decision.reason in (Reason.OVERLOADED, Reason.UNAVAILABLE))
    if decision.slot is not None:
        assert may(request, nodes[decision.slot])
        assert decision.matched_tokens == request.matched_tokens.get(decision.slot, 0)
        assert 1 <= decision.uncached_tokens <= max(1, request.tokens)
    if not leaving:
        assert decision.ttft_s > 0
    explained = choose(policy, request, nodes, draw, turn=turn, explain=True)
    assert replace(explained, scores=()) == decision
    assert [score.name for score in explained.scores] == [one.name for one in nodes]


@given(situations(), st.sampled_from(Policy))
def test_an_idle_node_is_never_denied(situation: tuple[Ask, list[Node]], policy: Policy) -> None:
    request, nodes = situation
    idle = node(7, prefill_tokens_per_s=50.0, tbt_s=9.0, kv_usage=1.0)
    assert choose(policy, request, [*nodes, idle], 0.5).slot is not None


BETTER: dict[str, Callable[[Ask, Node], tuple[Ask, Node]]] = {
    "less queued": lambda request, one: (request, replace(one, queued_tokens=one.queued_tokens // 2)),
    "less ahead": lambda request, one: (
        request,
        replace(one, ahead=tuple((length, tokens // 2) for length, tokens in one.ahead)),
    ),
    "quicker": lambda request, one: (
        request,
        replace(one, prefill_tokens_per_s=one.prefill_tokens_per_s * 1.5),
    ),
    "emptier": lambda request, one: (request, replace(one, kv_usage=one.kv_usage / 2)),
    "holds more": lambda request, one: (
        replace(request, matched_tokens={**request.matched_tokens, one.slot: request.tokens}),
        one,
    ),
    "less assigned": lambda request, one: (request, replace(one, assigned_tokens=one.assigned_tokens / 2)),
}


@given(situations(), st.sampled_from(sorted(BETTER)), st.sampled_from([AWARE, Policy.LEAST_LOAD]))
def test_what_makes_a_node_better_takes_nothing_from_it(
    situation: tuple[Ask, list[Node]], change: str, policy: Policy
) -> None:
    request, nodes = situation
    nodes = [
        replace(one, prefill_tokens_per_s=one.prefill_tokens_per_s or 900.0, index=IndexState.EXACT)
        for one in nodes
    ]
    if change == "quicker":  # it may move the median, and then counts for more beside what no rate changes
        nodes = [replace(one, fixed_s=0.0, kv_usage=0.0, kv_tokens=0) for one in nodes]
    before = Counter(choose(policy, request, nodes, draw).slot for draw in GRID)
    for one in nodes:
        better_request, better = BETTER[change](request, one)
        after = Counter(
            choose(policy, better_request, [better if other is one else other for other in nodes], draw).slot
            for draw in GRID
        )
        assert after[one.slot] >= before[one.slot] - 1  # the grid is as fine as that


def test_the_split_decides() -> None:
    # Equal queues: who gives most of itself to decode is slow for prompts, and loses even with the shorter queue.
    slow, quick = node(0, prefill_tokens_per_s=2_000.0, queued_tokens=1000), node(1, queued_tokens=2000)
    assert choose(AWARE, ask(ttft_s=9.0), [slow, quick], 0.5).slot == 1
    assert (
        choose(AWARE, ask(ttft_s=9.0), [replace(slow, prefill_tokens_per_s=12_000.0), quick], 0.5).slot == 0
    )


def test_a_short_prompt_waits_only_for_what_goes_before_it() -> None:
    """Of a long queue; the part that a node holds of a prompt does not make it long."""
    busy = node(0, in_flight=3, queued_tokens=90_000, ahead=((512, 0), (2048, 1000)))
    assert choose(AWARE, ask(500), [busy], 0.5).ttft_s == pytest.approx(0.05)
    assert choose(AWARE, ask(6500, held={0: 6000}), [busy], 0.5).ttft_s == pytest.approx(0.05)
    assert choose(AWARE, ask(2048), [busy], 0.5).ttft_s == pytest.approx(0.3048)
    assert choose(AWARE, ask(2049), [busy], 0.5).reason is Reason.OVERLOADED


def test_a_node_of_unknown_rate_counts_as_the_usual_one() -> None:
    unknown = node(0, prefill_tokens_per_s=0.0, queued_tokens=500)
    others = [
        node(1, queued_tokens=1000),
        node(2, prefill_tokens_per_s=9_000.0),
        node(3, prefill_tokens_per_s=50.0),
    ]
    decision = choose(AWARE, ask(), [unknown, *others], 0.5, explain=True)
    assert decision.scores[0].ttft_s == pytest.approx((500 + 5000) / 9_000.0)
    alone = choose(AWARE, ask(), [unknown], 0.5)
    assert (alone.slot, alone.reason) == (0, Reason.HEADROOM)


def test_a_prompt_goes_to_its_cache() -> None:
    nodes = [node(0), node(1), node(2)]
    decision = choose(AWARE, ask(held={1: 4000}), nodes, 0.5)
    assert decision == Decision(1, Reason.STICKY, 4000, 1000, 0.1)


def test_an_untrusted_cache_counts_less() -> None:
    nodes = [node(0, trust=0.1), node(1)]
    assert choose(AWARE, ask(held={0: 4000, 1: 2000}), nodes, 0.5).slot == 1


def test_of_nodes_that_hold_nearly_as_much_the_quickest_takes_it() -> None:
    nodes = [node(0, queued_tokens=3000), node(1), node(2)]
    assert choose(AWARE, ask(held={0: 4000, 1: 3300}), nodes, 0.5).slot == 1


def test_staying_ends_where_it_costs_more_than_it_saves() -> None:
    def chosen(queued: int) -> Decision:
        nodes = [node(0, queued_tokens=queued, in_flight=1), node(1)]
        return choose(AWARE, ask(held={0: 2000}), nodes, 0.5)

    # It saves 0.2 s of 0.5 s, so a queue of 0.4 s makes the other node 0.2 s quicker.
    assert chosen(3990).reason is Reason.STICKY
    assert (chosen(4010).slot, chosen(4010).reason) == (1, Reason.HEADROOM)


def test_staying_ends_at_one_ttft_target() -> None:
    def chosen(queued: int) -> Decision:
        nodes = [node(0, queued_tokens=queued, in_flight=1), node(1)]
        return choose(AWARE, ask(40_000, {0: 30_000}, ttft_s=0.5, ttft_per_token_s=0.001), nodes, 0.5)

    # The cache saves 3 s; the other node is quicker by what the queue takes beyond that.
    assert chosen(34_900).slot == 0
    assert chosen(35_100).slot == 1


def test_staying_ends_where_the_promise_would_be_missed() -> None:
    nodes = [node(0, queued_tokens=9_500, in_flight=1), node(1, queued_tokens=4000, in_flight=1)]
    held = {0: 4000}
    assert choose(AWARE, ask(held=held, ttft_s=1.1), nodes, 0.5).slot == 0
    assert choose(AWARE, ask(held=held, ttft_s=1.0), nodes, 0.5).slot == 1


def test_a_node_whose_tokens_come_late_is_left() -> None:
    late = node(0, tbt_s=0.06, tbt_per_request_s=0.01, in_flight=3)
    assert choose(AWARE, ask(held={0: 4000}), [late, node(1, in_flight=3)], 0.5).slot == 1
    at_target = replace(late, tbt_per_request_s=0.001)  # filled up to the target, as it should be
    assert choose(AWARE, ask(held={0: 4000}), [at_target, node(1, in_flight=3)], 0.5).slot == 0


def test_a_full_kv_cache_is_a_queue() -> None:
    full, busy = node(0, kv_usage=0.9, kv_tokens=100_000), node(1, kv_tokens=100_000, queued_tokens=4000)
    assert choose(AWARE, ask(), [full, busy], 0.5).slot == 1


def test_a_session_is_a_preference() -> None:
    def chosen(queued: int) -> Decision:
        nodes = [node(0, queued_tokens=queued, in_flight=1), node(1)]
        return choose(AWARE, ask(session_slot=0), nodes, 0.5)

    assert chosen(4900) == Decision(0, Reason.SESSION, 0, 5000, 0.99)
    assert chosen(5100).slot == 1


def test_without_headroom_a_request_waits_unless_a_node_is_idle() -> None:
    busy = [node(0, queued_tokens=20_000, in_flight=2), node(1, queued_tokens=10_000, in_flight=1)]
    waiting = choose(AWARE, ask(held={0: 1000}), busy, 0.5)
    assert waiting == Decision(None, Reason.OVERLOADED, 0, 5000, 1.5)
    idle = node(2, prefill_tokens_per_s=100.0)
    assert choose(AWARE, ask(held={0: 1000}), [*busy, idle], 0.5).slot == 2


def test_an_answer_that_has_begun_goes_on_without_headroom() -> None:
    busy = [node(0, queued_tokens=20_000, in_flight=2), node(1, queued_tokens=10_000, in_flight=1)]
    assert choose(AWARE, ask(begun=True), busy, 0.5).slot == 1
    full = [node(0, in_flight=2, max_in_flight=2)]
    assert choose(AWARE, ask(begun=True), full, 0.5).reason is Reason.OVERLOADED


def test_full_nodes_are_overloaded_and_leaving_ones_unavailable() -> None:
    full, leaving = node(0, in_flight=2, max_in_flight=2), node(1, weight=0.0)
    assert choose(AWARE, ask(), [full, leaving], 0.5).reason is Reason.OVERLOADED
    assert choose(AWARE, ask(excluded=frozenset({0})), [full, leaving], 0.5).reason is Reason.UNAVAILABLE
    assert choose(AWARE, ask(), [], 0.5) == Decision(None, Reason.UNAVAILABLE)


@pytest.mark.parametrize("policy", [AWARE, Policy.LEAST_LOAD])
def test_equal_nodes_are_drawn_by_weight(policy: Policy) -> None:
    nodes = [node(0, weight=0.5), node(1), node(2, warmth=1.0, weight=0.25), node(3, weight=0.0)]
    drawn = Counter(choose(policy, ask(), nodes, draw).slot for draw in GRID)
    assert [drawn[slot] / len(GRID) for slot in range(4)] == pytest.approx(
        [2 / 7, 4 / 7, 1 / 7, 0.0], abs=0.01
    )


def test_a_warming_node_gets_little_and_not_nothing() -> None:
    """Requests that queue up on three nodes, one of which is new."""
    nodes = [node(0), node(1), node(2, warmth=0.1)]
    counts = [0, 0, 0]
    for draw in itertools.islice(itertools.cycle(GRID), 210):
        slot = choose(AWARE, ask(1000, ttft_s=1e9), nodes, draw).slot
        assert slot is not None
        counts[slot] += 1
        nodes[slot] = replace(nodes[slot], queued_tokens=nodes[slot].queued_tokens + 1000)
    assert counts == pytest.approx([100, 100, 10], abs=2)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_nodes_that_answer_at_once_get_even_work(share: float) -> None:
    """All prompts share their beginning, which only one node has computed at first; no queue is ever seen."""
    nodes = [node(slot) for slot in range(4)]
    held: dict[int, int] = {}
    for draw in itertools.islice(itertools.cycle(GRID), 400):
        decision = choose(AWARE, ask(4000, held), nodes, draw)
        assert decision.slot is not None
        one = nodes[decision.slot]
        nodes[decision.slot] = replace(one, assigned_tokens=one.assigned_tokens + decision.uncached_tokens)
        held[decision.slot] = int(4000 * share)
    work = [one.assigned_tokens for one in nodes]
    assert max(work) / min(work) < 1.2


def test_what_is_not_known_goes_by_hash_where_no_cache_is_known() -> None:
    blind = [node(slot, index=IndexState.FALLBACK) for slot in range(8)]
    places = [choose(AWARE, ask(key=key), blind, 0.5) for key in range(50)]
    assert {place.reason for place in places} == {Reason.FALLBACK}
    assert [place.slot for place in places] == [
        choose(AWARE, ask(key=key), blind[::-1], 0.1).slot for key in range(50)
    ]
    assert len({place.slot for place in places}) > 4
    assert choose(AWARE, ask(held={3: 4000}), blind, 0.5).reason is Reason.STICKY
    assert choose(AWARE, ask(), [*blind, node(8)], 0.5).reason is not Reason.FALLBACK


def test_a_hash_moves_only_the_keys_of_a_node_that_went() -> None:
    nodes = [node(slot) for slot in range(8)]
    before = [choose(Policy.PREFIX_HASH, ask(key=key), nodes, 0.5) for key in range(400)]
    after = [choose(Policy.PREFIX_HASH, ask(key=key), nodes[:-1], 0.5) for key in range(400)]
    assert {one.reason for one in before} == {Reason.HASH}
    counts = Counter(one.slot for one in before)
    assert all(30 <= counts[slot] <= 75 for slot in range(8))
    assert all(was.slot in (now.slot, 7) for was, now in zip(before, after, strict=True))


def test_a_hash_gives_way_to_the_bound() -> None:
    nodes = [node(slot) for slot in range(4)]
    home = choose(Policy.PREFIX_HASH, ask(), nodes, 0.5).slot
    assert home is not None
    mean = 5000
    loaded = [replace(one, queued_tokens=int(mean * (1.2 if one.slot == home else 1.0))) for one in nodes]
    assert choose(Policy.PREFIX_HASH, ask(), loaded, 0.5).slot == home
    over = [replace(one, queued_tokens=mean * (4 if one.slot == home else 1)) for one in nodes]
    assert choose(Policy.PREFIX_HASH, ask(), over, 0.5).slot != home


def test_the_least_load_does_not_look_at_caches() -> None:
    nodes = [node(0, queued_tokens=10), node(1, queued_tokens=2000)]
    decision = choose(Policy.LEAST_LOAD, ask(held={1: 4900}), nodes, 0.5)
    assert (decision.slot, decision.reason) == (0, Reason.LOAD)


def test_turns() -> None:
    equal = [node(slot) for slot in range(5)]
    turns = [choose(Policy.ROUND_ROBIN, ask(), equal, 0.5, turn=turn).slot for turn in range(10)]
    assert turns == [0, 1, 2, 3, 4] * 2
    weighted = [node(0, weight=0.5), node(1), node(2, weight=0.1)]
    counts = Counter(choose(Policy.ROUND_ROBIN, ask(), weighted, 0.5, turn=turn).slot for turn in range(3000))
    assert [counts[slot] / 3000 for slot in range(3)] == pytest.approx(
        [0.5 / 1.6, 1 / 1.6, 0.1 / 1.6], abs=0.01
    )


def test_scores_explain() -> None:
    nodes = [node(0, queued_tokens=9000, tbt_s=0.02, tbt_per_request_s=0.001), node(1, weight=0.0)]
    decision = choose(AWARE, ask(held={0: 4000}, ttft_per_token_s=0.0001), nodes, 0.5, explain=True)
    score = decision.scores[0]
    assert (score.name, score.matched_tokens, score.uncached_tokens) == ("node-0", 4000, 1000)
    assert score.ttft_s == pytest.approx(1.0)
    assert score.ttft_budget_s == pytest.approx(1.1)
    assert score.tbt_s == pytest.approx(0.021)
    assert score.headroom == pytest.approx(0.1 / 1.1)
