"""KvCache against a model too simple to be wrong: a dictionary of prefixes, and memory that is really written."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from drift_engine.cache import KvCache, OutOfPages, Sequence
from kv_index import KvIndex, names

PAGES, PAGE = 10, 2

Prefix = tuple[str, tuple[int, ...]]  # salt and the tokens up to a page's end
Slot = (
    tuple[str, tuple[int, ...]] | None
)  # what a slot's KV was computed from: salt and the tokens up to its own


@dataclass(eq=False)
class User:
    """An open sequence as the scheduler sees it."""

    sequence: Sequence
    tokens: list[int]
    salt: str
    written: int
    published: list[Prefix] = field(default_factory=list)
    alone: bool = False

    def full_prefixes(self) -> list[Prefix]:
        return [(self.salt, tuple(self.tokens[:end])) for end in range(PAGE, self.written + 1, PAGE)]


class Harness:
    """Drives cache, model and router index side by side and compares them."""

    def __init__(self) -> None:
        self.cache = KvCache(PAGES, PAGE)
        self.index = KvIndex()
        self.memory: list[list[Slot]] = [[None] * PAGE for _ in range(PAGES)]
        self.users: list[User] = []
        self.released: dict[Prefix, int] = {}  # every cached prefix and when it was last let go
        self.clock = 0

    def open(self, tokens: list[int], salt: str) -> User:
        found = 0
        while found + PAGE < len(tokens) and (salt, tuple(tokens[: found + PAGE])) in self.released:
            found += PAGE
        assert self.cache.match(tokens, salt).tokens == found
        user = User(self.cache.open(tokens, salt), tokens, salt, found)
        assert user.sequence.cached_tokens == found
        user.published = user.full_prefixes()
        self.users.append(user)
        return user

    def compute(self, user: User, count: int) -> None:
        """Reserves, writes and publishes up to `count` tokens more, drawing new ones past the prompt's end."""
        target = user.written + count
        user.tokens.extend(target % 2 for _ in range(target - len(user.tokens)))
        before, pages = self.counts(), list(user.sequence.pages)
        missing = max(0, -(-target // PAGE) - len(pages))
        fits = missing <= before[0] + before[1]
        assert self.cache.can_reserve(user.sequence, target) == fits
        if not fits:
            with pytest.raises(OutOfPages):
                self.cache.reserve(user.sequence, target)
            assert (self.counts(), user.sequence.pages) == (before, pages)
            return
        for _ in range(missing - before[0]):
            del self.released[self.first_to_evict()]
        self.cache.reserve(user.sequence, target)
        assert user.sequence.pages[: len(pages)] == pages
        self.write(user, target)
        self.cache.publish(user.sequence, user.tokens, user.written)
        for prefix in user.full_prefixes()[len(user.published) :]:
            user.alone |= prefix in self.released
            if user.alone:
                break  # another was first: nothing more of ours is shared before the end
            user.published.append(prefix)
            self.released[prefix] = 0

    def write(self, user: User, target: int) -> None:
        for position in range(user.written, target):
            slot = self.memory[user.sequence.pages[position // PAGE]]
            slot[position % PAGE] = (user.salt, tuple(user.tokens[: position + 1]))
        user.written = target

    def first_to_evict(self) -> Prefix:
        used = {prefix for user in self.users for prefix in user.published}
        parents = {(salt, tokens[:-PAGE]) for salt, tokens in self.released}
        return min((p for p in self.released if p not in used | parents), key=self.released.__getitem__)

    def close(self, user: User) -> None:
        self.clock += 1
        self.users.remove(user)
        for prefix in user.full_prefixes():
            self.released[prefix] = self.clock
        self.cache.close(user.sequence)

    def flush(self) -> None:
        used = {prefix for user in self.users for prefix in user.published}
        self.released = {prefix: stamp for prefix, stamp in self.released.items() if prefix in used}
        self.cache.flush()

    def counts(self) -> tuple[int, int, int]:
        return self.cache.pages_free, self.cache.pages_evictable, self.cache.pages_held

    def check(self) -> None:
        self.cache.check_integrity()
        self.index.apply(self.cache.take_events())
        used = {prefix for user in self.users for prefix in user.published}
        assert self.cache.pages_evictable == len(self.released.keys() - used)
        assert sum(self.counts()) == PAGES
        expected = {names(list(tokens), salt, PAGE)[-1] for salt, tokens in self.released}
        assert set(self.index.parents) == expected
        for user in self.users:
            for position in range(user.written):
                slot = self.memory[user.sequence.pages[position // PAGE]][position % PAGE]
                assert slot == (user.salt, tuple(user.tokens[: position + 1])), "KV of other tokens"


salts = st.sampled_from(["", "red"])
# Two token values make common prefixes, and blocks that two sequences compute at once, the usual case.
prompts = st.lists(st.integers(0, 1), min_size=1, max_size=12)


class CacheMachine(RuleBasedStateMachine):
    users: Bundle[User] = Bundle("users")

    def __init__(self) -> None:
        super().__init__()
        self.harness = Harness()

    @rule(target=users, tokens=prompts, salt=salts)
    def open(self, tokens: list[int], salt: str) -> User:
        return self.harness.open(tokens, salt)

    @rule(target=users, tokens=prompts, salt=salts)
    def open_and_compute_all(self, tokens: list[int], salt: str) -> User:
        user = self.harness.open(tokens, salt)
        self.harness.compute(user, len(tokens) - user.written)
        return user

    @rule(user=users, count=st.integers(0, 7))
    def compute(self, user: User, count: int) -> None:
        self.harness.compute(user, count)

    @rule(user=consumes(users))
    def close(self, user: User) -> None:
        self.harness.close(user)

    @rule(target=users, user=consumes(users))
    def preempt_and_resume(self, user: User) -> User:
        self.harness.close(user)
        return self.harness.open(user.tokens, user.salt)

    @rule()
    def flush(self) -> None:
        self.harness.flush()

    @invariant()
    def agrees_with_the_model(self) -> None:
        self.harness.check()


CacheMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestCacheMachine = CacheMachine.TestCase


def test_no_page_is_lost_in_ten_thousand_operations() -> None:
    dice = random.Random(20)
    harness = Harness()
    for step in range(10_000):
        match dice.choices(["open", "compute", "close", "flush"], [4, 8, 4, 0.05])[0]:
            case "open" if len(harness.users) < 5:
                tokens = dice.choices([0, 1], k=dice.randint(1, 12))
                harness.open(tokens, dice.choice(["", "red"]))
            case "compute" if harness.users:
                harness.compute(dice.choice(harness.users), dice.randint(0, 7))
            case "close" if harness.users:
                harness.close(dice.choice(harness.users))
            case "flush":
                harness.flush()
        if step % 10 == 0:
            harness.check()
    while harness.users:
        harness.close(harness.users[0])
    harness.flush()
    harness.check()
    assert harness.cache.pages_free == PAGES
    assert harness.cache.evicted_pages_total > 100


def test_a_late_start_of_events_is_noticed() -> None:
    """The index refuses events whose beginning it missed, so the comparison above means something."""
    harness = Harness()
    user = harness.open([0, 1, 0, 1, 0], "")
    harness.compute(user, 3)
    harness.cache.take_events()
    harness.compute(user, 2)

    with pytest.raises(AssertionError):
        harness.index.apply(harness.cache.take_events())
