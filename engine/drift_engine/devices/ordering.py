"""Which launch runs after which where lanes work at the same time: the one place of waits between streams.

A request's launches run in the order in which they were made, whatever lanes they went to: a cut prefill that moves
to another lane, and the decode step that follows a prefill, wait on the device for what came before, and the host
for nothing. Requests share pages only once the host has seen the pass end that wrote them, so the order of each
request's own launches is all the order there must be.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from drift_engine.devices.streams import Mark, Stream


@dataclass(frozen=True, slots=True, eq=False)
class _Launch:
    """`number` counts the launches of its stream; `behind` is how far other streams were awaited before it."""

    stream: Stream
    number: int
    mark: Mark
    behind: dict[int, int]


@dataclass(slots=True)
class _Known:
    """Of a stream: how many launches it had, and by stream the last launch that it runs after."""

    launches: int = 0
    behind: dict[int, int] = field(default_factory=dict)


class Ordering:
    """`before` a launch and `launched` after it. With `check` a launch that could overtake one of its requests'
    earlier launches is an assertion error; it costs a dictionary lookup per row."""

    def __init__(self, *, check: bool = __debug__) -> None:
        self._check = check
        self._last: dict[str, _Launch] = {}
        self._known: dict[int, _Known] = {}

    def before(self, stream: Stream, requests: Collection[str]) -> None:
        """What goes to `stream` from here on runs after the requests' launches on other streams."""
        found = (self._last.get(request) for request in requests)
        others = {
            id(launch): launch for launch in found if launch is not None and launch.stream is not stream
        }
        known = self._of(stream)
        for launch in others.values():
            stream.wait(launch.mark)
            reached = {**launch.behind, id(launch.stream): launch.number}
            for other, number in reached.items():
                known.behind[other] = max(number, known.behind.get(other, 0))

    def launched(self, stream: Stream, requests: Collection[str], end: Mark) -> None:
        """Work on these requests went to `stream`, up to the mark."""
        if self._check:
            for request in requests:
                self._check_order(stream, request)
        known = self._of(stream)
        known.launches += 1
        launch = _Launch(stream, known.launches, end, dict(known.behind))
        for request in requests:
            self._last[request] = launch

    def forget(self, request: str) -> None:
        """Only when nothing of it is in flight."""
        self._last.pop(request, None)

    def _check_order(self, stream: Stream, request: str) -> None:
        last = self._last.get(request)
        if last is None or last.stream is stream:
            return
        awaited = self._of(stream).behind.get(id(last.stream), 0)
        assert awaited >= last.number or last.mark.done(), (
            f"request {request} was launched on a stream that does not wait for its last launch on another"
        )

    def _of(self, stream: Stream) -> _Known:
        return self._known.setdefault(id(stream), _Known())
