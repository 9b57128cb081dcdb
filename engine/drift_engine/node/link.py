"""The api process's end of the socket between the two processes of a node.

In: `wire` messages to send and the requests (`flights`) that wait for outputs. Out: each output to its
flight, everything else to the observer. One ZeroMQ pair on a Unix-domain path in a private folder; the link
binds, the core connects. Sending never waits: what can be under way is bounded by admission
(`drift_engine.api.admission`), not by the socket.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

import zmq
import zmq.asyncio

from drift_engine import wire


class Sink(Protocol):
    """Where the outputs of one request go."""

    def put(self, index: int, output: wire.Output, at_s: float) -> None:
        """Must not block and must not raise: it is called for every output of a step in turn."""


class Observer(Protocol):
    """Who hears of all that is not one request's output. Called in the order of arrival."""

    def loading(self, message: wire.Loading) -> None: ...
    def ready(self, message: wire.Ready) -> None: ...
    def step(self, message: wire.Step, at_s: float) -> None: ...
    def costs(self, message: wire.Costs) -> None: ...
    def kv_events(self, message: wire.KvEvents) -> None: ...
    def fault(self, message: wire.Fault) -> None: ...


class CoreLink:
    def __init__(self, address: str, observer: Observer, clock: Callable[[], float] = time.monotonic) -> None:
        self._observer = observer
        self._clock = clock
        self._open: dict[str, tuple[Sink, int]] = {}
        self._context = zmq.asyncio.Context()
        self._socket: zmq.asyncio.Socket = self._context.socket(zmq.PAIR)
        # no high-water mark: a full queue would make a send wait, and admission bounds the queue already
        self._socket.set_hwm(0)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.bind(address)
        self._down: str | None = None

    @property
    def open_requests(self) -> int:
        return len(self._open)

    def submit(self, message: wire.Submit, sink: Sink, index: int) -> None:
        """Outputs go to `sink.put(index, ...)` until one carries `finish`."""
        assert message.request_id not in self._open, "request ids are used once"
        if self._down is not None:
            sink.put(index, _aborted(message.request_id, self._down), self._clock())
            return
        self._open[message.request_id] = (sink, index)
        self._send(message)

    def cancel(self, request_id: str) -> None:
        """No output of the request arrives after this. Nothing happens when it has ended already."""
        if self._open.pop(request_id, None) is not None and self._down is None:
            self._send(wire.Cancel(request_id))

    def flush_cache(self) -> None:
        self._send(wire.FlushCache())

    def set_bounds(self, bounds: wire.SetBounds) -> None:
        self._send(bounds)

    def set_targets(self, targets: wire.Targets) -> None:
        self._send(wire.SetTargets(targets))

    def shutdown(self) -> None:
        self._send(wire.Shutdown())

    def fail(self, reason: str) -> None:
        """Ends every open request, and each one submitted later, with this error."""
        self._down = reason
        self.abort(reason)

    def abort(self, reason: str) -> None:
        """Ends every open request with this error and tells the core to forget them."""
        open_requests, self._open = self._open, {}
        now_s = self._clock()
        for request_id, (sink, index) in open_requests.items():
            if self._down is None:
                self._send(wire.Cancel(request_id))
            sink.put(index, _aborted(request_id, reason), now_s)

    async def run(self) -> None:
        """Hands out messages until cancelled. Raises msgspec.ValidationError if the core speaks another protocol."""
        while True:
            message = wire.decode_from_core(await self._socket.recv())
            match message:
                case wire.Step():
                    self._step(message)
                case wire.Costs():
                    self._observer.costs(message)
                case wire.KvEvents():
                    self._observer.kv_events(message)
                case wire.Loading():
                    self._observer.loading(message)
                case wire.Ready():
                    self._observer.ready(message)
                case wire.Fault():
                    self._observer.fault(message)

    def close(self) -> None:
        self._socket.close(linger=200)  # ms: lets a last Shutdown message out
        self._context.term()

    def _step(self, step: wire.Step) -> None:
        now_s = self._clock()
        # the observer comes first: a client that has seen its last token may read /metrics at once
        self._observer.step(step, now_s)
        for output in step.outputs:
            entry = self._open.get(output.request_id)
            if entry is None:
                continue  # cancelled while this output was under way
            if output.finish is not None:
                del self._open[output.request_id]
            entry[0].put(entry[1], output, now_s)

    def _send(self, message: wire.ToCore) -> None:
        future: asyncio.Future[object] = self._socket.send(wire.encode(message))  # type: ignore[assignment]
        if not future.done():
            future.add_done_callback(_forget)


def _forget(future: asyncio.Future[object]) -> None:
    # a message still queued when the socket closes is of no interest to anybody
    if not future.cancelled():
        future.exception()


def _aborted(request_id: str, reason: str) -> wire.Output:
    return wire.Output(request_id=request_id, token_ids=[], finish=wire.FinishReason.ABORTED, error=reason)
