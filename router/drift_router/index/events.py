"""What a node tells of its KV cache on its control port: all pages as of one moment, and every change since.

In: the document of `/kv/v1/state` and the lines of `/kv/v1/events`. Out: page names, ready for the index. Token ids
and parents are skipped unread.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from drift_engine import wire

_NAMES_END = 1 << 64


class Malformed(ValueError):  # noqa: N818 - what the document is
    """This is not what a node says. It can't be followed from here on."""


class Stored(msgspec.Struct, frozen=True, tag=True):
    sequence: int
    pages: list[int] = msgspec.field(name="block_hashes")


class Removed(msgspec.Struct, frozen=True, tag=True):
    sequence: int
    pages: list[int] = msgspec.field(name="block_hashes")


class Cleared(msgspec.Struct, frozen=True, tag=True):
    sequence: int


Event = Stored | Removed | Cleared


class State(NamedTuple):
    """All pages as of the event with this number."""

    sequence: int
    pages: list[int]


class _Document(msgspec.Struct, frozen=True):
    sequence: int
    blocks: list[tuple[int, int | None]]
    """Names and their parents'."""


_line: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Stored | Removed | Cleared)
_document = msgspec.json.Decoder(_Document)


def parse_event(line: bytes) -> Event:
    """Raises Malformed."""
    try:
        event = _line.decode(line)
    except wire.UNREADABLE as error:
        raise Malformed(f"an event: {error}") from error
    if not isinstance(event, Cleared):
        _check(event.pages)
    return event


def parse_state(document: bytes | bytearray) -> State:
    """Raises Malformed."""
    try:
        found = _document.decode(document)
    except wire.UNREADABLE as error:
        raise Malformed(f"the state: {error}") from error
    pages = [name for name, _ in found.blocks]
    _check(pages)
    return State(found.sequence, pages)


def _check(pages: list[int]) -> None:
    if pages and (min(pages) < 0 or max(pages) >= _NAMES_END):
        raise Malformed("a page's name is no unsigned 64-bit integer")
