"""The index against a plain account of what it was told."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from drift_engine import hashing
from drift_router.index import blocks, histories, prefixes, promises
from drift_router.index.hints import Hints
from drift_router.index.prefixes import PrefixIndex
from drift_router.snapshots import IndexState

TOKEN_BYTES, PAGE_TOKENS = 4, 16
PAGE_BYTES = TOKEN_BYTES * PAGE_TOKENS
ROOMY_BYTES = 1 << 24
ROOT = blocks.root(b"model")
SLOTS = st.sampled_from([0, 1, 5, 40])


class Prompt(NamedTuple):
    blocks: blocks.Blocks
    pages: list[int]

    @property
    def hints(self) -> Hints:
        """As a node gives them: every page of the sample."""
        return self.hints_of([index for index, name in enumerate(self.pages) if name % hashing.SAMPLE == 0])

    def hints_of(self, indices: list[int]) -> Hints:
        tokens = self.blocks.text_bytes // TOKEN_BYTES
        return Hints(PAGE_TOKENS, tokens, 0, indices, [self.pages[index] for index in indices])


def prompt(text: bytes) -> Prompt:
    """A tokenizer that takes four bytes at a time, and a node's pages of its tokens."""
    chain = [hashing.root_hash("")]
    for end in range(PAGE_BYTES, len(text) + 1, PAGE_BYTES):
        chain.append(hashing.block_hash(chain[-1], text[end - PAGE_BYTES : end]))
    return Prompt(blocks.split(text, ROOT), chain[1:])


def noise(seed: int, length: int) -> bytes:
    return random.Random(seed).randbytes(length)


SYSTEM = noise(0, 1500)
TURNS = SYSTEM + noise(1, 900)
PROMPTS = [
    prompt(text)
    for text in (
        SYSTEM,
        TURNS,
        TURNS + noise(2, 5000),
        TURNS + noise(3, 444),
        SYSTEM + noise(4, 2000),
        noise(5, 3000),
        noise(6, 40),
    )
]
ANY_PROMPT = st.sampled_from(PROMPTS)


def common(one: Sequence[int], other: Sequence[int]) -> int:
    return next(
        (index for index, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]),
        min(len(one), len(other)),
    )


class Account:
    """What the index may and must say, by looking at everything."""

    def __init__(self) -> None:
        self.ties: dict[int, int] = {}
        self.pages: dict[int, set[int]] = {}
        self.sent: dict[int, list[tuple[float, list[int]]]] = {}
        self.history: dict[int, list[list[int]]] = {}
        self.states: dict[int, IndexState] = {}

    def learn(self, learned: Prompt) -> None:
        found = learned.hints
        ends = [Fraction((index + 1) * PAGE_BYTES) for index in found.indices]
        if not ends:
            return
        places = [-1, *found.indices]
        widest = max(b - a for a, b in itertools.pairwise(places))
        reach = ends[-1] + max(widest, prefixes.REACH_PAGES) * PAGE_BYTES
        for name, end in zip(learned.blocks.names, learned.blocks.ends, strict=True):
            if end <= reach:
                self.ties[name] = found.names[max(0, sum(page_end <= end for page_end in ends) - 1)]

    def exact(self, slot: int, names: list[int]) -> int:
        held = self.pages.get(slot, set())
        return max((depth for depth, name in enumerate(names, 1) if self.ties.get(name) in held), default=0)

    def promised(self, slot: int, names: list[int], since_s: float) -> int:
        shared = [common(names, other) for sent_s, other in self.sent.get(slot, []) if sent_s >= since_s]
        return max(shared, default=0)

    def remembered(self, slot: int, names: list[int]) -> int:
        return max((common(names, other) for other in self.history.get(slot, [])), default=0)


