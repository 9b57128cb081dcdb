"""Names of text: as many in common as there is text in common."""

from __future__ import annotations

import itertools
import os

from hypothesis import given
from hypothesis import strategies as st

from drift_router.index import blocks

LENGTHS = st.one_of(
    st.integers(0, 300), st.integers(900, 1500), st.integers(16_000, 18_500), st.integers(0, 100_000)
)
NOISE = os.urandom(200_000)  # any bytes will do: the properties hold for all
ROOT = blocks.root(b"tenant", b"model")


def common(one: list[int], other: list[int]) -> int:
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


@given(LENGTHS, LENGTHS, LENGTHS)
def test_names_are_shared_up_to_the_last_full_common_block(shared: int, one: int, other: int) -> None:
    prefix = NOISE[:shared]
    first = blocks.split(prefix + b"a" + NOISE[:one], ROOT)
    second = blocks.split(prefix + b"b" + NOISE[:other], ROOT)
    expected = sum(end <= shared for end in first.ends)
    assert common(first.names, second.names) == expected
    assert not set(first.names[expected:]) & set(second.names)
    assert first.ends[:expected] == second.ends[:expected]


@given(LENGTHS)
def test_only_full_blocks_have_names(length: int) -> None:
    split = blocks.split(NOISE[:length], ROOT)
    assert len(split.names) == len(split.ends)
    assert split.text_bytes == length
    assert all(end <= length for end in split.ends)
    covered = split.ends[-1] if split.ends else 0
    assert length - covered < (64 if covered < 1024 else 256 if covered < 16384 else 1024)


def test_text_beyond_the_longest_has_no_names() -> None:
    split = blocks.split(bytes(blocks.LONGEST_TEXT_BYTES + 5000), ROOT)
    assert split.ends[-1] == blocks.LONGEST_TEXT_BYTES
    assert split.text_bytes == blocks.LONGEST_TEXT_BYTES + 5000


def test_a_chain_depends_on_its_root() -> None:
    text = NOISE[:5000]
    assert not set(blocks.split(text, ROOT).names) & set(blocks.split(text, blocks.root(b"other")).names)


@given(st.lists(st.binary(max_size=4), max_size=4), st.lists(st.binary(max_size=4), max_size=4))
def test_parts_of_a_root_do_not_run_into_each_other(one: list[bytes], other: list[bytes]) -> None:
    assert (blocks.root(*one) == blocks.root(*other)) == (one == other)


def test_requests_meet_by_their_beginning() -> None:
    text = NOISE[: blocks.BEGINNING_BYTES]
    assert blocks.beginning(text + b"one user", ROOT) == blocks.beginning(text + b"another", ROOT)
    assert blocks.beginning(b"short", ROOT) != blocks.beginning(b"other", ROOT)
    assert blocks.beginning(text, ROOT) != blocks.beginning(text, blocks.root(b"other tenant"))
