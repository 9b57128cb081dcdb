"""First tokens that wait for the decode step at work to end, by `scheduling.pacing`."""

from __future__ import annotations

from drift_engine import wire
from drift_engine.core.requests import Request


class HeldTokens:
    """Answers that were drawn and not told yet, in the order in which they were drawn."""

    def __init__(self) -> None:
        self._held: list[tuple[Request, wire.Output]] = []

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, request: Request, output: wire.Output) -> None:
        """Until `tell`."""
        self._held.append((request, output))

    def drop(self, request: Request) -> None:
        """Nobody wants to hear of it any more."""
        self._held = [held for held in self._held if held[0] is not request]

    def tell(self, now_s: float) -> list[wire.Output]:
        """All of them; their requests have their first tokens from now on."""
        for request, output in self._held:
            request.drew(len(output.token_ids), now_s)
        told = [output for _, output in self._held]
        self._held.clear()
        return told
