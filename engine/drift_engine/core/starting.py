"""Which start a node's options ask for."""

from __future__ import annotations

from drift_engine.core.serving import Start
from drift_engine.options import NodeOptions


def choose(options: NodeOptions) -> Start:
    """A simulated node is light: it does without torch, which only the other start loads."""
    if options.device == "sim":
        from drift_engine.core import simulated

        return simulated.start
    from drift_engine.core import process

    return process.start
