"""The CPU as a device: lanes are threads that run passes in order, each with its own intra-op threads.

torch releases the GIL inside its operators, so the core's loop goes on while a lane computes, and two lanes compute
at the same time. The lane over the whole CPU runs where the system puts it; the two lanes of a split are pinned to
disjoint cores, decode to the first of them.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections.abc import Callable, Sequence

import torch

from drift_engine import wire
from drift_engine.devices import contention
from drift_engine.devices.base import Clock, CutPass, Event, Pass, Results
from drift_engine.devices.runner import LayeredPass, Runner
from drift_engine.errors import DeviceError

log = logging.getLogger(__name__)


class CpuEvent:
    """Set by a lane's thread, read by the core's."""

    def __init__(self, ended: threading.Condition) -> None:
        self._ended = ended
        self._done = False
        self._results: Results | None = None
        self._error: BaseException | None = None

    def done(self) -> bool:
        return self._done

    def results(self) -> Results:
        assert self._done, "results of a pass that is still running"
        if self._error is not None:
            raise DeviceError(f"a pass failed: {self._error!r}") from self._error
        assert self._results is not None
        return self._results

    def finish(self, results: Results | None, error: BaseException | None) -> None:
        with self._ended:
            self._results, self._error, self._done = results, error, True
            self._ended.notify_all()


class CpuCut:
    """A pass between its layers, and the end of what was launched of it last."""

    def __init__(self, layered: LayeredPass) -> None:
        self.layered = layered
        self.layers = layered.layers
        self.launched = 0
        self.last: CpuEvent | None = None

    def drop(self) -> None:
        assert self.last is None or self.last.done(), "a pass is dropped while its layers run"


class CpuLane:
    """A thread with up to `threads` intra-op threads, on `cores` only where they are given."""

    def __init__(
        self,
        name: str,
        threads: int,
        runner: Runner,
        clock: Clock,
        meter: contention.Meter,
        ended: threading.Condition,
        cores: Sequence[int] | None = None,
        since: contention.Usage | None = None,
    ) -> None:
        self.name = name
        self.sms = threads
        self._cores = cores
        self._threads = contention.Threads(threads, meter, since)
        self._runner = runner
        self._clock = clock
        self._ended = ended
        self._launched: queue.SimpleQueue[tuple[Callable[[], Results], CpuEvent] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name=f"lane-{name}", daemon=True)
        self._thread.start()

    def launch(self, work: Pass) -> CpuEvent:
        return self._enqueue(lambda: self._runner.run(work, lane_sms=self.sms))

    def launch_layers(self, cut: CutPass, stop: int) -> CpuEvent:
        assert isinstance(cut, CpuCut)
        assert cut.launched < stop <= cut.layers, (cut.launched, stop, cut.layers)
        before, layered = cut.last, cut.layered

        def run() -> Results:
            if before is not None:
                self._await(before)
            return layered.advance(stop, lane_sms=self.sms)

        cut.launched = stop
        cut.last = self._enqueue(run)
        return cut.last

    def close(self) -> None:
        self._launched.put(None)
        self._thread.join()

    def _enqueue(self, run: Callable[[], Results]) -> CpuEvent:
        event = CpuEvent(self._ended)
        self._launched.put((run, event))
        return event

    def _await(self, event: CpuEvent) -> None:
        """The pass's earlier layers may run on another lane."""
        with self._ended:
            self._ended.wait_for(event.done)
        event.results()  # raises where they failed

    def _serve(self) -> None:
        if self._cores is not None:
            os.sched_setaffinity(0, self._cores)  # of this thread; those of its OpenMP team inherit it
        threads = self._threads
        torch.get_num_threads()  # a thread's first question takes over the count that some thread set last
        torch.set_num_threads(threads.count)
        while (item := self._launched.get()) is not None:
            run, event = item
            if threads.update(self._clock.now_s()):
                torch.set_num_threads(threads.count)
                log.debug("lane %s: computing with %d of %d threads", self.name, threads.count, threads.most)
            try:
                results = run()
            except BaseException as error:  # carried to the core, which ends the node
                event.finish(None, error)
            else:
                event.finish(results, None)
            del item, run, event  # a waiting lane must not keep the last pass's rows alive


class CpuDevice:
    """The whole CPU as one lane, and every way to split its cores in two."""

    lookahead_steps = 1

    def __init__(
        self,
        runner: Runner,
        clock: Clock,
        *,
        threads: int,
        cores: Sequence[int] | None = None,
        meter: contention.Meter | None = None,
        since: contention.Usage | None = None,
    ) -> None:
        """`cores` to split, by default the process's; fewer than two, or fewer than `threads`, are not split.

        `since` is what the meter said when the process started.
        """
        self.clock: Clock = clock
        self._runner = runner
        self._meter = meter or contention.ProcMeter()
        self._ended = threading.Condition()
        self._cores = tuple(sorted(os.sched_getaffinity(0)) if cores is None else cores)[:threads]
        self.splits: Sequence[wire.Split] = (
            tuple(wire.Split(count, threads - count) for count in range(1, threads))
            if len(self._cores) == threads
            else ()
        )
        self.sharing = wire.Sharing.CORES if self.splits else wire.Sharing.NONE
        self.sharing_reason = (
            f"{threads} thread{'s' * (threads > 1)} on {len(self._cores)} of {os.cpu_count()} cores"
        )
        self.whole = CpuLane("whole", threads, runner, clock, self._meter, self._ended, since=since)
        self._lanes: dict[wire.Split, tuple[CpuLane, CpuLane]] = {}

    def lanes(self, split: wire.Split) -> tuple[CpuLane, CpuLane]:
        """Made when they are first asked for: a thread each, which costs nothing while it waits."""
        if split not in self._lanes:
            assert split in self.splits, f"{split} is not among {self.splits}"
            first = self._cores[: split.decode_sms]
            self._lanes[split] = (
                self._lane(f"decode-{split.decode_sms}", first),
                self._lane(f"prefill-{split.prefill_sms}", self._cores[split.decode_sms :]),
            )
        return self._lanes[split]

    def recall(self, event: Event) -> None:
        """A pass has one step."""

    def cut(self, work: Pass) -> CpuCut:
        return CpuCut(LayeredPass(self._runner, work))

    def wait(self, events: Sequence[Event], timeout_s: float) -> bool:
        with self._ended:
            return self._ended.wait_for(lambda: any(event.done() for event in events), timeout_s)

    def release(self, request_id: str) -> None:
        self._runner.release(request_id)

    def close(self) -> None:
        self.whole.close()
        for pair in self._lanes.values():
            for lane in pair:
                lane.close()

    def _lane(self, name: str, cores: Sequence[int]) -> CpuLane:
        return CpuLane(name, len(cores), self._runner, self.clock, self._meter, self._ended, cores)
