"""The prefix cache as others see it: a bounded log of its changes, and its full state for late joiners.

In: `wire.KvEvents` from the core. Out, on the control port: events after a sequence number, or all blocks with their
parents as of one. A reader that fell behind the log is told so and starts again from the state.
"""

from __future__ import annotations

import asyncio
import collections
import itertools
from collections.abc import Coroutine
from typing import Any

from drift_engine import wire

LOG_EVENTS = 8192
"""Some minutes of a busy node; a reader that lags further reads the full state instead, which is no larger."""


class Gone(Exception):  # noqa: N818 - an answer, not a fault
    """The log no longer reaches back that far, or never did."""


class KvLog:
    def __init__(self, limit: int = LOG_EVENTS) -> None:
        self._log: collections.deque[tuple[int, wire.KvEvent]] = collections.deque(maxlen=limit)
        self._parents: dict[int, int | None] = {}
        self._changed = asyncio.Event()
        self.sequence = 0
        """Number of the newest event; 0 before the first."""
        self.page_tokens = 0

    def add(self, message: wire.KvEvents) -> None:
        for offset, event in enumerate(message.events):
            self.sequence = message.sequence + offset
            self._log.append((self.sequence, event))
            self._apply(event)
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _apply(self, event: wire.KvEvent) -> None:
        match event:
            case wire.Stored(block_hashes, parent, _, page_tokens):
                self.page_tokens = page_tokens
                for block in block_hashes:
                    # a block seen again keeps its place: parents stay before their children
                    self._parents.setdefault(block, parent)
                    parent = block
            case wire.Removed(block_hashes):
                for block in block_hashes:
                    self._parents.pop(block, None)
            case wire.Cleared():
                self._parents.clear()

    def after(self, sequence: int, *, tokens: bool = True) -> list[dict[str, Any]]:
        """Events with higher numbers, with the pages' token ids or without.

        Raises Gone when some of them are no longer known, or `sequence` never was.
        """
        oldest = self._log[0][0] if self._log else self.sequence + 1
        if sequence < oldest - 1 or sequence > self.sequence:
            raise Gone(f"events after {sequence} are not known: the log holds {oldest} to {self.sequence}")
        newer = itertools.islice(self._log, sequence - oldest + 1, None)
        found = [{"sequence": number, **wire.to_builtins(event)} for number, event in newer]
        if not tokens:
            for event in found:
                event.pop("token_ids", None)
        return found

    def change(self) -> Coroutine[Any, Any, bool]:
        """Waits for the first event after this call: one that comes before the wait has begun counts."""
        return self._changed.wait()

    def state(self) -> dict[str, Any]:
        """Every shareable block as [hash, parent's hash], parents first."""
        return {
            "sequence": self.sequence,
            "page_tokens": self.page_tokens,
            "blocks": [[block, parent] for block, parent in self._parents.items()],
        }
