"""The real core on a device that only takes its time: every request gets its own tokens, at times that can be."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drift_engine import wire
from drift_engine.hardware import profiles, shapes
from drift_engine.hardware.roofline import Roofline
from drift_engine.latency.loads import Load
from drift_engine.latency.model import LatencyModel
from sim_core import SMS, Asked, HandMade, SimCore, alone

MODES = [mode for mode in wire.Mode if mode is not wire.Mode.OVERLAP]  # its lanes share SMs
SPLIT_MODES = (wire.Mode.MUX, wire.Mode.AUTO)
PAGE_TOKENS = 4


@st.composite
def workloads(draw: st.DrawFn) -> tuple[list[Asked], int]:
    """Requests, some of one stem, and pages of which the largest needs all in the worst case."""
    stem = draw(st.lists(st.integers(0, 9), min_size=0, max_size=40))
    requests: list[Asked] = []
    at_s = 0.0
    for index in range(draw(st.integers(1, 7))):
        tail = draw(st.lists(st.integers(0, 9), min_size=1, max_size=60))
        at_s += draw(st.sampled_from([0.0, 0.0, 0.001, 0.03, 0.2]))
        output = draw(st.one_of(st.integers(1, 6), st.integers(20, 150)))
        prompt = (stem if draw(st.booleans()) else []) + tail
        gone_s = draw(st.sampled_from([None, None, None, 0.0, 0.01, 0.1, 0.5]))
        cancelled_s = None if gone_s is None else at_s + gone_s
        requests.append(Asked(f"r{index}", prompt, output, at_s, cancelled_s))
    most = max(len(asked.token_ids) + asked.output_tokens for asked in requests)
    pages = -(-(most + 1) // PAGE_TOKENS) + draw(st.sampled_from([0, 1, 8, 200]))
    return requests, pages


@settings(max_examples=120, deadline=None)
@given(
    workload=workloads(),
    mode=st.sampled_from(MODES),
    lookahead_steps=st.sampled_from([1, 64]),
    max_step_tokens=st.sampled_from([16, 256]),
    max_running=st.sampled_from([2, 8]),
    chunk_tokens=st.sampled_from([None, 16]),
    learning=st.booleans(),
    tbt_ms=st.sampled_from([1.0, 12.0, 100.0]),
)
def test_each_request_is_served_as_if_alone_but_for_the_time(
    workload: tuple[list[Asked], int],
    mode: wire.Mode,
    lookahead_steps: int,
    max_step_tokens: int,
    max_running: int,
    chunk_tokens: int | None,
    learning: bool,
    tbt_ms: float,
) -> None:
    requests, pages = workload
    timing = HandMade()
    core = SimCore(
        requests,
        mode=mode,
        timing=timing,
        latency=LatencyModel() if learning else None,
        lookahead_steps=lookahead_steps,
        pages=pages,
        page_tokens=PAGE_TOKENS,
        max_running=max_running,
        max_step_tokens=max_step_tokens,
        chunk_tokens=chunk_tokens,
        targets=wire.Targets(400.0, 0.0, tbt_ms),
    )
    answers = core.run()
    for asked in requests:
        answer = answers[asked.request_id]
        expected = alone(asked.token_ids, asked.output_tokens, PAGE_TOKENS)
        if asked.cancelled_s is not None and answer.finish is None:
            assert answer.token_ids == expected[: len(answer.token_ids)]
            continue
        assert answer.finish is wire.FinishReason.LENGTH
        assert answer.token_ids == expected
        assert len(answer.times_s) == asked.output_tokens
        assert all(before < after for before, after in itertools.pairwise(answer.times_s))
        new = len(asked.token_ids) - answer.cached_tokens
        load = (
            Load.prefill([(new, answer.cached_tokens)]) if new > 1 else Load.decode(1, len(asked.token_ids))
        )
        assert answer.times_s[0] - asked.at_s >= timing.pass_s(load, SMS) - 1e-9
    assert core.cache.pages_held == 0
    core.cache.check_integrity()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), mode=st.sampled_from(MODES), lookahead_steps=st.sampled_from([1, 64]))
def test_nobody_starves(seed: int, mode: wire.Mode, lookahead_steps: int) -> None:
    """More requests than there are pages and places for: all end within the time that they take one by one."""
    dice = random.Random(seed)
    requests = [
        Asked(f"r{index}", [dice.randrange(10) for _ in range(dice.randint(1, 90))], dice.randint(1, 90), 0.0)
        for index in range(24)
    ]
    timing = HandMade()
    core = SimCore(
        requests, mode=mode, timing=timing, lookahead_steps=lookahead_steps, pages=64, max_running=6
    )
    answers = core.run()
    one_by_one_s = sum(
        timing.pass_s(Load.prefill([(len(asked.token_ids), 0)]), SMS)
        + asked.output_tokens * timing.pass_s(Load.decode(1, 180), SMS)
        for asked in requests
    )
    assert max(answer.times_s[-1] for answer in answers.values()) < one_by_one_s
    assert core.cache.pages_held == 0


@pytest.mark.parametrize("lookahead_steps", [1, 64])
@pytest.mark.parametrize("mode", MODES)
def test_preempted_requests_go_on_where_they_were(mode: wire.Mode, lookahead_steps: int) -> None:
    requests = [Asked(f"r{index}", [index] * 20, 60, index / 100) for index in range(8)]
    core = SimCore(requests, mode=mode, lookahead_steps=lookahead_steps, pages=40)
    answers = core.run()
    assert core.stats is not None
    assert core.stats.preemptions_total > 0
    for asked in requests:
        assert answers[asked.request_id].token_ids == alone(asked.token_ids, 60)


@pytest.mark.parametrize("mode", SPLIT_MODES)
def test_lanes_are_used_side_by_side(mode: wire.Mode) -> None:
    core = SimCore(workload(3, rate=40.0), mode=mode, targets=wire.Targets(400.0, 0.0, 12.0))
    core.run()
    assert len({span.lane for span in core.core.spans}) > 2


def workload(seed: int, *, rate: float, requests: int = 40, scale: int = 1) -> list[Asked]:
    """Prompts of 4 to 250 tokens, answers of 1 to 120, with exponential gaps, a third of them of one stem."""
    dice = random.Random(seed)
    stem = [dice.randrange(10) for _ in range(100 * scale)]
    made, at_s = [], 0.0
    for index in range(requests):
        at_s += dice.expovariate(rate)
        tail = [dice.randrange(10) for _ in range(scale * dice.randint(4, 150))]
        prompt = stem + tail if dice.random() < 1 / 3 else tail
        made.append(Asked(f"r{index}", prompt, dice.randint(1, 120), at_s))
    return made


@pytest.mark.parametrize("rate", [2.0, 20.0])
@pytest.mark.parametrize("mode", [wire.Mode.FUSED, wire.Mode.PREFILL_FIRST])
def test_leaps_change_nothing_on_one_lane(mode: wire.Mode, rate: float) -> None:
    for seed in range(2):
        requests = workload(seed, rate=rate)
        times = [
            [
                answer.times_s
                for answer in SimCore(
                    requests,
                    mode=mode,
                    lookahead_steps=steps,
                    pages=8192,
                    targets=wire.Targets(400.0, 0.0, 20.0),
                )
                .run()
                .values()
            ]
            for steps in (1, 64)
        ]
        for stepped, leapt in zip(*times, strict=True):
            assert leapt == pytest.approx(stepped, abs=1e-6)


@pytest.mark.parametrize("mode", [wire.Mode.FUSED, wire.Mode.PREFILL_FIRST])
def test_leaps_change_nothing_where_requests_wait_for_pages(mode: wire.Mode) -> None:
    """Who is next changes while they wait, and with it who can be admitted."""
    requests = workload(1, rate=60.0)
    times = []
    for steps in (1, 64):
        core = SimCore(
            requests,
            mode=mode,
            lookahead_steps=steps,
            pages=160,
            max_running=64,
            targets=wire.Targets(200.0, 0.5, 20.0),
        )
        times.append([answer.times_s for answer in core.run().values()])
    for stepped, leapt in zip(*times, strict=True):
        assert leapt == pytest.approx(stepped, abs=1e-6)


@pytest.mark.parametrize(
    ("mode", "rate", "tbt_ms"),
    [
        (wire.Mode.MUX, 6.0, 25.0),
        (wire.Mode.MUX, 6.0, 12.0),
        (wire.Mode.MUX, 4.0, 7.0),
        (wire.Mode.AUTO, 4.0, 7.0),  # looser targets it keeps in `fused`
    ],
)
def test_leaps_change_little_on_two_lanes(mode: wire.Mode, rate: float, tbt_ms: float) -> None:
    """Layers are launched as far as the decode pass lasts, so the moments at which a split can change differ: by
    little, and only where the promise is so tight that it changes often."""
    gpu, shape = profiles.named("h200"), shapes.read("llama-8b")
    timing = Roofline(gpu, shape)
    ttft_s, gap_s = [0.0, 0.0], [0.0, 0.0]
    lanes: set[str] = set()
    requests = workload(0, rate=rate, scale=30)
    for which, lookahead_steps in enumerate((1, 64)):
        core = SimCore(
            requests,
            mode=mode,
            timing=timing,
            lookahead_steps=lookahead_steps,
            sms=gpu.sms,
            splits=profiles.splits(gpu),
            pages=8192,
            page_tokens=64,
            max_running=64,
            max_step_tokens=8192,
            targets=wire.Targets(1000.0, 0.0, tbt_ms),
        )
        for asked, answer in zip(requests, core.run().values(), strict=True):
            ttft_s[which] += answer.times_s[0] - asked.at_s
            gap_s[which] += (answer.times_s[-1] - answer.times_s[0]) / max(1, asked.output_tokens - 1)
        lanes |= {span.lane for span in core.core.spans}
    assert len(lanes) > 2
    assert ttft_s[1] == pytest.approx(ttft_s[0], rel=1e-3)
    assert gap_s[1] == pytest.approx(gap_s[0], rel=1e-3)


def test_what_one_more_request_would_add_is_told() -> None:
    """A row and its context, of the lanes that decode has."""
    asked = [Asked(f"r{index}", list(range(100 * index, 100 * index + 400)), 32) for index in range(4)]
    core = SimCore(asked, timing=HandMade(row_s=2**-12, context_s=2**-20))
    core.run()
    assert core.stats is not None
    assert core.stats.tbt_per_request_s == pytest.approx(2**-12 + 430 * 2**-20, rel=0.01)


def test_what_passes_cost_is_told_when_it_changed_and_once_a_second_at_most() -> None:
    asked = [Asked(f"r{index}", list(range(100)), 500, index / 4) for index in range(8)]
    core = SimCore(asked, latency=LatencyModel(), mode=wire.Mode.AUTO)
    core.run()
    times_s = [at_s for at_s, _ in core.costs]
    assert len(times_s) > 2
    assert all(later - earlier >= 1.0 for earlier, later in itertools.pairwise(times_s))
    assert all(one != other for (_, one), (_, other) in itertools.pairwise(core.costs))
    last = core.costs[-1][1]
    assert [(cost.decode_sms, cost.prefill_sms) for cost in last.splits] == [(2, 6), (4, 4), (6, 2)]
    assert last.whole is not None
    assert (last.whole.decode_sms, last.whole.contention) == (SMS, 1.0)


def test_a_core_that_knows_nothing_tells_no_cost() -> None:
    core = SimCore([Asked("r", [1, 2, 3], 200)])
    core.run()
    assert core.costs == []


def test_the_context_of_those_that_decode_is_told() -> None:
    core = SimCore([Asked("a", list(range(300)), 40), Asked("b", list(range(1000, 1100)), 40)])
    most = 0
    while core.stats is None or core.stats.generation_tokens_total < 80:
        core.core.step()
        core.take()
        most = max(most, core.stats.decode_context_tokens if core.stats else 0)
    assert 400 + 2 * 35 < most <= 400 + 2 * 40
    assert core.stats.decode_context_tokens == 0
