"""What vLLM's events say of pages: the same names as a Drift node's, whatever the engine itself calls its blocks."""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drift_engine import hashing
from drift_router.index import aliases as aliases_module
from drift_router.index import engine_events
from drift_router.index.aliases import Aliases
from drift_router.index.events import Malformed
from vllm_node import BLOCK_TOKENS, Cache

PROMPT = list(range(1000, 1000 + 10 * BLOCK_TOKENS))
NAMES = list(hashing.names(PROMPT, "", BLOCK_TOKENS))


def applied(aliases: Aliases, cache: Cache, events: list[Any]) -> list[tuple[str, list[int]]]:
    parsed = engine_events.parse(cache.batch(events))
    return [(type(event).__name__.strip("_"), names) for event, names in aliases.apply(parsed)]


@pytest.mark.parametrize("form", ["arrays", "maps"])
@pytest.mark.parametrize("whole", [True, False])
def test_a_prompt_has_the_names_that_a_drift_node_gives(form: str, whole: bool) -> None:
    aliases, cache = Aliases(), Cache(form, whole=whole)
    first = applied(aliases, cache, cache.store(PROMPT[: 4 * BLOCK_TOKENS]))
    rest = applied(aliases, cache, cache.store(PROMPT))
    assert first[0][1] + rest[0][1] == NAMES
    assert aliases.page_tokens == BLOCK_TOKENS


@pytest.mark.parametrize("form", ["arrays", "maps"])
def test_what_is_removed_or_cleared_has_the_names_that_it_was_stored_under(form: str) -> None:
    aliases, cache = Aliases(), Cache(form)
    applied(aliases, cache, cache.store(PROMPT))
    gone = applied(aliases, cache, cache.remove(PROMPT, 7))
    assert sorted(name for _, names in gone for name in names) == sorted(NAMES[7:])
    assert [names for _, names in applied(aliases, cache, cache.clear())] == [[]]
    assert list(aliases.names) == []


def test_a_block_that_is_kept_twice_is_gone_when_both_copies_are() -> None:
    aliases, cache = Aliases(), Cache()
    applied(aliases, cache, cache.store(PROMPT))
    cache.held.clear()
    assert applied(aliases, cache, cache.store(PROMPT)) == []
    assert applied(aliases, cache, cache.remove(PROMPT)) == []
    assert len(applied(aliases, cache, cache.remove(PROMPT))) == len(NAMES)


@pytest.mark.parametrize(
    ("fields", "known"),
    [
        ({"medium": "CPU"}, 0),
        ({"medium": None}, 10),
        ({"kv_cache_spec_kind": "sliding_window", "group_idx": 1}, 0),
        ({"kv_cache_spec_kind": "mla_attention", "group_idx": 0}, 10),
        ({"extra_keys": [None] * 10}, 10),
        ({"extra_keys": [None] * 3 + [("image", 4)] + [None] * 6}, 3),
        ({"extra_keys": [("salt",)] + [None] * 9}, 0),
        ({"lora_id": 1}, 0),
        ({"parent_block_hash": b"unheard of"}, 0),
        ({"block_size": 0}, 0),
        ({"block_size": -16}, 0),
        ({"token_ids": []}, 0),
        ({"block_hashes": []}, 0),
    ],
)
def test_only_blocks_whose_text_can_be_told_are_followed(fields: dict[str, Any], known: int) -> None:
    aliases, cache = Aliases(), Cache()
    applied(aliases, cache, cache.store(PROMPT, **fields))
    assert list(aliases.names) == NAMES[:known]


def test_of_several_groups_of_layers_one_is_followed() -> None:
    aliases, cache = Aliases(), Cache()
    one = cache.store(PROMPT, group_idx=0, kv_cache_spec_kind="full_attention")
    cache.held.clear()
    other = cache.store(PROMPT, group_idx=1, kv_cache_spec_kind="full_attention")
    assert len(applied(aliases, cache, one + other)) == 1
    gone = cache.form.BlockRemoved(block_hashes=cache.hashes(PROMPT), medium="GPU", group_idx=1)
    assert applied(aliases, cache, [gone]) == []


def test_an_adapters_pages_are_its_own() -> None:
    aliases, cache = Aliases(), Cache()
    fields = {"lora_id": 1, "lora_name": "poet", "extra_keys": [("poet",)] * 10}
    applied(aliases, cache, cache.store(PROMPT, **fields))
    assert list(aliases.names) == list(hashing.names(PROMPT, "poet", BLOCK_TOKENS))
    assert aliases.salt("poet") == "poet"
    assert aliases.salt("base") == ""


def test_more_blocks_than_any_node_has_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aliases_module, "MAX_BLOCKS", 9)
    aliases, cache = Aliases(), Cache()
    with pytest.raises(Malformed, match="more than 9 blocks"):
        applied(aliases, cache, cache.store(PROMPT))


def test_fields_that_are_not_known_yet_are_passed_over() -> None:
    event = ["BlockStored", [1], None, [5], 1, None, "GPU", None, None, 0, "full_attention", None, "new"]
    (stored,) = engine_events.parse(msgspec.msgpack.encode([0.0, [event], 0, "new"]))
    assert isinstance(stored, engine_events.Stored)
    assert stored.token_ids == [5]


@pytest.mark.parametrize(
    "batch",
    [
        None,
        [],
        {},
        [0.0, 7],
        [0.0, [None]],
        [0.0, [["BlockMoved", []]]],
        [0.0, [{"type": "BlockStored"}]],
        {"ts": 0.0, "events": [{"type": "BlockRemoved", "block_hashes": "all"}]},
        [0.0, [["BlockStored", [1.5], None, [5], 1]]],
    ],
)
def test_what_is_no_batch_is_refused(batch: object) -> None:
    with pytest.raises(Malformed):
        engine_events.parse(msgspec.msgpack.encode(batch))


@pytest.mark.parametrize("token", [-1, 1 << 31, 1 << 63])
def test_what_is_no_token_is_refused(token: int) -> None:
    event = ["BlockStored", [1], None, [token], 1]
    parsed = engine_events.parse(msgspec.msgpack.encode([0.0, [event]]))
    with pytest.raises(Malformed):
        list(Aliases().apply(parsed))


@given(st.binary(max_size=200))
def test_no_bytes_do_more_than_be_refused(payload: bytes) -> None:
    with contextlib.suppress(Malformed):
        list(Aliases().apply(engine_events.parse(payload)))
