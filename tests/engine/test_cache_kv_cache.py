"""KvCache by example. Its rules under random use are in test_cache_model.py."""

from __future__ import annotations

import pytest

from drift_engine import hashing, wire
from drift_engine.cache import KvCache, OutOfPages, Sequence
from kv_index import KvIndex, names

PAGE = 4


def serve(cache: KvCache, token_ids: list[int], salt: str = "") -> Sequence:
    """Opens a sequence and computes all of it."""
    sequence = cache.open(token_ids, salt)
    cache.reserve(sequence, len(token_ids))
    cache.publish(sequence, token_ids, len(token_ids))
    return sequence


def remember(cache: KvCache, token_ids: list[int], salt: str = "") -> None:
    cache.close(serve(cache, token_ids, salt))


def state(cache: KvCache) -> tuple[int, int, int, int]:
    return cache.pages_free, cache.pages_evictable, cache.pages_held, cache.pages_used


def test_a_prefix_is_found_after_it_was_published() -> None:
    cache = KvCache(16, PAGE)
    prompt = list(range(10))
    sequence = cache.open(prompt, "")
    cache.reserve(sequence, 10)
    assert cache.match(prompt, "").tokens == 0

    cache.publish(sequence, prompt, 7)
    assert cache.match(prompt, "").tokens == 4
    cache.publish(sequence, prompt, 10)
    assert cache.match(prompt, "").tokens == 8
    assert cache.match([*prompt[:6], 99, 98, 97], "").tokens == 4

    other = cache.open(prompt, "")
    assert other.cached_tokens == 8
    assert other.pages == sequence.pages[:2]
    cache.check_integrity()


@pytest.mark.parametrize(("length", "found"), [(0, 0), (1, 0), (4, 0), (5, 4), (8, 4), (9, 8)])
def test_at_least_one_token_stays_to_be_computed(length: int, found: int) -> None:
    cache = KvCache(16, PAGE)
    remember(cache, list(range(12)))

    assert cache.match(list(range(length)), "").tokens == found


def test_tenants_never_share() -> None:
    cache = KvCache(16, PAGE)
    prompt = list(range(9))
    remember(cache, prompt, "red")

    assert cache.match(prompt, "blue").tokens == 0
    assert cache.match(prompt, "").tokens == 0
    blue = serve(cache, prompt, "blue")
    red = serve(cache, prompt, "red")
    assert not set(blue.pages) & set(red.pages)


def test_colliding_hashes_never_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashing, "block_hash", lambda parent_hash, block: 1)
    monkeypatch.setattr(hashing, "root_hash", lambda salt: 1)
    cache = KvCache(16, PAGE)
    first = serve(cache, [1, 2, 3, 4, 5], "red")

    assert cache.match([1, 2, 3, 9, 5], "red").tokens == 0
    assert cache.match([1, 2, 3, 4, 5], "blue").tokens == 0
    second = serve(cache, [1, 2, 3, 9, 5], "red")
    third = serve(cache, [1, 2, 3, 4, 5], "blue")
    assert len({*first.pages, *second.pages, *third.pages}) == 6
    cache.check_integrity()


def test_growth_by_one_token_takes_a_page_only_when_one_is_full() -> None:
    cache = KvCache(4, PAGE)
    sequence = cache.open([1], "")
    sizes = []
    for tokens in range(1, 10):
        cache.reserve(sequence, tokens)
        sizes.append(len(sequence.pages))

    assert sizes == [1, 1, 1, 1, 2, 2, 2, 2, 3]


def test_out_of_pages_takes_nothing() -> None:
    cache = KvCache(4, PAGE)
    remember(cache, list(range(5)))
    holder = cache.open([50], "")
    cache.reserve(holder, 8)
    sequence = cache.open([60], "")
    before, pages = state(cache), list(sequence.pages)
    assert before == (1, 1, 2, 3)

    assert cache.can_reserve(sequence, 8)
    assert not cache.can_reserve(sequence, 9)
    cache.take_events()
    with pytest.raises(OutOfPages, match="9 tokens need 3 more KV pages: 1 free, 1 evictable, 4 in all"):
        cache.reserve(sequence, 9)

    assert (state(cache), sequence.pages, cache.take_events()) == (before, pages, [])
    cache.reserve(sequence, 8)
    assert state(cache) == (0, 0, 4, 4)
    cache.check_integrity()


def test_the_least_recently_used_leaf_goes_first() -> None:
    cache = KvCache(6, PAGE)
    old, new = list(range(9)), list(range(100, 109))
    remember(cache, old)
    remember(cache, new)
    remember(cache, [*old[:4], 77])  # using the first page of `old` again spares that page only

    need = cache.open([7], "")
    cache.reserve(need, 3 * PAGE)
    assert (cache.match(old, "").tokens, cache.match(new, "").tokens) == (4, 8)
    cache.reserve(need, 4 * PAGE)
    assert (cache.match(old, "").tokens, cache.match(new, "").tokens) == (4, 4)
    cache.reserve(need, 5 * PAGE)
    assert (cache.match(old, "").tokens, cache.match(new, "").tokens) == (4, 0)
    cache.reserve(need, 6 * PAGE)
    assert (cache.match(old, "").tokens, cache.match(new, "").tokens) == (0, 0)
    assert cache.evicted_pages_total == 4
    cache.check_integrity()


def test_pages_of_open_sequences_are_never_evicted() -> None:
    cache = KvCache(4, PAGE)
    remember(cache, list(range(9)))
    user = cache.open(list(range(9)), "")
    other = cache.open([50], "")

    with pytest.raises(OutOfPages):
        cache.reserve(other, 3 * PAGE)
    cache.reserve(other, 2 * PAGE)
    assert not set(user.pages) & set(other.pages)


