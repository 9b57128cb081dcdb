"""What requests see of the planner's decisions, in virtual time: shared prefixes, slack and memory."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drift_engine import wire
from drift_engine.core.flights import Flights
from drift_engine.latency.costs import Costs, DecodeCost, PrefillCost
from drift_engine.scheduling import order, slack
from virtual_core import VirtualCore


def speeds(sms: int) -> Costs:
    """On 4 SMs 1,000 tokens are prefilled in 250 ms; a decode step takes 40 ms on one SM, 10 ms on all."""
    return Costs(PrefillCost(0.0, 0.0, 1e-3 / sms, 1e-3), DecodeCost(1e-7, 1e-4, 4e-2 / sms))


def slow(sms: int) -> Costs:
    """A decode step takes 160 ms on one SM, 40 ms on all."""
    return Costs(speeds(sms).prefill, DecodeCost(1e-7, 1e-4, 0.16 / sms))


def crowded(sms: int) -> Costs:
    """A decode step takes as long as it has rows: 10 ms for each on one SM."""
    return Costs(speeds(sms).prefill, DecodeCost(1e-7, 0.01 / sms, 0.04 / sms))


def submit(
    name: str, arrival_s: float, prompt: list[int], answer_tokens: int, *, priority: int = 0
) -> wire.Submit:
    sampling = wire.Sampling(max_tokens=answer_tokens, ignore_eos=True)
    return wire.Submit(name, prompt, sampling, arrival_s, priority=priority)


@pytest.mark.parametrize("mode", wire.Mode)
def test_the_second_of_two_prompts_that_begin_alike_finds_the_first_ones_prefix(mode: wire.Mode) -> None:
    stem = list(range(512))
    submits = [submit(f"r{index}", 0.0, [*stem, index], 4) for index in range(3)]
    core = VirtualCore(submits, mode, speeds)
    core.run()
    cached = core.cache.hit_tokens_total
    if mode not in order.FIRST_COME or mode is wire.Mode.SOLO_PREFILL:
        assert cached == 2 * 512
    else:
        assert cached == 0


def test_requests_that_wait_for_a_prefix_are_served_when_nobody_computes_it_any_more() -> None:
    stem = list(range(2000))
    submits = [submit(f"r{index}", 0.0, [*stem, index], 4) for index in range(3)]
    core = VirtualCore(submits, wire.Mode.MUX, speeds)
    for _ in range(3):
        core.core.step()
    cancelled = next(iter(core.core.requests))
    core.channel.cancel(cancelled)
    core.submits = [one for one in submits if one.request_id != cancelled]
    times = core.run()
    assert all(len(times[one.request_id]) == 4 for one in core.submits)


@pytest.mark.parametrize("mode", [wire.Mode.FUSED, wire.Mode.MUX, wire.Mode.AUTO])
def test_no_gap_is_longer_than_the_chain_may_plan(mode: wire.Mode) -> None:
    decoding = [submit(f"d{index}", 0.0, [index] * 16, 200) for index in range(4)]
    prompts = [submit(f"p{index}", 0.5 + index, [100 + index] * 900, 1) for index in range(3)]
    longest = {}
    for form in wire.Slack:
        core = VirtualCore(decoding + prompts, mode, slow, slack=form)
        times = core.run()
        gaps = [b - a for one in decoding for a, b in itertools.pairwise(times[one.request_id])]
        longest[form] = max(gaps)
        if form is wire.Slack.CHAIN:
            for one in decoding:
                first_s = times[one.request_id][0]
                for index, token_s in enumerate(times[one.request_id]):
                    assert token_s <= first_s + index * 0.08 + 0.02
    assert longest[wire.Slack.STRICT] <= 0.08
    assert longest[wire.Slack.STRICT] < longest[wire.Slack.CHAIN] <= slack.CHAIN_GAP_TARGETS * 0.08


def test_the_split_gives_sms_back_only_after_the_dwell(monkeypatch: pytest.MonkeyPatch) -> None:
    settled: list[tuple[float, int]] = []  # single steps may depart from it

    def settle(flights: Flights, split: wire.Split) -> None:
        real_settle(flights, split)
        settled.append((flights._device.clock.now_s(), split.decode_sms))

    real_settle = Flights.settle
    monkeypatch.setattr(Flights, "settle", settle)
    # Beside prompts without end ten short answers at a time: each crowd is gone in less than a dwell.
    decoding = [submit("d", 0.0, [0] * 16, 200)]
    decoding += [
        submit(f"c{index}", 0.3 + 0.5 * (index // 10), [1000 + index] * 4, 8, priority=1)
        for index in range(80)
    ]
    prompts = [submit(f"p{index}", 0.25 * index, [100 + index] * 900, 1) for index in range(40)]
    core = VirtualCore(decoding + prompts, wire.Mode.MUX, crowded, sms=8)
    core.run()
    since_s, fewer = settled[0][0], 0
    for (_, before), (start_s, sms) in itertools.pairwise(settled):
        if sms < before:
            fewer += 1
            assert start_s - since_s >= 0.1
        if sms != before:
            since_s = start_s
    assert fewer > 3


@settings(max_examples=80, deadline=None)
@given(
    mode=st.sampled_from([*wire.Mode]),
    form=st.sampled_from([*wire.Slack]),
    pages=st.integers(20, 60),
    requests=st.lists(
        st.tuples(st.floats(0.0, 0.2), st.integers(1, 200), st.integers(1, 80), st.booleans()),
        min_size=1,
        max_size=12,
    ),
)
def test_memory_that_is_short_loses_no_page_and_no_request(
    mode: wire.Mode, form: wire.Slack, pages: int, requests: list[tuple[float, int, int, bool]]
) -> None:
    arrivals = itertools.accumulate(gap_s for gap_s, _, _, _ in requests)
    submits = [
        submit(f"r{index}", arrival_s, [0 if alike else index + 1] * tokens, answer)
        for index, (arrival_s, (_, tokens, answer, alike)) in enumerate(zip(arrivals, requests, strict=True))
    ]
    core = VirtualCore(submits, mode, speeds, pages=pages, slack=form)
    times = core.run()
    for one in submits:
        assert len(times[one.request_id]) == one.sampling.max_tokens
    assert core.cache.pages_held == 0
    core.cache.check_integrity()