class IndexMachine(RuleBasedStateMachine):
    limit_bytes = ROOMY_BYTES

    @initialize()
    def begin(self) -> None:
        self.index = PrefixIndex(self.limit_bytes)
        self.account = Account()
        self.now_s = 1000.0

    @rule(learned=ANY_PROMPT)
    def learn(self, learned: Prompt) -> None:
        self.index.learned(learned.blocks, learned.hints)
        self.account.learn(learned)

    @rule(slot=SLOTS, stored=ANY_PROMPT, count=st.integers(0, 120))
    def store(self, slot: int, stored: Prompt, count: int) -> None:
        self.index.stored(slot, stored.pages[:count])
        self.account.pages.setdefault(slot, set()).update(stored.pages[:count])

    @rule(slot=SLOTS, gone=ANY_PROMPT, first=st.integers(0, 120), count=st.integers(0, 120))
    def remove(self, slot: int, gone: Prompt, first: int, count: int) -> None:
        pages = gone.pages[first : first + count]
        self.index.removed(slot, pages)
        self.account.pages.setdefault(slot, set()).difference_update(pages)

    @rule(slot=SLOTS)
    def clear(self, slot: int) -> None:
        self.index.cleared(slot)
        self.account.pages.pop(slot, None)

    @rule(slot=SLOTS, held=st.lists(ANY_PROMPT, max_size=3))
    def restore(self, slot: int, held: list[Prompt]) -> None:
        pages = [page for each in held for page in each.pages]
        self.index.restore(slot, iter(pages))
        self.account.pages[slot] = set(pages)
        self.account.history.pop(slot, None)
        self.account.states[slot] = IndexState.EXACT

    @rule(slot=SLOTS)
    def lose(self, slot: int) -> None:
        self.index.lost(slot)
        self.account.states[slot] = IndexState.DEGRADED

    @rule(slot=SLOTS)
    def fall_silent(self, slot: int) -> None:
        self.index.silent(slot)
        if self.account.states.pop(slot, None) is not None:
            self.account.pages.pop(slot, None)

    @rule(slot=SLOTS)
    def forget(self, slot: int) -> None:
        self.index.forget(slot)
        for table in (self.account.pages, self.account.sent, self.account.history, self.account.states):
            table.pop(slot, None)

    @rule(slot=SLOTS, sent=ANY_PROMPT)
    def send(self, slot: int, sent: Prompt) -> None:
        names = sent.blocks.names
        self.index.sent(slot, names, self.now_s)
        state = self.account.states.get(slot, IndexState.FALLBACK)
        if state is not IndexState.FALLBACK:
            self.account.sent.setdefault(slot, []).append((self.now_s, names))
        if state is not IndexState.EXACT:
            self.account.history.setdefault(slot, []).append(names)

    @rule(seconds=st.sampled_from([0.5, 2.0, 4.9, 5.0, 7.0, 11.0]))
    def wait(self, seconds: float) -> None:
        self.now_s += seconds

    @invariant()
    def says_what_it_was_told(self) -> None:
        for each in PROMPTS:
            names = each.blocks.names
            found = self.index.match(names, self.now_s)
            assert all(found.values())
            for slot in (0, 1, 5, 40):
                lasting = self.account.promised(slot, names, self.now_s - 2 * promises.LASTS_S)
                certain = max(self.account.exact(slot, names), self.account.remembered(slot, names))
                assert found.get(slot, 0) <= max(certain, lasting), "claims what nobody told it"
                if self.limit_bytes == ROOMY_BYTES:
                    fresh = self.account.promised(slot, names, self.now_s - promises.LASTS_S + 1e-6)
                    assert found.get(slot, 0) >= max(certain, fresh), "forgot what it was told"

    @invariant()
    def knows_how_well_it_knows(self) -> None:
        for slot in (0, 1, 5, 40):
            assert self.index.state(slot) == self.account.states.get(slot, IndexState.FALLBACK)

    @invariant()
    def keeps_its_limit(self) -> None:
        assert 0 <= self.index.held_bytes <= self.limit_bytes


class TightIndexMachine(IndexMachine):
    """No room for all of it."""

    limit_bytes = prefixes.LEAST_LIMIT_BYTES


SETTINGS = settings(max_examples=50, stateful_step_count=30, deadline=None)
TestIndex = IndexMachine.TestCase
TestIndex.settings = SETTINGS
TestTightIndex = TightIndexMachine.TestCase
TestTightIndex.settings = SETTINGS


