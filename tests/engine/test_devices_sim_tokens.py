"""What a simulated model says: decided by every token before, and by nothing else that a request may meet."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import sim_core
from drift_engine.devices.sim_tokens import MEAN_ANSWER_TOKENS, CountedTokens, PagedTokens
from drift_engine.errors import DeviceError
from sim_core import WORDS, alone, ids, row

SIZE = 4
EOS = 5
PROMPT = list(range(10, 21))


def paged(vocabulary: range = WORDS, eos: tuple[int, ...] = ()) -> PagedTokens:
    return PagedTokens(SIZE, vocabulary, eos)


def pages_for(tokens: int) -> int:
    return -(-tokens // SIZE)


def mask(*allowed: int, vocabulary: int = 64) -> NDArray[np.int32]:
    bits = np.zeros(vocabulary, dtype=np.uint8)
    bits[list(allowed)] = 1
    return np.packbits(bits, bitorder="little").view(np.int32)


def first(tokens: PagedTokens, prompt: list[int], **asked: Any) -> int:
    whole = row(prompt, range(pages_for(len(prompt))), **asked)
    tokens.write(whole)
    (one,) = tokens.draw(whole, 1)
    return one.token_id


@given(
    prompt=st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=30),
    order=st.permutations(range(24)),
    cuts=st.sets(st.integers(1, 29)),
    steps=st.lists(st.integers(1, 5), min_size=1, max_size=6),
)
def test_the_same_tokens_however_they_are_computed(
    prompt: list[int], order: list[int], cuts: set[int], steps: list[int]
) -> None:
    """In pieces, in any pages, one or several steps at a time."""
    expected = alone(prompt, sum(steps), SIZE)
    tokens, answer = paged(), list(prompt)
    edges = [0, *sorted(cut for cut in cuts if cut < len(prompt)), len(prompt)]
    for start, stop in itertools.pairwise(edges):
        piece = row(prompt[start:stop], order, start=start, last=stop == len(prompt))
        tokens.write(piece)
        if stop == len(prompt):
            answer += ids(tokens.draw(piece, 1))
    for count in steps:
        step = row(answer[-1:], order, start=len(answer) - 1)
        tokens.write(step)
        answer += ids(tokens.draw(step, count))
    assert answer[len(prompt) :][: len(expected)] == expected


@given(
    stem=st.lists(st.integers(0, 9), min_size=SIZE, max_size=20),
    tails=st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=6), min_size=1, max_size=5),
)
def test_reused_pages_say_the_same(stem: list[int], tails: list[list[int]]) -> None:
    tokens = paged()
    shared = len(stem) // SIZE
    tokens.write(row(stem, range(pages_for(len(stem))), last=False))
    for index, tail in enumerate(tails):
        prompt, own = stem + tail, 100 * (index + 1)
        pages = [*range(shared), *range(own, own + 20)]
        piece = row(prompt[shared * SIZE :], pages, start=shared * SIZE)
        tokens.write(piece)
        assert ids(tokens.draw(piece, 6)) == alone(prompt, 6, SIZE)


def test_every_token_before_counts() -> None:
    seen = {tuple(alone(PROMPT, 3))}
    for place in range(len(PROMPT)):
        seen.add(tuple(alone([*PROMPT[:place], 999, *PROMPT[place + 1 :]], 3)))
    seen.add(tuple(alone(PROMPT[1:], 3)))
    seen.add(tuple(alone([*PROMPT, 999], 3)))
    assert len(seen) == len(PROMPT) + 3


def test_pages_are_rewritten_for_the_next_request() -> None:
    tokens = paged()
    first(tokens, PROMPT)
    assert first(tokens, PROMPT[::-1]) == alone(PROMPT[::-1], 1)[0]
    assert first(tokens, PROMPT[:3]) == alone(PROMPT[:3], 1)[0]


@pytest.mark.parametrize("start", [1, 4, 6, 8])
def test_a_page_that_was_never_written_is_noticed(start: int) -> None:
    with pytest.raises(DeviceError, match=r"page \d+ holds 0 tokens"):
        paged().write(row([1], range(4), start=start))
    half = paged()
    half.write(row(PROMPT[:2], range(4), last=False))
    if start > 1:
        with pytest.raises(DeviceError, match=r"page 0 holds 2 tokens|page 1 holds 0 tokens"):
            half.write(row([1], range(4), start=start))


@pytest.mark.parametrize("foreign", [0, 1, 2])
@pytest.mark.parametrize("start", [9, 12, 13])
def test_a_page_of_somebody_else_is_heard(foreign: int, start: int) -> None:
    """One of the pages before holds another request's tokens: it fails, or other tokens come with the next page."""
    prompt = list(range(50, 66))
    tokens = paged()
    tokens.write(row(prompt[:start], range(4), last=False))
    thief = [100, 101, 102, 103] * 3
    # As if the page had been given away: the thief's own pages but for this one.
    tokens.write(
        row(thief, [foreign if index == foreign else 50 + index for index in range(3)], last=False, name="t")
    )
    if start == 9 and foreign == 2:  # the thief has filled the page that we write to
        with pytest.raises(DeviceError, match="page 2"):
            tokens.write(row(prompt[start:], range(5), start=start))
        return
    with pytest.raises(DeviceError, match=r"page \d holds what does not follow"):
        tokens.write(row(prompt[start:], range(5), start=start))


