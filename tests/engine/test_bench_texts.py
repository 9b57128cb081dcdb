"""Prompts of a wanted length with the sharing of the block ids, and calibration against a tokenizer."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drift_engine.bench import preparing, texts
from drift_engine.bench.preparing import Planned
from drift_engine.bench.texts import Vocabulary, Writer
from drift_engine.bench.traces import Arrival
from stand_in_api import count_tokens

VOCABULARY = texts.choose(dict.fromkeys(texts.CANDIDATES, 1), overhead_tokens=0)


def words_of(text: str) -> list[str]:
    return text.split()


@given(
    first=st.lists(st.integers(0, 40), min_size=1, max_size=6),
    second=st.lists(st.integers(0, 40), min_size=1, max_size=6),
    block_tokens=st.integers(4, 40),
    seed=st.integers(0, 3),
)
def test_common_blocks_are_common_text_and_nothing_else_is(
    first: list[int], second: list[int], block_tokens: int, seed: int
) -> None:
    writer = Writer(VOCABULARY, seed)
    one = words_of(writer.prompt(first, block_tokens, len(first) * block_tokens))
    other = words_of(writer.prompt(second, block_tokens, len(second) * block_tokens))
    shared_blocks = len(
        list(itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))
    )
    shared_words = len(
        list(itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
    )
    assert shared_words == shared_blocks * block_tokens


@given(tokens=st.integers(1, 300), block_tokens=st.integers(1, 64), seed=st.integers(0, 3))
def test_length_is_as_asked_and_the_last_block_is_cut(tokens: int, block_tokens: int, seed: int) -> None:
    ids = range(-(-tokens // block_tokens))
    writer = Writer(VOCABULARY, seed)
    cut = words_of(writer.prompt(ids, block_tokens, tokens))
    whole = words_of(writer.prompt(ids, block_tokens, len(ids) * block_tokens))
    assert len(cut) == tokens
    assert whole[:tokens] == cut


def test_texts_are_fixed_by_seed_and_id() -> None:
    assert Writer(VOCABULARY, 1).prompt([5], 64, 64) == Writer(VOCABULARY, 1).prompt([5], 64, 64)
    assert Writer(VOCABULARY, 1).prompt([5], 64, 64) != Writer(VOCABULARY, 2).prompt([5], 64, 64)


def test_overhead_and_dear_words_count() -> None:
    vocabulary = Vocabulary(words=texts.CANDIDATES[:20], word_tokens=2, overhead_tokens=1)
    assert len(words_of(Writer(vocabulary, 0).prompt([1], 101, 101))) == 50
    assert len(words_of(Writer(vocabulary, 0).prompt([1], 1, 1))) == 1


def test_the_cheapest_big_class_is_chosen() -> None:
    costs = {f" w{i}": 1 if i < 3 else 2 if i < 30 else 3 for i in range(90)}
    chosen = texts.choose(costs, overhead_tokens=1)
    assert (len(chosen.words), chosen.word_tokens, chosen.overhead_tokens) == (27, 2, 1)


class Tokenizer:
    """Counts as the stand-in server does, and how often it was asked."""

    def __init__(self, *, able: bool = True) -> None:
        self.asked = 0
        self._able = able

    async def __call__(self, text: str) -> int | None:
        self.asked += 1
        return count_tokens(text) if self._able else None


def test_calibration_finds_single_token_words_and_the_overhead() -> None:
    vocabulary = asyncio.run(preparing.calibrate(Tokenizer()))
    assert (vocabulary.word_tokens, vocabulary.overhead_tokens, vocabulary.measured) == (1, 1, True)
    assert all(len(word) <= 5 for word in vocabulary.words)
    text = Writer(vocabulary, 0).prompt(range(4), 100, 350)
    assert count_tokens(text) == 350


def test_calibration_asks_little_when_every_word_is_one_token() -> None:
    asked: list[str] = []

    async def count(text: str) -> int:
        asked.append(text)
        return len(text.split())

    vocabulary = asyncio.run(preparing.calibrate(count))
    assert len(asked) == 3
    assert vocabulary.words == texts.CANDIDATES


def test_without_a_tokenizer_words_have_four_characters() -> None:
    vocabulary = asyncio.run(preparing.calibrate(Tokenizer(able=False)))
    assert not vocabulary.measured
    assert len(Writer(vocabulary, 0).prompt([0], 100, 100)) == 400


def made(prompt: int, output: int, text: str | None = None) -> Arrival:
    return Arrival(index=0, at_s=0, prompt_tokens=prompt, output_tokens=output, text=text)


@pytest.mark.parametrize(
    ("prompt", "output", "expected"),
    [
        (90, 10, (90, 10, False, False)),
        (95, 10, (90, 10, True, False)),
        (95, 80, (50, 50, True, True)),
        (10, 95, (10, 50, False, True)),
    ],
)
def test_clipping_leaves_room_for_both(
    prompt: int, output: int, expected: tuple[int, int, bool, bool]
) -> None:
    plan = preparing.fit([made(prompt, output)], 100, "clip", measured=True)
    planned = plan.planned[0]
    got = (
        planned.arrival.prompt_tokens,
        planned.arrival.output_tokens,
        planned.clipped_prompt,
        planned.clipped_output,
    )
    assert got == expected
    assert plan.skipped == 0


def test_skipping_counts() -> None:
    plan = preparing.fit([made(90, 10), made(95, 10)], 100, "skip", measured=True)
    assert (len(plan.planned), plan.skipped) == (1, 1)
    assert len(preparing.fit([made(10**6, 10)], None, "skip", measured=True).planned) == 1


def test_recorded_texts_are_measured_and_cut_to_their_beginning() -> None:
    tokenizer = Tokenizer()
    text = " abc" * 300
    arrivals = asyncio.run(
        preparing.measure_texts(
            [Arrival(index=0, at_s=0, text=text, output_text=" abc" * 20)], tokenizer, VOCABULARY
        )
    )
    assert (arrivals[0].prompt_tokens, arrivals[0].output_tokens) == (301, 21)
    plan = preparing.fit(arrivals, 100, "clip", measured=True)
    planned: Planned = asyncio.run(preparing.cut_texts(plan, tokenizer, VOCABULARY)).planned[0]
    assert text.startswith(planned.arrival.text or "-")
    assert 60 <= count_tokens(planned.arrival.text or "") <= planned.arrival.prompt_tokens == 79
