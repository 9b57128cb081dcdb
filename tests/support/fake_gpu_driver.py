"""A `partitions.Driver` that follows what CUDA documents: sizes, what may be merged, what is refused, in which order.

SMs are numbers, so that a test sees which ones a part got. `refuse` makes a call fail, by its name in CUDA.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from drift_kernels.driver_errors import (
    INVALID_RESOURCE_CONFIGURATION,
    INVALID_RESOURCE_TYPE,
    OUT_OF_MEMORY,
    DriverError,
)

INVALID_VALUE = 1
INVALID_CONTEXT = 201


@dataclass(frozen=True)
class Sms:
    numbers: frozenset[int]
    split: int = 0  # of which split call it is an output; 0: none
    aligned: bool = True


@dataclass(frozen=True)
class Workqueues:
    pass


@dataclass(eq=False)
class Context:
    sms: frozenset[int]
    streams: set[int] = field(default_factory=set)
    destroyed: bool = False


class FakeDriver:
    """`lost` SMs can be in no group, beside those that are too few for one; `contexts` fit into memory. Parts get
    `extra` SMs that they share, and call number `refuse_nth` fails."""

    def __init__(
        self,
        total: int,
        smallest: int,
        *,
        lost: int = 0,
        rest_aligned: bool = True,
        queues: bool = True,
        contexts: int = 1000,
        refuse: dict[str, int | None] | None = None,
        refuse_nth: int | None = None,
        extra: int = 0,
    ) -> None:
        self.total = total
        self.smallest = smallest
        self.lost = lost
        self.rest_aligned = rest_aligned
        self.queues = queues
        self.room = contexts
        self.refuse = refuse or {}
        self.refuse_nth = refuse_nth
        self.extra = extra
        self.calls = 0
        self.contexts: dict[int, Context] = {}  # by stream
        self.alive: list[object] = []
        self.log: list[str] = []
        self._splits = 0
        self._streams = 0

    def version(self) -> str:
        return "a driver that is not there"

    def sms(self) -> Sms:
        self._enter("cuDeviceGetDevResource")
        return Sms(frozenset(range(self.total)))

    def workqueues(self) -> Workqueues:
        if not self.queues:
            raise DriverError("cuDeviceGetDevResource", INVALID_RESOURCE_TYPE, "INVALID_RESOURCE_TYPE")
        return Workqueues()

    def split(self, sms: Sms) -> tuple[Sequence[Sms], Sms]:
        self._enter("cuDevSmResourceSplitByCount")
        assert sms.split == 0, "an output of a split can't be split again without a context"
        self._splits += 1
        numbers = sorted(sms.numbers)
        count = (len(numbers) - self.lost) // self.smallest
        cuts = range(0, count * self.smallest, self.smallest)
        groups = [Sms(frozenset(numbers[start : start + self.smallest]), self._splits) for start in cuts]
        rest = frozenset(numbers[count * self.smallest :])
        return groups, Sms(rest, self._splits, self.rest_aligned)

    def count(self, sms: Sms) -> int:
        return len(sms.numbers)

    def create_context(self, resources: Sequence[Sms | Workqueues]) -> Context:
        self._enter("cuDevResourceGenerateDesc")
        parts = [part for part in resources if isinstance(part, Sms)]
        assert parts, "a context without SMs"
        if (
            len(resources) - len(parts) > 1
            or len({part.split for part in parts}) > 1
            or len({part.aligned for part in parts}) > 1
        ):
            self._fail("cuDevResourceGenerateDesc", INVALID_RESOURCE_CONFIGURATION)
        self._enter("cuGreenCtxCreate")
        if sum(isinstance(thing, Context) for thing in self.alive) >= self.room:
            self._fail("cuGreenCtxCreate", OUT_OF_MEMORY)
        context = Context(frozenset().union(*(part.numbers for part in parts)))
        self.alive.append(context)
        return context

    def context_sms(self, context: Context) -> int:
        self._enter("cuGreenCtxGetDevResource")
        return len(context.sms) + self.extra

    def create_stream(self, context: Context, *, urgent: bool) -> int:
        self._enter("cuGreenCtxStreamCreate")
        if context.destroyed:
            self._fail("cuGreenCtxStreamCreate", INVALID_CONTEXT)
        self._streams += 1
        self.contexts[self._streams] = context
        context.streams.add(self._streams)
        self.alive.append(self._streams)
        self.log.append(f"{'urgent ' if urgent else ''}stream {self._streams}")
        return self._streams

    def destroy_stream(self, stream: int) -> None:
        context = self.contexts[stream]
        assert not context.destroyed, "CUDA detaches the streams of a destroyed context: destroy them first"
        context.streams.remove(stream)
        self.alive.remove(stream)
        self.log.append(f"destroy stream {stream}")

    def destroy_context(self, context: Context) -> None:
        assert not context.destroyed
        assert not context.streams, "a context is destroyed before its stream"
        context.destroyed = True
        self.alive.remove(context)

    def _enter(self, call: str) -> None:
        self.calls += 1
        if self.calls == self.refuse_nth:
            self._fail(call, 999)
        if call in self.refuse:
            self._fail(call, self.refuse[call])

    def _fail(self, call: str, code: int | None) -> None:
        raise DriverError(call, code, "refused by the test")
