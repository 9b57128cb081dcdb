"""Simulated prompts: tokens are equal where the trace says so, and nowhere else."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from drift_engine.bench import shaping, traces
from drift_engine.bench.traces import Arrival
from drift_engine.simulation import prompts

TRACES = Path(__file__).parents[1] / "support" / "traces"


def shared(one: list[int], other: list[int]) -> int:
    """Tokens that both begin with."""
    return next(
        (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )


@st.composite
def blocks(draw: st.DrawFn, size: int) -> Arrival:
    ids = draw(st.lists(st.integers(0, 3), min_size=1, max_size=6))
    last = draw(st.integers(1, size))
    return Arrival(0, 0.0, (len(ids) - 1) * size + last, 1, tuple(ids), size)


@given(st.data(), st.integers(1, 8))
def test_prompts_share_as_many_tokens_as_blocks(data: st.DataObject, size: int) -> None:
    one, other = data.draw(blocks(size)), data.draw(blocks(size))
    tokens = [prompts.token_ids(arrival) for arrival in (one, other)]
    assert [len(ids) for ids in tokens] == [one.prompt_tokens, other.prompt_tokens]
    same = shared(list(one.block_ids), list(other.block_ids))
    assert shared(*tokens) == min(same * size, *(len(ids) for ids in tokens))


def test_recorded_blocks() -> None:
    """As many of a conversation's tokens are the same as whole blocks, at any length scale."""
    trace = traces.read(TRACES / "mooncake_conversation_piece.jsonl")
    for scale in (1.0, 0.1):
        arrivals = shaping.shape(trace, shaping.Shape(length_scale=scale))
        first = prompts.token_ids(arrivals[0])
        for arrival in arrivals[1:]:
            tokens = prompts.token_ids(arrival)
            assert len(tokens) == arrival.prompt_tokens
            blocks = shared(list(arrivals[0].block_ids), list(arrival.block_ids))
            assert shared(first, tokens) == min(blocks * arrival.block_tokens, len(first), len(tokens))
            assert all(0 <= token < 2**31 for token in tokens)


def test_requests_of_a_trace_without_blocks_share_nothing() -> None:
    arrivals = traces.read(TRACES / "azure2023_conversation_piece.csv").arrivals
    synthetic = shaping.poisson(rate_rps=1, requests=50, prompt_tokens=30, output_tokens=5, seed=0)
    for requests in (arrivals, synthetic):
        beginnings = {prompts.token_ids(arrival)[0] for arrival in requests}
        assert len(beginnings) == len(requests)


@settings(max_examples=30)
@given(st.text(max_size=20), st.text(max_size=20), st.text(max_size=20))
def test_texts_that_begin_alike_share_tokens(stem: str, one: str, other: str) -> None:
    ids = [prompts.token_ids(Arrival(0, 0.0, text=stem + end)) for end in (one, other)]
    assert shared(*ids) >= len(stem.encode()) // prompts.TEXT_BYTES_PER_TOKEN
    assert [len(tokens) for tokens in ids] == [-(-len((stem + end).encode()) // 4) for end in (one, other)]


def test_texts_are_tokens_of_four_bytes() -> None:
    assert prompts.token_ids(Arrival(0, 0.0, text="abcd")) == [0x64636261]
    assert prompts.token_ids(Arrival(0, 0.0, text="abcde")) == [0x64636261, 0x20202065]


def test_answers_have_at_least_one_token() -> None:
    assert prompts.output_tokens(Arrival(0, 0.0, text="a", output_text="")) == 1
    assert prompts.output_tokens(Arrival(0, 0.0, text="a", output_text="12345")) == 2
    assert prompts.output_tokens(Arrival(0, 0.0, 10, 0)) == 1
    assert prompts.output_tokens(Arrival(0, 0.0, 10, 7)) == 7
