"""What planners ask of a latency model."""

from __future__ import annotations

from typing import Protocol

from drift_engine import wire
from drift_engine.latency.accuracy import Errors
from drift_engine.latency.loads import Load


class Predictions(Protocol):
    """Seconds of one pass, as far as anything is known of the model's speed; None where nothing is."""

    def pass_s(self, load: Load, sms: int) -> float | None:
        """Alone on a lane of `sms` SMs."""

    def beside_s(self, load: Load, sms: int, neighbour: Load) -> float | None:
        """While the other lane works on `neighbour`, contention included."""

    @property
    def fused_factor(self) -> float:
        """Of passes of decode rows and prefill that run alone, nearly all take no longer than this times `pass_s`."""


class Learned(Predictions, Protocol):
    """A model that goes on learning from the passes that ended."""

    def observe(self, load: Load, sms: int, seconds: float, neighbour: Load | None, now_s: float) -> None: ...

    def prefill_tokens_per_s(self, sms: int, chunk_tokens: int = 512) -> float:
        """0 where nothing is known."""

    def split_cost(self, decode_sms: int, prefill_sms: int) -> wire.SplitCost | None:
        """What passes cost on lanes of these sizes; None where nothing is known."""

    def errors(self) -> Errors:
        """Of its predictions, over recent passes."""
