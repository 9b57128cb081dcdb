"""How answers end and what they carry."""

from __future__ import annotations

from pathlib import Path

import pytest

import core_harness
from core_harness import Harness
from drift_engine import wire
from drift_engine.models.transformer import Transformer


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Transformer, Path]:
    return core_harness.tiny_model(tmp_path_factory.mktemp("models"))


def first_tokens(model: tuple[Transformer, Path], prompt: list[int], count: int) -> list[int]:
    return core_harness.alone(*model, [("x", prompt, core_harness.greedy(count))])["x"]


def test_max_tokens_ends_with_length(model: tuple[Transformer, Path]) -> None:
    with Harness(*model) as harness:
        harness.submit("a", [1, 2, 3], core_harness.greedy(5))
        harness.run()
        assert len(harness.answers["a"].token_ids) == 5
        assert harness.answers["a"].finish is wire.FinishReason.LENGTH


def test_the_context_limit_ends_with_length(model: tuple[Transformer, Path]) -> None:
    with Harness(*model, pages=8) as harness:  # 32 tokens
        harness.submit("a", list(range(28)), core_harness.greedy(100))
        harness.run()
        assert harness.answers["a"].finish is wire.FinishReason.LENGTH
        assert len(harness.answers["a"].token_ids) == 4


def test_a_stop_token_ends_and_is_named(model: tuple[Transformer, Path]) -> None:
    tokens = first_tokens(model, [1, 2, 3], 6)
    stop = tokens[3]
    with Harness(*model) as harness:
        harness.submit("a", [1, 2, 3], core_harness.greedy(20, stop_token_ids=(stop,)))
        harness.run()
        answer = harness.answers["a"]
        assert answer.finish is wire.FinishReason.STOP
        assert answer.stop_token == stop
        assert answer.token_ids == tokens[: tokens.index(stop) + 1]


def test_a_stop_token_can_not_come_before_min_tokens(model: tuple[Transformer, Path]) -> None:
    stop = first_tokens(model, [1, 2, 3], 1)[0]
    with Harness(*model) as harness:
        harness.submit("a", [1, 2, 3], core_harness.greedy(20, stop_token_ids=(stop,), min_tokens=5))
        harness.run()
        assert stop not in harness.answers["a"].token_ids[:5]


def test_log_probabilities_come_with_every_token(model: tuple[Transformer, Path]) -> None:
    with Harness(*model) as harness:
        harness.submit("a", [1, 2, 3], core_harness.greedy(4, logprobs=3))
        harness.submit("b", [1, 2, 3], core_harness.greedy(4))
        harness.run()
        answer = harness.answers["a"]
        assert len(answer.logprobs) == 4
        for token_id, logprobs in zip(answer.token_ids, answer.logprobs, strict=True):
            assert logprobs.top_ids[0] == token_id
            assert logprobs.top_logprobs[0] == pytest.approx(logprobs.logprob)
            assert len(logprobs.top_ids) == 3
        assert harness.answers["b"].logprobs == []


def test_a_prompt_beyond_the_limit_is_refused_with_both_lengths(model: tuple[Transformer, Path]) -> None:
    with Harness(*model, pages=8) as harness:
        harness.submit("a", list(range(32)), core_harness.greedy(1))
        harness.run()
        assert harness.answers["a"].finish is wire.FinishReason.ABORTED
        assert "32 tokens" in (harness.answers["a"].error or "")
        assert "31" in (harness.answers["a"].error or "")


def test_counters_add_up(model: tuple[Transformer, Path]) -> None:
    with Harness(*model) as harness:
        for name in ("a", "b"):
            harness.submit(name, list(range(40)), core_harness.greedy(5))
            harness.run()
        assert harness.stats is not None
        assert harness.stats.prompt_tokens_total == 80
        assert harness.stats.cached_tokens_total == 36
        assert harness.stats.computed_prompt_tokens_total == 44
        assert harness.stats.generation_tokens_total == 10


def test_kv_events_are_numbered_without_gaps(model: tuple[Transformer, Path]) -> None:
    with Harness(*model, pages=16) as harness:
        for index in range(6):
            harness.submit(str(index), list(range(index, index + 30)), core_harness.greedy(3))
            harness.run()
        batches = [m for m in harness.mailbox.sent if isinstance(m, wire.KvEvents)]
        expected = 1
        for batch in batches:
            assert batch.sequence == expected
            expected += len(batch.events)
        assert any(isinstance(event, wire.Removed) for batch in batches for event in batch.events)
