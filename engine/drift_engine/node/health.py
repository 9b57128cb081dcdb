"""What state the node is in, in one place: the probes, the gate and the report read it.

LOADING -> READY -> DRAINING, and FAILED from anywhere. Nothing leaves DRAINING or FAILED.
"""

from __future__ import annotations

import enum

from drift_engine import wire


class Phase(enum.StrEnum):
    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"


class Health:
    def __init__(self) -> None:
        self.phase = Phase.LOADING
        self.stage = "starting"
        self.done = 0
        self.total = 0
        self.ready: wire.Ready | None = None
        self.reason = ""

    @property
    def draining(self) -> bool:
        return self.phase is Phase.DRAINING

    def loading(self, stage: str, done: int = 0, total: int = 0) -> None:
        self.stage, self.done, self.total = stage, done, total

    def serve(self, ready: wire.Ready) -> None:
        self.ready = ready
        if self.phase is Phase.LOADING:
            self.phase = Phase.READY

    def drain(self) -> None:
        if self.phase is not Phase.FAILED:
            self.phase = Phase.DRAINING

    def fail(self, reason: str) -> None:
        if self.phase is not Phase.FAILED:
            self.phase, self.reason = Phase.FAILED, reason

    def refusal(self) -> str | None:
        """Why no request is taken now, for the client; None when requests are welcome."""
        if self.phase is Phase.READY:
            return None
        if self.phase is Phase.LOADING:
            return f"the model is loading (stage: {self.stage}{self._progress()})"
        if self.phase is Phase.DRAINING:
            return "the node is draining and takes no new requests"
        return f"the node has failed: {self.reason}"

    def _progress(self) -> str:
        return f", {100 * self.done // self.total} %" if self.total else ""
