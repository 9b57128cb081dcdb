"""Chunked prefill is an honest rival: its chunk is the best one that keeps the TBT target."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import latency_truth
from drift_engine import wire
from drift_engine.latency import LatencyModel
from drift_engine.latency.loads import Load
from drift_engine.scheduling import fused, planner
from drift_engine.scheduling.views import Lanes
from planner_pictures import Speeds, Unknown, decoding, new, state

SMS = 132
CEILING_TOKENS = 2048

pieces = st.lists(st.tuples(st.integers(1, 3000), st.integers(0, 8000)), min_size=1, max_size=6)


@settings(deadline=None)
@given(rows=st.integers(1, 64), pieces=pieces, allowed_s=st.floats(0.01, 0.3))
def test_the_chunk_is_the_largest_that_keeps_the_time(
    rows: int, pieces: list[tuple[int, int]], allowed_s: float
) -> None:
    latency, decode = LatencyModel(latency_truth.truth), Load.decode(rows, rows * 1000)
    chunk = fused.largest_chunk_tokens(decode, pieces, allowed_s, CEILING_TOKENS, SMS, latency)
    assert chunk is not None

    def pass_s(tokens: int) -> float:
        taken, left = [], tokens
        for new_tokens, reused in pieces:
            if left:
                taken.append((min(new_tokens, left), reused))
                left -= taken[-1][0]
        seconds = latency.pass_s(decode + Load.prefill(taken), SMS)
        assert seconds is not None
        return seconds

    time_s = allowed_s * fused.SLACK_SHARE
    all_tokens = min(CEILING_TOKENS, sum(tokens for tokens, _ in pieces))
    fitting = [tokens for tokens in range(1, all_tokens + 1) if pass_s(tokens) <= time_s]
    if chunk >= all_tokens:
        assert chunk in (CEILING_TOKENS, fused.MIN_CHUNK_TOKENS)
        assert all_tokens in fitting or all_tokens <= fused.MIN_CHUNK_TOKENS
    else:
        assert chunk == max([fused.MIN_CHUNK_TOKENS, *fitting])


@pytest.mark.parametrize("rows", [4, 32])
@pytest.mark.parametrize("tbt_s", [0.02, 0.04, 0.08])
@pytest.mark.parametrize("prompt_tokens", [500, 4000])
def test_no_other_chunk_that_keeps_the_target_prefills_a_prompt_sooner(
    rows: int, tbt_s: float, prompt_tokens: int
) -> None:
    latency, decode = LatencyModel(latency_truth.truth), Load.decode(rows, rows * 1000)

    def prefilled_s(chunk_tokens: int) -> tuple[float, float]:
        """In all, and of the longest pass."""
        done, seconds = 0, []
        while done < prompt_tokens:
            tokens = min(chunk_tokens, prompt_tokens - done)
            step_s = latency.pass_s(decode + Load.prefill([(tokens, done)]), SMS)
            assert step_s is not None
            seconds.append(step_s)
            done += tokens
        return sum(seconds), max(seconds)

    def adaptive_s() -> float:
        done, total_s = 0, 0.0
        while done < prompt_tokens:
            left = [(prompt_tokens - done, done)]
            chunk = fused.largest_chunk_tokens(decode, left, tbt_s, CEILING_TOKENS, SMS, latency)
            assert chunk is not None
            tokens = min(chunk, prompt_tokens - done)
            step_s = latency.pass_s(decode + Load.prefill([(tokens, done)]), SMS)
            assert step_s is not None
            total_s, done = total_s + step_s, done + tokens
        return total_s

    keeping = [
        total_s
        for tokens in range(16, CEILING_TOKENS, 16)
        for total_s, longest_s in [prefilled_s(tokens)]
        if longest_s <= tbt_s * fused.SLACK_SHARE
    ]
    one_pass_s = latency.pass_s(Load.decode(1, 1) + Load.prefill([(1, 0)]), SMS)
    assert one_pass_s is not None
    assert adaptive_s() <= min(keeping) + one_pass_s  # how the last chunk falls may cost one


def test_without_anything_known_a_first_chunk_is_tried() -> None:
    picture = state(waiting=(new("p", 400),), running=(decoding("d", 9),), lanes=Lanes(1), free=1000)
    plan = planner.plan(wire.Mode.FUSED, picture, Unknown(), 0.0)
    assert plan.prefill[0].tokens == fused.FIRST_CHUNK_TOKENS


def test_several_short_prompts_are_not_taken_for_a_long_one() -> None:
    class Square(Speeds):
        def pass_s(self, load: Load, sms: int) -> float | None:
            return 0.01 + 1e-5 * load.new_squared

    prompts = tuple(new(f"p{index}", 40) for index in range(8))
    picture = state(waiting=prompts, running=(decoding("d", 9),), free=1000, max_running=20)
    plan = planner.plan(wire.Mode.FUSED, picture, Square(0, 0), 0.0)
    # 62 ms for squares: three of 40 tokens, 16 ms each, and most of a fourth; of one prompt 78 tokens would be all
    assert sum(chunk.tokens for chunk in plan.prefill) > 150
