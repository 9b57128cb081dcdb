"""What the planner answers: which requests to preempt and admit, and what the next pass computes."""

from __future__ import annotations

from dataclasses import dataclass

from drift_engine import wire


@dataclass(frozen=True, slots=True)
class Chunk:
    """The next `tokens` of one request, computed in this pass."""

    request_id: str
    tokens: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Carried out in this order: preempt, admit, then one pass over decode rows and prefill chunks."""

    mode: wire.Mode
    preempt: tuple[str, ...] = ()
    admit: tuple[str, ...] = ()
    decode: tuple[str, ...] = ()
    prefill: tuple[Chunk, ...] = ()

    @property
    def empty(self) -> bool:
        return not (self.decode or self.prefill)
