"""What a router must remember of a stream of server-sent events, to have another node go on where it broke.

One of our nodes ends every write that brought tokens with a comment, `: tokens 12 13`. The comment is taken out, and
what came before it is let through: so the client has seen precisely what the tokens that are remembered say.
"""

from __future__ import annotations

import msgspec

from drift_engine import wire

MARK = b": tokens "
END = b"\n\n"
DONE = b"data: [DONE]"
DATA = b"data: "

MAX_HELD_BYTES = 4 * 1024 * 1024
"""Of events whose tokens were not named; a node that sends so much without them does not speak this language."""


class NotMarked(Exception):  # noqa: N818 - a fact about the node
    """The node does not name its tokens, or not in a form that can be read."""


class _Chunk(msgspec.Struct):
    id: str
    created: int


class Watched:
    """A stream that can be resumed. `feed` gives what may be sent on."""

    def __init__(self) -> None:
        self.token_ids: list[int] = []
        self.answer_id = ""
        self.created = 0
        self.done = False
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """Raises NotMarked."""
        held = self._held + data if self._held else data
        events = held.split(END)
        rest = events.pop()
        marks = [index for index, event in enumerate(events) if event.startswith(MARK)]
        if not marks and len(held) > MAX_HELD_BYTES:
            raise NotMarked(f"{MAX_HELD_BYTES} bytes of events without a line of tokens")
        known = marks[-1] + 1 if marks else 0
        self._held = END.join([*events[known:], rest])
        return b"".join([self._take(event) for event in events[:known]])

    def finish(self) -> bytes:
        """The node ended its answer properly: what is held is let through."""
        *events, rest = self._held.split(END)
        self._held = b""
        shown = b"".join([self._take(event) for event in events])
        return shown if rest.startswith(MARK) else shown + rest

    def drop(self) -> None:
        """The node is lost: what it did not name did not happen."""
        self._held = b""

    def _take(self, event: bytes) -> bytes:
        if event.startswith(MARK):
            try:
                self.token_ids += map(int, event[len(MARK) :].split())
            except ValueError:
                raise NotMarked(f"not tokens: {event[:40]!r}") from None
            return b""
        if event == DONE:
            self.done = True
        elif not self.answer_id and event.startswith(DATA):
            try:
                first = msgspec.json.decode(event[len(DATA) :], type=_Chunk)
            except wire.UNREADABLE:
                raise NotMarked("its first event has no id") from None
            self.answer_id, self.created = first.id, first.created
        return event + END
