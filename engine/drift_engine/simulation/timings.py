"""How long passes take by what a node learned, for simulations of the machine that it runs on."""

from __future__ import annotations

from drift_engine.latency import LatencyModel
from drift_engine.latency.loads import Load


class LearnedTiming:
    """A latency model's predictions, contention included. The model must know both phases."""

    def __init__(self, latency: LatencyModel) -> None:
        self._latency = latency

    def pass_s(self, load: Load, sms: int) -> float:
        seconds = self._latency.pass_s(load, sms)
        assert seconds is not None, f"nothing is known of {load.kind} on {sms} SMs"
        return seconds

    def slowdown(self, load: Load, sms: int, neighbour: Load, neighbour_sms: int) -> float:
        beside_s = self._latency.beside_s(load, sms, neighbour)
        assert beside_s is not None, f"nothing is known of {load.kind} on {sms} SMs"
        return max(1.0, beside_s / self.pass_s(load, sms))
