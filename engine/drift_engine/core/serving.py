"""The core process from its start to its end: start, tell the api process, step until told to stop.

Whatever goes wrong before or during serving leaves as one `wire.Fault`, and the process exits with status 1.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from drift_engine import launches, timelines, wire
from drift_engine.core.channel import Channel, Messages
from drift_engine.core.loop import Core
from drift_engine.devices.base import Device
from drift_engine.errors import EngineError
from drift_engine.latency import LatencyModel
from drift_engine.options import NodeOptions

log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1


class Started(NamedTuple):
    core: Core
    device: Device
    ready: wire.Ready
    latency: LatencyModel
    keep_latency: Callable[[], None]  # writes what the latency model learned, where the options name a file


Start = Callable[[NodeOptions, Path, Messages], Started]
"""(options, model's folder, channel): loads the model and builds the core around it. Raises EngineError."""


def serve(address: str, options: NodeOptions, model_path: Path, parent_pid: int, start: Start) -> int:
    """Runs the core until it is told to stop; returns the exit status."""
    _die_with(parent_pid)
    # the api process decides when to stop: a terminal's Ctrl-C reaches the whole group
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    channel = Channel(address)
    try:
        if options.timeline_file is not None:
            timelines.check(Path(options.timeline_file))
        started = start(options, model_path, channel)
        channel.send(started.ready)
        try:
            while not started.core.stopping:
                started.core.step()
        finally:
            started.device.close()
        started.keep_latency()
        if options.timeline_file is not None:
            _write_timeline(Path(options.timeline_file), started.core)
    except EngineError as error:
        channel.send(wire.Fault(str(error)))
        return 1
    except Exception as error:
        log.exception("the core failed")
        channel.send(wire.Fault(f"the core failed: {error!r}"))
        return 1
    finally:
        channel.close()
    return 0


def _write_timeline(path: Path, core: Core) -> None:
    try:
        timelines.write(path, launches.timeline(core.spans))
    except timelines.TimelineError as error:
        log.warning("timeline: %s", error)


def _die_with(parent_pid: int) -> None:
    """Asks the kernel to end this process when the api process ends, however it ends."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        raise SystemExit("the api process ended before its core started")
