"""What vLLM tells of its KV cache: one message of its event publisher, a batch in msgpack.

In: the payload of a message. Out: the changes that a router follows, in their order. Both forms are read that vLLM
has sent: events as arrays of their fields (until 0.23) and as maps (later); SGLang's publisher sends the former.

Who follows them leaves out blocks outside the GPU's memory, and groups of layers other than the first one with full
attention: where a model has several, each tells of the same tokens (`index.aliases`).
"""

from __future__ import annotations

from typing import Any

import msgspec

from drift_engine import wire
from drift_router.index.events import Malformed

Hash = int | bytes
"""Of a block, as the engine names it: known to that process alone."""

FULL_ATTENTION = frozenset({None, "full_attention", "mla_attention", "sink_full_attention"})
"""Kinds of layers for which a block counts as long as it is there; older versions name none. Of a sliding window or a
state space the engine drops blocks that a prompt still needs no more."""

GPU = frozenset({None, "GPU"})
"""Media from which a block is used as it is. Older versions name none."""


class Stored(msgspec.Struct, frozen=True, tag="BlockStored"):
    """Fields in the order of the arrays; what newer versions append is passed over."""

    block_hashes: list[Hash]
    parent_block_hash: Hash | None
    token_ids: list[int]
    block_size: int
    lora_id: int | None = None
    medium: str | None = None
    lora_name: str | None = None
    extra_keys: list[tuple[Any, ...] | None] | None = None
    """Of each block: what its hash covers beside tokens (images, salts, adapters)."""
    group_idx: int | None = None
    kv_cache_spec_kind: str | None = None


class Removed(msgspec.Struct, frozen=True, tag="BlockRemoved"):
    block_hashes: list[Hash]
    medium: str | None = None
    group_idx: int | None = None


class Cleared(msgspec.Struct, frozen=True, tag="AllBlocksCleared"):
    pass


class _StoredArray(Stored, frozen=True, array_like=True, tag="BlockStored"):
    pass


class _RemovedArray(Removed, frozen=True, array_like=True, tag="BlockRemoved"):
    pass


class _ClearedArray(Cleared, frozen=True, array_like=True, tag="AllBlocksCleared"):
    pass


class _Batch(msgspec.Struct, frozen=True):
    ts: float
    events: list[msgspec.Raw]


class _BatchArray(_Batch, frozen=True, array_like=True):
    pass


Event = Stored | Removed | Cleared

_batch = msgspec.msgpack.Decoder(_Batch)
_batch_array = msgspec.msgpack.Decoder(_BatchArray)
_event: msgspec.msgpack.Decoder[Event] = msgspec.msgpack.Decoder(Stored | Removed | Cleared)
_event_array: msgspec.msgpack.Decoder[Event] = msgspec.msgpack.Decoder(
    _StoredArray | _RemovedArray | _ClearedArray
)

_MAPS = frozenset([*range(0x80, 0x90), 0xDE, 0xDF])
"""First bytes of maps in msgpack."""


def parse(payload: bytes) -> list[Event]:
    """Raises Malformed."""
    try:
        batch = (_batch if payload[:1] and payload[0] in _MAPS else _batch_array).decode(payload)
        return [
            (_event if bytes(event)[0] in _MAPS else _event_array).decode(event) for event in batch.events
        ]
    except wire.UNREADABLE as error:
        raise Malformed(f"a batch of events: {error}") from error
