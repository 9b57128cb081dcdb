"""Simulated runs: who is served when, on which node, and what is recorded of it."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sim_core
from drift_engine import wire
from drift_engine.bench import metrics
from drift_engine.bench.records import RequestRecord
from drift_engine.bench.results import Slo
from drift_engine.bench.traces import Arrival
from drift_engine.errors import EngineError, OptionsError
from drift_engine.latency.loads import Load
from drift_engine.latency.snapshots import Snapshot
from drift_engine.simulation import dispatching, nodes
from drift_engine.simulation.nodes import SimulatedNode
from drift_engine.simulation.running import Simulation

BLOCK = 64
SPEC = sim_core.SPEC
MODES = [mode for mode in wire.Mode if mode is not wire.Mode.OVERLAP]  # its lanes share SMs
ONE_LANE = [wire.Mode.FUSED, wire.Mode.PREFILL_FIRST]


@pytest.fixture(scope="module")
def latency() -> Snapshot:
    return nodes.calibrated(SPEC)


def simulate(
    arrivals: list[Arrival], latency: Snapshot, count: int = 1, routing: str = "round-robin", **fields: object
) -> list[RequestRecord]:
    spec = msgspec.structs.replace(SPEC, **fields)
    return Simulation(spec, latency, nodes=count, routing=routing).run(arrivals)


def arrival(index: int, at_s: float, prompt: int = 100, output: int = 10, **fields: object) -> Arrival:
    blocks = tuple(1000 * (index + 1) + block for block in range(-(-prompt // BLOCK)))
    told = {"block_ids": blocks, "block_tokens": BLOCK, **fields}
    return Arrival(index, at_s, prompt, output, **told)  # type: ignore[arg-type]


def workload(seed: int, count: int = 40, rate: float = 10.0, stem: int = 0) -> list[Arrival]:
    """Of every third the first `stem` blocks are the same."""
    dice, at_s, made = random.Random(seed), 0.0, []
    for index in range(count):
        one = arrival(index, at_s, dice.randint(2, 600), dice.randint(1, 80))
        if index % 3 == 0:
            shared = min(stem, len(one.block_ids))
            one = msgspec.structs.replace(one, block_ids=(*range(shared), *one.block_ids[shared:]))
        made.append(one)
        at_s += dice.expovariate(rate)
    return made


def in_order(records: list[RequestRecord]) -> list[RequestRecord]:
    return sorted(records, key=lambda record: record.index)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    count=st.integers(1, 4),
    routing=st.sampled_from(dispatching.names()),
    mode=st.sampled_from(MODES),
    rate=st.sampled_from([3.0, 30.0]),
    stem=st.sampled_from([0, 2]),
)
def test_every_request_is_answered_at_times_that_can_be(
    seed: int, count: int, routing: str, mode: wire.Mode, rate: float, stem: int
) -> None:
    arrivals = workload(seed, rate=rate, stem=stem)
    records = simulate(arrivals, nodes.calibrated(SPEC), count, routing, mode=mode)
    assert [record.index for record in in_order(records)] == list(range(len(arrivals)))
    ends_s = [record.due_s + record.end_s for record in records]
    assert ends_s == sorted(ends_s)
    for one, record in zip(arrivals, in_order(records), strict=True):
        assert (record.status, record.reason, record.finish_reason) == ("ok", "", "length")
        assert record.scheduled_s == record.due_s == one.at_s
        assert record.prompt_tokens == record.asked_prompt_tokens == one.prompt_tokens
        assert record.output_tokens == record.asked_output_tokens == one.output_tokens
        assert record.output_tokens == len(record.token_times_s) == sum(record.token_counts)
        assert record.cached_tokens is not None
        new = one.prompt_tokens - record.cached_tokens
        load = Load.prefill([(new, record.cached_tokens)]) if new > 1 else Load.decode(1, one.prompt_tokens)
        assert record.token_times_s[0] >= sim_core.TIMING.pass_s(load, SPEC.sms) - 1e-9
        assert all(before < after for before, after in itertools.pairwise(record.token_times_s))
        assert record.end_s == record.token_times_s[-1]
        assert not record.clipped_prompt
        assert not record.clipped_output


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("routing", dispatching.names())
def test_equal_input_gives_equal_results(routing: str, mode: wire.Mode, latency: Snapshot) -> None:
    arrivals = workload(1, stem=2)
    first, second = (simulate(arrivals, latency, 3, routing, mode=mode) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("mode", MODES)
def test_nodes_do_not_know_of_each_other(mode: wire.Mode, latency: Snapshot) -> None:
    """In turn, each of three nodes does what it does with its own requests alone."""
    arrivals = workload(2, 60, rate=30.0, stem=1)
    together = in_order(simulate(arrivals, latency, 3, mode=mode))
    apart = in_order(
        [record for node in range(3) for record in simulate(arrivals[node::3], latency, mode=mode)]
    )
    if mode in ONE_LANE:
        for one, other in zip(together, apart, strict=True):
            assert one.token_times_s == pytest.approx(other.token_times_s, abs=1e-9)
            assert one.cached_tokens == other.cached_tokens
    else:  # layers are launched further ahead at the moments at which anybody looks
        totals = [sum(sum(record.token_times_s) for record in records) for records in (together, apart)]
        assert totals[0] == pytest.approx(totals[1], rel=0.02)


def test_routing_in_turn_and_by_load(latency: Snapshot) -> None:
    # One long prompt, and short ones while it is prefilled: by load they all avoid its node.
    arrivals = [arrival(0, 0.0, 2000, 10), *(arrival(index, 0.01 * index, 20, 2) for index in range(1, 9))]
    by_load = in_order(simulate(arrivals, latency, 2, "least-load", mode=wire.Mode.PREFILL_FIRST))
    in_turn = in_order(simulate(arrivals, latency, 2, "round-robin", mode=wire.Mode.PREFILL_FIRST))
    assert max(record.token_times_s[0] for record in by_load[1:]) < 0.05
    assert max(record.token_times_s[0] for record in in_turn[1:]) > 0.3


def test_the_least_load_takes_turns_among_equals() -> None:
    least, request = joined(dispatching.LeastLoad(), 3), dispatching.Request("a", [1], 0.0)
    assert [least.choose(request) for _ in range(4)] == [0, 1, 2, 0]
    least.changed(1, 0, 1)
    assert [least.choose(request) for _ in range(3)] == [2, 0, 2]
    least.changed(0, 100, 1)
    least.changed(2, 100, 2)
    assert least.choose(request) == 1
    with pytest.raises(OptionsError, match=r"routing: 'best' is unknown; known: least-load, round-robin"):
        dispatching.make("best")


@pytest.mark.parametrize("policy", dispatching.names())
def test_nodes_that_left_get_nothing(policy: str) -> None:
    chooser, request = joined(dispatching.make(policy), 2), dispatching.Request("a", [1], 0.0)
    chooser.left(0, 1.0)
    chooser.changed(0, 0, 0)
    assert [chooser.choose(request) for _ in range(3)] == [1, 1, 1]
    chooser.left(1, 2.0)
    assert chooser.choose(request) is None


def joined(chooser: dispatching.Dispatcher, count: int) -> dispatching.Dispatcher:
    for index in range(count):
        chooser.joined(index, Silent(), 0.0)
    return chooser


def test_more_nodes_are_no_slower(latency: Snapshot) -> None:
    arrivals = workload(3, 80, rate=40.0)
    ttft_s = [
        sum(record.token_times_s[0] for record in simulate(arrivals, latency, count, "least-load"))
        for count in (1, 2, 4)
    ]
    assert ttft_s[0] > ttft_s[1] > ttft_s[2]


@settings(max_examples=25, deadline=None)
@given(
    turns=st.lists(
        st.tuples(
            st.sampled_from([None, "a", "b", "c"]), st.sampled_from([0.0, 0.01, 0.3, 2.0]), st.integers(1, 60)
        ),
        min_size=1,
        max_size=25,
    ),
    count=st.integers(1, 3),
    routing=st.sampled_from(dispatching.names()),
    mode=st.sampled_from(MODES),
)
def test_a_turn_waits_for_the_one_before(
    turns: list[tuple[str | None, float, int]], count: int, routing: str, mode: wire.Mode
) -> None:
    times_s = itertools.accumulate(gap for _, gap, _ in turns)
    arrivals = [
        arrival(index, at_s, 200, output, session=session)
        for index, ((session, _, output), at_s) in enumerate(zip(turns, times_s, strict=True))
    ]
    records = in_order(simulate(arrivals, nodes.calibrated(SPEC), count, routing, mode=mode))
    assert len(records) == len(arrivals)
    for session in {one.session for one in arrivals}:
        own = [record for record in records if record.session == session]
        for record in own:
            assert record.scheduled_s == arrivals[record.index].at_s
        if session is None:
            assert all(record.due_s == record.scheduled_s for record in own)
            continue
        assert own[0].due_s == own[0].scheduled_s
        for before, after in itertools.pairwise(own):
            assert after.due_s == pytest.approx(max(after.scheduled_s, before.due_s + before.end_s), abs=1e-9)


def test_turns_of_a_session_reuse_what_came_before(latency: Snapshot) -> None:
    texts = ["x" * 1024, "x" * 2048, "x" * 1024 + "y" * 1024]
    arrivals = [
        Arrival(index, 0.0, text=text, output_text="z" * 17, session="s") for index, text in enumerate(texts)
    ]
    records = in_order(simulate(arrivals, latency))
    assert [record.prompt_tokens for record in records] == [256, 512, 512]
    assert [record.output_tokens for record in records] == [5, 5, 5]
    assert [record.cached_tokens for record in records] == [0, 256, 256]


def test_long_prompts_and_answers_are_cut(latency: Snapshot) -> None:
    most = SPEC.max_model_len_tokens
    lengths = [(most, 10), (most - 10, 10), (10, most - 10), (10, most), (3 * most, 3 * most), (most - 9, 10)]
    arrivals = [arrival(index, float(index), *length) for index, length in enumerate(lengths)]
    records = in_order(simulate(arrivals, latency))
    assert all(record.status == "ok" for record in records)
    assert [(record.prompt_tokens, record.output_tokens) for record in records] == [
        (most - 10, 10),
        (most - 10, 10),
        (10, most - 10),
        (1, most - 1),
        (1, most - 1),
        (most - 10, 10),
    ]
    assert [(record.clipped_prompt, record.clipped_output) for record in records] == [
        (True, False),
        (False, False),
        (False, False),
        (True, True),
        (True, True),
        (True, False),
    ]


def test_records_are_what_metrics_expects(latency: Snapshot) -> None:
    arrivals = workload(4)
    records = simulate(arrivals, latency, 2)
    summary = metrics.summarize(records, Slo(ttft_ms=1e6, tbt_ms=1e6))
    assert (summary["requests"], summary["failed"], summary["short_outputs"]) == (len(arrivals), 0, 0)
    assert summary["attainment"] == 1.0
    assert summary["exact_token_counts"]
    assert summary["output_tokens"] == sum(one.output_tokens for one in arrivals)
    assert summary["prompt_tokens"] == sum(one.prompt_tokens for one in arrivals)
    span_s = arrivals[-1].at_s * len(arrivals) / (len(arrivals) - 1)
    assert summary["rate_rps"] == pytest.approx(len(arrivals) / span_s)


def test_who_listens_hears_of_every_answer_once_and_may_stop_it(latency: Snapshot) -> None:
    arrivals = workload(5)
    heard: list[RequestRecord] = []
    simulation = Simulation(SPEC, latency, nodes=2)
    assert sorted(simulation.run(arrivals, heard.append), key=id) == sorted(heard, key=id)

    class EnoughError(Exception):
        pass

    def stop(record: RequestRecord) -> None:
        raise EnoughError

    with pytest.raises(EnoughError):
        Simulation(SPEC, latency, nodes=2).run(arrivals, stop)


def test_prefixes_are_cached_per_node(latency: Snapshot) -> None:
    same = [arrival(index, float(index), 256, 2, block_ids=(1, 2, 3, 4)) for index in range(4)]
    assert [record.cached_tokens for record in simulate(same, latency)] == [0, 192, 192, 192]
    assert [record.cached_tokens for record in simulate(same, latency, 2)] == [0, 0, 192, 192]


@pytest.mark.parametrize("mode", MODES)
def test_a_cache_that_is_too_small_for_all_serves_all(mode: wire.Mode, latency: Snapshot) -> None:
    arrivals = workload(6, 60, rate=100.0)
    records = simulate(arrivals, latency, mode=mode, kv_tokens=1024, max_model_len_tokens=1024)
    assert len(records) == 60
    assert all(record.status == "ok" for record in records)


def test_a_node_that_can_do_nothing_is_an_error(latency: Snapshot) -> None:
    """Of a cache that is smaller than the context it was promised for; not an endless loop."""
    spec = msgspec.structs.replace(SPEC, kv_tokens=BLOCK * 4)
    with pytest.raises(EngineError, match="does nothing about its 1 requests"):
        Simulation(spec, latency, nodes=1).run([arrival(0, 0.0, 1000, 10)])


def test_spans_are_kept_where_asked(latency: Snapshot) -> None:
    spec = msgspec.structs.replace(SPEC, kept_spans=10, mode=wire.Mode.MUX)
    simulation = Simulation(spec, latency, nodes=2)
    simulation.run(workload(7))
    assert [len(node.spans) for node in simulation.nodes] == [10, 10]
    bare = Simulation(SPEC, latency, nodes=1)
    bare.run(workload(7))
    assert not bare.nodes[0].spans


class Silent:
    def report(self, now_s: float) -> wire.Report:
        raise NotImplementedError


class Listener:
    """Of one node."""

    def __init__(self) -> None:
        self.answers: list[nodes.Answer] = []
        self.tokens = 0
        self.events: list[wire.KvEvent] = []

    def told(self, answer: nodes.Answer, times_s: Sequence[float]) -> None:
        self.tokens += len(times_s)

    def ended(self, answer: nodes.Answer) -> None:
        self.answers.append(answer)

    def kept(self, index: int, events: Sequence[wire.KvEvent]) -> None:
        self.events += events


def test_a_node_counts_what_waits(latency: Snapshot) -> None:
    heard = Listener()
    node = SimulatedNode(SPEC, latency, heard)
    assert node.next_s == float("inf")
    node.submit("a", list(range(100)), 5, 10.0)
    assert (node.next_s, node.waiting_tokens) == (10.0, 100)
    node.run(10.0)
    node.submit("b", list(range(50)), 3, 10.0)
    assert node.waiting_tokens == 150
    node.run(10.001)
    assert (node.waiting_tokens, node.clock.now_s()) == (150, 10.001)
    node.run(float("inf"))
    assert (node.waiting_tokens, len(node.answers), node.next_s) == (0, 0, float("inf"))
    assert {answer.request_id: len(answer.token_times_s) for answer in heard.answers} == {"a": 5, "b": 3}
    assert heard.tokens == 8
    assert node.stats is not None
    assert (node.stats.running, node.stats.waiting, node.stats.kv_pages_held) == (0, 0, 0)


def test_a_node_reports_what_it_has_to_do_and_knows(latency: Snapshot) -> None:
    node = SimulatedNode(SPEC, latency, Listener(), index=3, made_s=5.0)
    idle = node.report(6.0)
    assert (idle.node, idle.uptime_s, idle.in_flight, idle.kv_usage) == ("node-3", 1.0, 0, 0.0)
    assert idle.whole is not None  # it knows its speed before its first request
    node.submit("a", list(range(1000)), 500, 6.0)
    node.run(8.0)
    busy = node.report(8.0)
    assert (busy.in_flight, busy.running, busy.queued_tokens) == (1, 1, 0)
    assert 0 < busy.tbt_p50_ms <= busy.tbt_p99_ms
    assert busy.prefill_tokens_per_s > 0
    assert busy.kv_usage > 0


def test_a_node_keeps_a_set_point_for_its_time_and_no_older_one(latency: Snapshot) -> None:
    node = SimulatedNode(msgspec.structs.replace(SPEC, mode=wire.Mode.MUX), latency, Listener())
    most = max(split.decode_sms for split in SPEC.splits)
    node.steer(epoch=7, generation=2, bounds=(most, most), weight=0.5, until_s=60.0)
    node.steer(epoch=6, generation=2, bounds=None, weight=1.0, until_s=99.0)
    told = node.report(59.0)
    assert (told.epoch, told.generation, told.weight, told.bounds) == (7, 2, 0.5, (most, most))
    for number in range(3):
        node.submit(f"a{number}", [number, *range(1000)], 50, 0.1 * number)
        node.run(0.1 * (number + 1))
    node.run(float("inf"))
    split = node.report(59.0).split
    assert split is not None
    assert split.decode_sms == most
    alone = node.report(61.0)
    assert (alone.epoch, alone.weight, alone.bounds) == (0, 1.0, None)


def test_a_node_tells_what_its_cache_holds_where_somebody_listens(latency: Snapshot) -> None:
    heard, unheard = Listener(), Listener()
    for listener, tell in ((heard, True), (unheard, False)):
        node = SimulatedNode(SPEC, latency, listener, tell=tell)
        node.submit("a", list(range(200)), 2, 0.0)
        node.run(float("inf"))
    assert [len(event.block_hashes) for event in heard.events if isinstance(event, wire.Stored)] == [3]
    assert unheard.events == []


def test_whoever_routes_hears_of_every_token_once(latency: Snapshot) -> None:
    tokens: dict[str, int] = {}
    ended: list[str] = []

    class Counting(dispatching.LeastLoad):
        def told(self, request_id: str, times_s: Sequence[float], cached_tokens: int) -> None:
            assert request_id not in ended
            tokens[request_id] = tokens.get(request_id, 0) + len(times_s)

        def ended(self, request_id: str, at_s: float, *, ok: bool) -> None:
            assert ok
            ended.append(request_id)

    arrivals = workload(9)
    records = Simulation(SPEC, latency, nodes=2, routing=Counting).run(arrivals)
    assert tokens == {str(record.index): record.output_tokens for record in records}
    assert sorted(ended) == sorted(tokens)