def test_a_stolen_page_is_heard_while_decoding() -> None:
    tokens, answer = paged(), list(PROMPT)
    whole = row(PROMPT, range(8))
    tokens.write(whole)
    answer += ids(tokens.draw(whole, 1))
    tokens.write(row([1, 2, 3], [0], last=False, name="thief"))
    step = row(answer[-1:], range(8), start=len(answer) - 1)
    tokens.write(step)
    with pytest.raises(DeviceError, match="page 0"):
        tokens.draw(step, SIZE + 1)


def test_a_grammar_is_obeyed() -> None:
    seen = {first(paged(), [*PROMPT, index], bitmask=mask(3, 40, 63)) for index in range(40)}
    assert seen == {3, 40, 63}


def test_a_grammar_may_allow_ends_that_are_not_words() -> None:
    assert first(paged(eos=(EOS,)), PROMPT, bitmask=mask(EOS), ignore_eos=False) == EOS


def test_banned_tokens_do_not_come() -> None:
    words = range(30, 33)
    allowed = {first(paged(words), [*PROMPT, index], banned=(31,)) for index in range(40)}
    assert allowed == {30, 32}
    masked = {
        first(paged(words), [*PROMPT, index], banned=(31,), bitmask=mask(31, 50)) for index in range(20)
    }
    assert masked == {50}
    unbanned = [first(paged(words), [*PROMPT, index]) for index in range(40)]
    changed = [first(paged(words), [*PROMPT, index], banned=(31,)) for index in range(40)]
    assert all(now == before for before, now in zip(unbanned, changed, strict=True) if before != 31)


def test_a_grammar_that_allows_only_what_is_banned_wins() -> None:
    """A complete answer before min_tokens: a token must come, and the node must not fail."""
    assert first(paged(eos=(EOS,)), PROMPT, banned=(EOS,), bitmask=mask(EOS)) == EOS


def test_answers_end_by_themselves_unless_told_otherwise() -> None:
    prompts = [[*PROMPT, index] for index in range(40 * MEAN_ANSWER_TOKENS)]
    ended = sum(first(paged(eos=(EOS,)), prompt, ignore_eos=False) == EOS for prompt in prompts)
    assert abs(ended - 40) < 5 * math.sqrt(40)
    ends = [
        p for p in prompts[: 4 * MEAN_ANSWER_TOKENS] if first(paged(eos=(EOS,)), p, ignore_eos=False) == EOS
    ]
    assert ends
    for prompt in ends:
        assert first(paged(eos=(EOS,)), prompt) in WORDS
        assert first(paged(eos=(EOS,)), prompt, ignore_eos=False, banned=(EOS,)) in WORDS


def test_log_probabilities_come_where_asked() -> None:
    tokens = paged()
    whole = row(PROMPT, range(4), logprobs=2)
    tokens.write(whole)
    (one,) = tokens.draw(whole, 1)
    assert one.logprobs is not None
    assert one.logprobs.top_ids[0] == one.token_id


def test_counted_tokens_are_nobody_elses() -> None:
    tokens = CountedTokens()
    drawn = {name: ids(tokens.draw(row(PROMPT, range(4), name=name), 3)) for name in map(str, range(500))}
    assert all(len(three) == 3 and len(set(three)) == 1 for three in drawn.values())
    assert len({three[0] for three in drawn.values()}) == 500
    assert all(-(2**31) <= three[0] < 0 for three in drawn.values())
    assert sim_core.ids(tokens.draw(row([1], range(4), name="0"), 1)) == drawn["0"][:1]


def test_long_prompts_are_written_in_one_go() -> None:
    """Each page is looked at once, not all before it for each: this would take minutes."""
    prompt = list(range(131_072))
    tokens = PagedTokens(1, WORDS, ())
    whole = row(prompt, range(len(prompt)))
    tokens.write(whole)
    assert len(tokens.draw(whole, 1)) == 1
