"""What a node tells of its KV cache, by whatever protocol: all of it once, then every change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Pace:
    """How long the follower waits for what."""

    answer_s: float = 5.0
    """For a connection and the head of an answer."""
    state_s: float = 30.0
    """For a whole state."""
    retry_s: float = 0.1
    """After the first failure; doubled with every further one."""
    retry_most_s: float = 10.0
    """A stream that stood for so long was a success."""
    silent_s: float = 30.0
    """Without a state for so long: the node counts as one that sends no events, until it does."""


class Broken(Exception):  # noqa: N818 - an outcome
    """The events can't be followed any further; the message says why."""


class Feed(Protocol):
    """One node's. Both raise Broken, Malformed, OSError or the errors of their transport."""

    async def restore(self) -> None:
        """Reads all that the node holds into the index. Ends within a deadline of its own."""

    async def follow(self) -> None:
        """Keeps the index true from there on; never returns."""

    def close(self) -> None:
        """What it holds open; it is not used again."""
