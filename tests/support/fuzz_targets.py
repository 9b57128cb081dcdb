"""What is done with bytes that nobody vouches for: each target takes any bytes and raises nothing but a defect.

`tests/fuzz/fuzz.py` searches for such bytes; what it found worth keeping is in `tests/fuzz/corpus`, and is tried in
every test run.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import fuzz_documents
from drift_router.dataplane import heads, prompts
from drift_router.dataplane.refusals import Refusal
from drift_router.dataplane.requests import Headers, Request, RequestParser
from drift_router.dataplane.streams import DONE, END, MARK, NotMarked, Watched
from drift_router.dataplane.upstreams import Loss, Upstream
from drift_router.index import blocks, events, hints
from drift_router.index.prefixes import PrefixIndex
from drift_router.options import Limits

LIMITS = Limits(head_bytes=1024, headers=16, body_bytes=4096)


class _Transport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass

    def is_closing(self) -> bool:
        return self.closed

    def abort(self) -> None:
        self.closed = True


class _Taker:
    """Insists on the order in which an answer is told."""

    def __init__(self) -> None:
        self.begun = self.over = False
        self.length: int | None = None
        self.taken = 0

    def begins(self, status: int, headers: Headers, length_bytes: int | None) -> None:
        assert not self.begun
        assert not self.over
        self.begun, self.length = True, length_bytes
        heads.answer(status, heads.forwarded(headers))

    def data(self, data: bytes) -> None:
        assert self.begun
        assert not self.over
        self.taken += len(data)

    def ends(self) -> None:
        assert self.begun
        assert not self.over
        assert self.length is None or self.taken == self.length
        self.over = True

    def lost(self, loss: Loss) -> None:
        assert not self.over
        self.over = True


def requests(data: bytes) -> None:
    """However they are cut, the same requests come out, within the limits."""
    whole, pieces = _requests([data]), _requests([data[at : at + 3] for at in range(0, len(data), 3)])
    # bytes behind a fault may be looked at in one piece and not in many
    assert pieces == whole[: len(pieces)] or whole == pieces[: len(whole)]


def _requests(pieces: list[bytes]) -> list[tuple[bytes, bytes, bytes]]:
    found: list[Request] = []
    parser = RequestParser(LIMITS, found.append, lambda: None)
    with contextlib.suppress(Refusal):
        for piece in pieces:
            parser.feed(piece)
    for request in found:
        assert len(request.body) <= LIMITS.body_bytes
        assert len(request.headers) <= LIMITS.headers
        heads.request(request.method, request.target, heads.forwarded(request.headers))
    return [(request.method, request.target, request.body) for request in found]


def answers(data: bytes) -> None:
    """An answer is told once, in order, and ends once."""
    for size in (len(data) or 1, 5):
        released: list[Upstream] = []
        upstream, taker = Upstream(b"node", released.append, lambda _: None), _Taker()
        upstream.connection_made(_Transport())
        upstream.send(b"", b"", taker)
        for at in range(0, len(data), size):
            if taker.over:
                break
            upstream.data_received(data[at : at + size])
        if not taker.over:
            upstream.connection_lost(None)
        assert taker.over


def streams(data: bytes) -> None:
    """What was let through never holds a comment of tokens, and is the same however it is cut."""
    outcomes = []
    for size in (len(data) or 1, 7):
        watched, told, readable = Watched(), b"", True
        try:
            for at in range(0, len(data), size):
                told += watched.feed(data[at : at + size])
            told += watched.finish()
        except NotMarked:
            readable = False
        assert not any(event.startswith(MARK) for event in told.split(END))
        assert not readable or watched.done == (DONE in told.split(END)[:-1])
        outcomes.append((told, watched.token_ids) if readable else None)
    assert outcomes[0] == outcomes[1]


def bodies(data: bytes) -> None:
    """A body is refused, or leads to blocks; and can be told what was drawn."""
    for path in prompts.GENERATING:
        try:
            found = prompts.read(path, data)
        except Refusal:
            continue
        root = blocks.root(found.model.encode(), found.tools)
        blocks.beginning(found.text, root)
        assert len(blocks.split(found.text, root).names) <= len(found.text) // 64
        told = prompts.resuming(data, answer_id="a", created=1, seed=2, token_ids=[3])
        with contextlib.suppress(Refusal):
            prompts.read(path, told)
            raise AssertionError("what only a router may say was read as a client's")


def hinted(data: bytes) -> None:
    """Hints are refused, or can be learned."""
    found = hints.parse(data)
    if found is not None:
        index = PrefixIndex(1 << 20)
        index.learned(blocks.split(b"x" * 5000, 1), found)
        assert index.held_bytes <= 1 << 20


def told(data: bytes) -> None:
    """Events and states of nodes are refused, or can be kept."""
    index = PrefixIndex(1 << 20)
    for line in data.split(b"\n"):
        with contextlib.suppress(events.Malformed):
            event = events.parse_event(line)
            if isinstance(event, events.Stored):
                index.stored(0, event.pages)
            elif isinstance(event, events.Removed):
                index.removed(0, event.pages)
    with contextlib.suppress(events.Malformed):
        index.restore(0, events.parse_state(data).pages)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "requests": requests,
    "answers": answers,
    "streams": streams,
    "bodies": bodies,
    "hints": hinted,
    "events": told,
    **fuzz_documents.TARGETS,
}
