"""What the planner answers: whom to preempt and admit, and what each lane computes next."""

from __future__ import annotations

from dataclasses import dataclass

from drift_engine import wire


@dataclass(frozen=True, slots=True)
class Chunk:
    """The next `tokens` of one request, behind `reused_tokens` whose KV is there."""

    request_id: str
    tokens: int
    reused_tokens: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Carried out in this order: preempt, admit, launch the pass, begin a cut prefill, launch layers of it.

    A plan for a `split` device launches on its two lanes, any other on the lane over the whole device.
    """

    mode: wire.Mode
    preempt: tuple[str, ...] = ()
    admit: tuple[str, ...] = ()
    decode: tuple[str, ...] = ()  # rows of one pass,
    prefill: tuple[Chunk, ...] = ()  # together with these chunks
    steps: int = 1  # of the pass, whose rows are decode rows where there is more than one
    begin: tuple[Chunk, ...] = ()  # chunks of a prefill that is launched by layers
    layers: int = 0  # how many to launch of the prefill that is cut
    split: wire.Split | None = None
    base: wire.Split | None = None  # which the split is a departure from, for one step

    @property
    def empty(self) -> bool:
        """Nothing is launched."""
        return not (self.decode or self.prefill or self.layers)
