"""Nobody starves: the ageing bound of docs/multiplexing.md, held by the real core and planner in virtual time."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drift_engine import wire
from drift_engine.latency.costs import Costs, DecodeCost, PrefillCost
from drift_engine.scheduling import fused, order
from virtual_core import VirtualCore

SMS = 4
TARGET_S = 0.4
ROUNDING_S = 1e-6


def speeds(sms: int) -> Costs:
    """On 4 SMs 1,000 tokens are prefilled in 250 ms; a decode step takes 10 ms on any part."""
    return Costs(PrefillCost(0.0, 0.0, 1e-3 / sms, 1e-3), DecodeCost(1e-7, 1e-4, 1e-2))


def submit(name: str, arrival_s: float, tokens: int, answer_tokens: int, priority: int = 0) -> wire.Submit:
    """No two prompts begin alike: sharing has tests of its own."""
    first = int(name[1:])
    prompt = [first] * tokens
    sampling = wire.Sampling(max_tokens=answer_tokens, ignore_eos=True)
    return wire.Submit(name, prompt, sampling, arrival_s, priority=priority)


def prefill_bound_s(tokens: int, rows: int) -> float:
    """The longest that a prompt's prefill takes in any mode: on the smallest lane, or chunk by chunk beside decode
    rows on a device that gives it the least chunk."""
    step_s = 0.011 + (1e-4 + 1e-7 * 4000) * rows
    chunks = math.ceil(tokens / fused.MIN_CHUNK_TOKENS)
    return max(tokens * 1e-3 + 0.01, chunks * (step_s + fused.MIN_CHUNK_TOKENS * 1e-3 / SMS)) + step_s


@settings(max_examples=60, deadline=None)
@given(
    mode=st.sampled_from([*wire.Mode]),
    slack=st.sampled_from([*wire.Slack]),
    requests=st.lists(
        st.tuples(
            st.floats(0.0, 0.3),  # after the one before
            st.sampled_from([1, 20, 100, 400, 3000]),
            st.sampled_from([1, 5, 60]),
        ),
        min_size=2,
        max_size=25,
    ),
    max_step_tokens=st.sampled_from([256, 2048]),
)
def test_a_firm_request_waits_for_nobody_who_came_later(
    mode: wire.Mode, slack: wire.Slack, requests: list[tuple[float, int, int]], max_step_tokens: int
) -> None:
    arrivals = itertools.accumulate(gap_s for gap_s, _, _ in requests)
    submits = [
        submit(f"r{index}", arrival_s, tokens, answer)
        for index, (arrival_s, (_, tokens, answer)) in enumerate(zip(arrivals, requests, strict=True))
    ]
    core = VirtualCore(submits, mode, speeds, sms=SMS, slack=slack, max_step_tokens=max_step_tokens)
    times, admitted_s = core.run(), core.admitted_s()
    # Modes that serve first come, first served let nobody pass one that has aged.
    bound = order.aged_s if mode in order.FIRST_COME else order.firm_s
    for one in submits:
        bound_s = bound(one.arrival_s, one.arrival_s + TARGET_S)
        ahead = [other for other in submits if other.arrival_s <= one.arrival_s]
        for other in submits:
            first = admitted_s[other.request_id] < admitted_s[one.request_id] - ROUNDING_S
            if other.arrival_s > one.arrival_s and first:
                assert admitted_s[other.request_id] < bound_s
            if other.arrival_s > one.arrival_s and admitted_s[other.request_id] <= bound_s:
                ahead.append(other)
        # Behind its last token a pass may hold the first ones of another: at most a pass.
        work_s = sum(prefill_bound_s(len(other.token_ids), len(submits)) for other in ahead)
        work_s += prefill_bound_s(max_step_tokens, len(submits))
        assert times[one.request_id][0] <= bound_s + work_s
    assert core.cache.pages_held == 0
    core.cache.check_integrity()


@pytest.mark.parametrize("mode", wire.Mode)
def test_a_long_prompt_is_served_beside_a_stream_of_short_ones(mode: wire.Mode) -> None:
    # 300 tokens, 75 ms on the whole device, every 50 ms for 15 s; those that make their target go before the long one
    shorts = [submit(f"s{index}", index * 0.05, 300, 2) for index in range(300)]
    long = submit("l9999", 0.1, 3000, 2)
    core = VirtualCore([*shorts, long], mode, speeds, sms=SMS)
    times = core.run()
    if mode in order.FIRST_COME and mode is not wire.Mode.SOLO_DECODE:
        assert times["l9999"][0] < 6.0
    elif mode is wire.Mode.SOLO_DECODE:  # aged after 1.6 s; 3 s on the smallest lane
        assert times["l9999"][0] < 1.7 + 6.0
    else:  # firm after 3.2 s
        assert times["l9999"][0] < 3.3 + 6.0


@pytest.mark.parametrize("mode", wire.Mode)
def test_a_prompt_is_served_beside_an_endless_answer(mode: wire.Mode) -> None:
    core = VirtualCore([submit("r1", 0.0, 50, 4000), submit("r2", 0.5, 50, 2)], mode, speeds, sms=SMS)
    times = core.run()
    assert times["r2"][0] < 0.5 + order.AGED_TARGETS * TARGET_S + 0.1
    assert times["r1"][-1] > 20.0
