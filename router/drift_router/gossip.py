"""What the workers of one router tell each other of their requests, in datagrams that may be lost.

Nodes are called by name: each worker has slots of its own. What a lost word would have said is missing somewhere, and
a prompt may then be computed twice; nothing that was said can stay wrong (`nodes.peers`, `index.promises`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import msgspec

from drift_router.index.prefixes import Ties
from drift_router.nodes.peers import NOTHING, Load

MAX_WORD_BYTES = 64 * 1024
"""Of one datagram. The longest prompt has 4,200 blocks, 37 KB of names."""

MAX_HELD_WORDS = 8
"""That are kept until they are told; the kernel takes ten datagrams for a socket that is not read."""

REPEAT_S = 0.1
"""A figure that stands is told again so often: nine in a row would have to be lost for it to be forgotten."""

_BYTES_PER_NAME = 9
_BYTES_PER_ITEM = 800
"""Of a node's name (253 at most), a session's (512) and some numbers."""
_MAX_TIES = MAX_WORD_BYTES // (4 * _BYTES_PER_NAME)
"""In one piece."""


class Sent(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A request was sent to a node."""

    node: str
    uncached_tokens: int
    blocks: list[int]
    """Names of its text's blocks."""
    session: str | None


class Word(msgspec.Struct, frozen=True, array_like=True):
    """One datagram."""

    worker: int
    loads: dict[str, Load]
    """What the worker has on nodes; of others it said nothing now."""
    sent: list[Sent]
    tied_blocks: list[int]
    tied_pages: list[int]
    """What it learned (`prefixes.Ties`)."""

    @property
    def ties(self) -> Ties:
        return Ties(self.tied_blocks, self.tied_pages)


class Outbox:
    """What one worker has to tell, gathered until `words` makes datagrams of it. Pure.

    `wake` is called at the first news after that; `stands` says that there will be something to repeat without any.
    """

    def __init__(self, worker: int) -> None:
        self.wake: Callable[[], None] = _nobody
        self._worker = worker
        self._awake = False
        self._sent: list[Sent] = []
        self._ties: list[Ties] = []
        self._held_bytes = 0
        self._told: dict[str, tuple[Load, float]] = {}

    @property
    def stands(self) -> bool:
        return bool(self._told)

    def changed(self) -> None:
        """What the worker has on a node is not what it was."""
        if not self._awake:
            self._awake = True
            self.wake()

    def sent(self, node: str, uncached_tokens: int, blocks: list[int], session: str | None) -> None:
        if self._room(_BYTES_PER_ITEM + _BYTES_PER_NAME * len(blocks)):
            self._sent.append(Sent(node, uncached_tokens, blocks, session))
        self.changed()

    def learned(self, ties: Ties) -> None:
        for start in range(0, len(ties.blocks), _MAX_TIES):
            piece = Ties(ties.blocks[start : start + _MAX_TIES], ties.pages[start : start + _MAX_TIES])
            if self._room(2 * _BYTES_PER_NAME * len(piece.blocks)):
                self._ties.append(piece)
        self.changed()

    def words(self, loads: Mapping[str, Load], now_s: float) -> Iterator[Word]:
        """What is to be told now; `loads` is all that the worker has on nodes. The outbox is empty afterwards."""
        sent, ties, self._sent, self._ties = self._sent, self._ties, [], []
        self._held_bytes, self._awake = 0, False
        word, left_bytes = Word(self._worker, {}, [], [], []), MAX_WORD_BYTES

        def begin(item_bytes: int) -> Iterator[Word]:
            """Another word, where this one has no room for the item."""
            nonlocal word, left_bytes
            if left_bytes < item_bytes:
                yield word
                word, left_bytes = Word(self._worker, {}, [], [], []), MAX_WORD_BYTES
            left_bytes -= item_bytes

        for node, load in self._due(loads, now_s):
            yield from begin(_BYTES_PER_ITEM)
            word.loads[node] = load
        for one in sent:
            yield from begin(_BYTES_PER_ITEM + _BYTES_PER_NAME * len(one.blocks))
            word.sent.append(one)
        for piece in ties:
            yield from begin(2 * _BYTES_PER_NAME * len(piece.blocks))
            word.tied_blocks.extend(piece.blocks)
            word.tied_pages.extend(piece.pages)
        if word.loads or word.sent or word.tied_blocks:
            yield word

    def _due(self, loads: Mapping[str, Load], now_s: float) -> list[tuple[str, Load]]:
        told = self._told
        due = [(node, NOTHING) for node in told.keys() - loads.keys()]
        for node, _ in due:
            del told[node]
        for node, load in loads.items():
            before, told_s = told.get(node, (NOTHING, 0.0))
            if load != before or now_s - told_s >= REPEAT_S:
                told[node] = load, now_s
                due.append((node, load))
        return due

    def _room(self, item_bytes: int) -> bool:
        """What does not fit is not told."""
        if self._held_bytes + item_bytes > MAX_HELD_WORDS * MAX_WORD_BYTES:
            return False
        self._held_bytes += item_bytes
        return True


def _nobody() -> None: ...


_decoder = msgspec.msgpack.Decoder(Word)
encode = msgspec.msgpack.Encoder().encode


def decode(datagram: bytes) -> Word:
    """Raises msgspec.DecodeError."""
    return _decoder.decode(datagram)
