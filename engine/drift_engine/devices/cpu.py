"""The CPU as a device: one lane, a thread that runs passes in order with its own intra-op thread count.

torch releases the GIL inside its operators, so the core's loop goes on while a lane computes.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Sequence

import torch

from drift_engine.devices import contention
from drift_engine.devices.base import Clock, Lane, Pass, Results
from drift_engine.devices.runner import Runner
from drift_engine.errors import DeviceError

log = logging.getLogger(__name__)


class CpuEvent:
    """Set by the lane's thread, read by the core's."""

    def __init__(self) -> None:
        self._finished = threading.Event()
        self._results: Results | None = None
        self._error: BaseException | None = None

    def done(self) -> bool:
        return self._finished.is_set()

    def wait(self, timeout_s: float) -> bool:
        return self._finished.wait(timeout_s)

    def results(self) -> Results:
        assert self.done(), "results of a pass that is still running"
        if self._error is not None:
            raise DeviceError(f"a pass failed: {self._error!r}") from self._error
        assert self._results is not None
        return self._results

    def finish(self, results: Results | None, error: BaseException | None) -> None:
        self._results, self._error = results, error
        self._finished.set()


class CpuLane:
    """A thread with up to `threads` intra-op threads; owns a queue of launched passes."""

    def __init__(
        self, name: str, threads: int, runner: Runner, clock: Clock, meter: contention.Meter
    ) -> None:
        self.name = name
        self._threads = contention.Threads(threads, meter)
        self._runner = runner
        self._clock = clock
        self._launched: queue.SimpleQueue[tuple[Pass, CpuEvent] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name=f"lane-{name}", daemon=True)
        self._thread.start()

    def launch(self, work: Pass) -> CpuEvent:
        event = CpuEvent()
        self._launched.put((work, event))
        return event

    def close(self) -> None:
        self._launched.put(None)
        self._thread.join()

    def _serve(self) -> None:
        threads = self._threads
        torch.set_num_threads(threads.count)
        while (item := self._launched.get()) is not None:
            work, event = item
            if threads.update(self._clock.now_s()):
                torch.set_num_threads(threads.count)
                log.debug("computing with %d of %d threads", threads.count, threads.most)
            try:
                results = self._runner.run(work, lane_sms=threads.most)
            except BaseException as error:  # carried to the core, which ends the node
                event.finish(None, error)
            else:
                event.finish(results, None)
            del item, work, event  # a waiting lane must not keep the last pass's rows alive


class CpuDevice:
    """The whole CPU as one lane."""

    def __init__(
        self, runner: Runner, clock: Clock, *, threads: int, meter: contention.Meter | None = None
    ) -> None:
        self.clock: Clock = clock
        self._runner = runner
        self._whole = CpuLane("whole", threads, runner, clock, meter or contention.ProcMeter())
        self.lanes: Sequence[Lane] = (self._whole,)

    def release(self, request_id: str) -> None:
        self._runner.release(request_id)

    def close(self) -> None:
        self._whole.close()
