"""Constrained generation inside the core."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer

import core_harness
from core_harness import Harness
from drift_engine import wire
from drift_engine.models.transformer import Transformer

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Transformer, Path]:
    return core_harness.tiny_model(tmp_path_factory.mktemp("models"))


def constrained(grammar: wire.Grammar, **fields: object) -> wire.Sampling:
    return wire.Sampling(max_tokens=120, temperature=1.0, seed=3, grammar=grammar, **fields)  # type: ignore[arg-type]


def text(folder: Path, token_ids: list[int]) -> str:
    decoded: str = Tokenizer.from_file(str(folder / "tokenizer.json")).decode(token_ids)
    return decoded


def test_a_random_model_writes_valid_json(model: tuple[Transformer, Path]) -> None:
    with Harness(*model) as harness:
        harness.submit(
            "a", [5, 6, 7], constrained(wire.Grammar(wire.GrammarKind.JSON_SCHEMA, json.dumps(SCHEMA)))
        )
        harness.run()
        answer = harness.answers["a"]
        assert answer.finish is wire.FinishReason.STOP
        value = json.loads(text(model[1], answer.token_ids))
        assert set(value) == {"name", "age"}


def test_a_regex_bounds_the_answer(model: tuple[Transformer, Path]) -> None:
    with Harness(*model) as harness:
        harness.submit("a", [5], constrained(wire.Grammar(wire.GrammarKind.REGEX, "(yes|no)")))
        harness.run()
        assert text(model[1], harness.answers["a"].token_ids) in ("yes", "no")


def test_a_grammar_that_can_not_be_compiled_ends_only_its_request(model: tuple[Transformer, Path]) -> None:
    with Harness(*model) as harness:
        harness.submit("bad", [5], constrained(wire.Grammar(wire.GrammarKind.REGEX, "(unclosed")))
        harness.submit("good", [5], core_harness.greedy(3))
        harness.run()
        assert harness.answers["bad"].finish is wire.FinishReason.ABORTED
        assert "grammar" in (harness.answers["bad"].error or "")
        assert len(harness.answers["good"].token_ids) == 3


def test_constrained_and_free_rows_share_a_batch(model: tuple[Transformer, Path]) -> None:
    free = core_harness.greedy(8)
    expected = core_harness.alone(*model, [("free", [9, 8, 7], free)])
    with Harness(*model) as harness:
        harness.submit("free", [9, 8, 7], free)
        harness.submit("bound", [5], constrained(wire.Grammar(wire.GrammarKind.REGEX, "[ab]{20}")))
        harness.run()
        assert harness.answers["free"].token_ids == expected["free"]