def test_the_second_publisher_of_a_block_keeps_its_own_pages_until_it_closes() -> None:
    cache, index = KvCache(16, PAGE), KvIndex()
    prompt = list(range(8))
    first, second = cache.open(prompt, ""), cache.open(prompt, "")
    for sequence in (first, second):
        cache.reserve(sequence, 12)
    cache.publish(first, prompt, 4)
    mine = list(second.pages)
    cache.publish(second, prompt, 4)
    cache.publish(second, prompt, 8)
    assert second.pages == mine
    assert cache.match([*prompt, 8], "").tokens == 4
    cache.check_integrity()

    cache.close(second)  # what nobody published meanwhile goes below the first's node
    reader = cache.open([*prompt, 8], "")
    assert reader.pages == [first.pages[0], mine[1]]
    index.apply(cache.take_events())
    assert list(index.parents) == names(prompt, "", PAGE)
    for sequence in (first, reader):
        cache.close(sequence)
        cache.check_integrity()
    assert state(cache) == (14, 2, 0, 2)


def test_computing_a_prompt_twice_pins_no_page_twice() -> None:
    cache = KvCache(8, PAGE)
    prompt = list(range(16))
    first, second = cache.open(prompt, ""), cache.open(prompt, "")
    for sequence in (first, second):
        cache.reserve(sequence, 16)
        cache.publish(sequence, prompt, 16)
    cache.close(first)

    cache.reserve(second, 8 * PAGE)  # alone, it may grow to the whole pool
    cache.check_integrity()
    cache.close(second)
    assert cache.match([*prompt, 16], "").tokens == 16


def test_close_frees_what_was_not_published() -> None:
    cache = KvCache(8, PAGE)
    prompt = list(range(10))
    sequence = cache.open(prompt, "")
    cache.reserve(sequence, 20)
    cache.publish(sequence, prompt, 10)
    assert state(cache) == (3, 0, 5, 5)

    cache.close(sequence)
    assert state(cache) == (6, 2, 0, 2)
    assert sequence.pages == []


def test_flush_spares_pages_in_use() -> None:
    cache, index = KvCache(8, PAGE), KvIndex()
    kept, gone = list(range(9)), [*range(4), 10, 11, 12, 13, 14]
    sequence = serve(cache, kept)
    remember(cache, gone)

    cache.flush()
    index.apply(cache.take_events())
    assert (cache.match(kept, "").tokens, cache.match(gone, "").tokens) == (8, 4)
    assert set(index.parents) == set(names(kept, "", PAGE))
    cache.close(sequence)
    cache.flush()
    assert cache.take_events() == [wire.Cleared()]
    cache.flush()
    assert cache.take_events() == []
    assert cache.pages_free == 8
    cache.check_integrity()


def test_events_name_blocks_as_a_router_computes_them() -> None:
    cache = KvCache(3, PAGE)
    prompt = list(range(12))
    first, second, third = names(prompt, "red", PAGE)
    sequence = cache.open(prompt, "red")
    cache.reserve(sequence, 12)
    cache.publish(sequence, prompt, 9)
    cache.publish(sequence, prompt, 12)
    cache.close(sequence)
    assert cache.take_events() == [
        wire.Stored(block_hashes=[first, second], parent_hash=None, token_ids=prompt[:8], page_tokens=PAGE),
        wire.Stored(block_hashes=[third], parent_hash=second, token_ids=prompt[8:], page_tokens=PAGE),
    ]

    other = cache.open([9], "red")
    cache.reserve(other, 4)
    cache.reserve(other, 8)
    assert cache.take_events() == [wire.Removed(block_hashes=[third, second])]


def test_without_prefixes_nothing_is_shared_kept_or_told() -> None:
    cache = KvCache(8, PAGE, prefix=False)
    prompt = list(range(9))
    sequence = serve(cache, prompt)

    assert cache.match(prompt, "").tokens == 0
    assert cache.open(prompt, "").cached_tokens == 0
    cache.close(sequence)
    cache.flush()
    assert state(cache) == (8, 0, 0, 0)
    assert cache.take_events() == []
    cache.check_integrity()


def test_hits_are_counted_in_tokens() -> None:
    cache = KvCache(8, PAGE)
    remember(cache, list(range(9)))
    remember(cache, list(range(6)))

    assert (cache.queried_tokens_total, cache.hit_tokens_total) == (15, 4)


def test_a_tenant_that_left_leaves_nothing_behind() -> None:
    cache = KvCache(2, PAGE)
    for tenant in range(50):
        remember(cache, list(range(5)), f"tenant-{tenant}")
        cache.close(cache.open([1], f"guest-{tenant}"))
        cache.check_integrity()  # it refuses a root that nobody needs


def test_integrity_names_the_page_that_is_lost() -> None:
    cache = KvCache(4, PAGE)
    sequence = cache.open([1], "")
    cache.reserve(sequence, 4)
    lost = sequence.pages.pop()

    with pytest.raises(AssertionError, match=rf"3 free \+ 0 idle \+ 0 held .* of 4; .*\[{lost}\]"):
        cache.check_integrity()


@pytest.mark.parametrize(("pages", "page_tokens"), [(0, 16), (16, 0)])
def test_an_empty_cache_is_refused(pages: int, page_tokens: int) -> None:
    with pytest.raises(ValueError, match=f"got {pages} of {page_tokens}"):
        KvCache(pages, page_tokens)