def test_a_text_learned_from_one_node_finds_the_pages_of_all() -> None:
    index, known = PrefixIndex(ROOMY_BYTES), PROMPTS[2]
    index.restore(0, known.pages)
    index.restore(1, known.pages[: len(known.pages) // 2])
    assert index.match(known.blocks.names, 0.0) == {}
    index.learned(known.blocks, known.hints)
    found = index.match(known.blocks.names, 0.0)
    assert found[0] == len(known.blocks.names)
    half_bytes = known.blocks.text_bytes / 2
    reached_bytes = known.blocks.ends[found[1] - 1]
    assert abs(reached_bytes - half_bytes) <= prefixes.REACH_PAGES * PAGE_BYTES


def test_blocks_far_behind_the_last_named_page_are_not_its() -> None:
    index, known = PrefixIndex(ROOMY_BYTES), PROMPTS[2]
    first_pages = known.hints.indices[0] + 1
    index.learned(known.blocks, known.hints_of([first_pages - 1]))
    index.restore(0, known.pages[:first_pages])
    depth = index.match(known.blocks.names, 0.0)[0]
    reach_pages = first_pages + max(first_pages, prefixes.REACH_PAGES)
    assert known.blocks.ends[depth - 1] <= reach_pages * PAGE_BYTES < known.blocks.text_bytes


def test_evenly_thinned_names_reach_as_far_as_their_gaps() -> None:
    long = prompt(noise(7, 60_000))
    index = PrefixIndex(ROOMY_BYTES)
    index.learned(long.blocks, long.hints_of(long.hints.indices[::40]))
    index.restore(0, long.pages)
    assert index.match(long.blocks.names, 0.0)[0] >= len(long.blocks.names) - 12


def test_the_oldest_texts_go_first_and_their_ends_before_their_beginnings() -> None:
    texts = [prompt(noise(100 + seed, 2048)) for seed in range(40)]
    index = PrefixIndex(prefixes.LEAST_LIMIT_BYTES)
    index.restore(0, (page for each in texts for page in each.pages))
    for each in texts:
        index.learned(each.blocks, each.hints)
    depths = [index.match(each.blocks.names, 0.0).get(0, 0) for each in texts]
    assert depths[0] == 0
    assert depths[-1] > 0
    assert index.held_bytes <= prefixes.LEAST_LIMIT_BYTES


def test_more_pages_than_fit_are_known_more_coarsely_but_not_wrongly() -> None:
    texts = [prompt(noise(200 + seed, 4096)) for seed in range(100)]
    index = PrefixIndex(prefixes.LEAST_LIMIT_BYTES)
    index.restore(3, (page for each in texts for page in each.pages))
    assert index.held_bytes <= prefixes.LEAST_LIMIT_BYTES
    last = texts[-1]
    index.learned(last.blocks, last.hints)
    assert index.match(last.blocks.names, 0.0).get(3, 0) > 0
    index.removed(3, last.pages)
    assert index.match(last.blocks.names, 0.0) == {}


def test_a_history_is_as_long_as_the_cache_that_it_stands_for() -> None:
    old, new = prompt(noise(8, 2048)), prompt(noise(9, 2048))
    index = PrefixIndex(ROOMY_BYTES)
    index.capacity(0, 3072)
    for each in (old, new):
        index.sent(0, each.blocks.names, 0.0)
        index.sent(1, each.blocks.names, 0.0)
    assert index.match(new.blocks.names, 1e9) == {0: 20, 1: 20}
    assert index.match(old.blocks.names, 1e9) == {0: 16, 1: 20}, "its end goes first, its beginning stays"


def test_histories_of_many_nodes_share_their_part_of_the_limit() -> None:
    index = PrefixIndex(1 << 20)
    for slot in range(8):
        for seed in range(10):
            index.sent(slot, prompt(noise(1000 * slot + seed, 4096)).blocks.names, 0.0)
    assert index.held_bytes <= 1 << 18
    lengths = [len(index.match(prompt(noise(1000 * slot + 9, 4096)).blocks.names, 0.0)) for slot in range(8)]
    assert lengths == [1] * 8
    assert histories.DEFAULT_CAPACITY_BYTES > 10 * 4096


def test_a_limit_that_nothing_fits_in_is_refused() -> None:
    with pytest.raises(ValueError, match="limit_bytes: 1000 is below 65536"):
        PrefixIndex(1000)
