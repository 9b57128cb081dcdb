"""Parts of a GPU's SMs for decode and prefill, as streams: from the driver's resources to pairs of green contexts.

The SMs are split once into the smallest groups that the driver makes; every part merges some of them. A kernel on a
part's stream runs on the part's SMs and no others. All parts are made at start: to change the split is to take
another stream. What a part has is what the driver says that it got. `green_contexts.CudaDriver` is the real driver.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Protocol

from drift_kernels.driver_errors import INVALID_RESOURCE_CONFIGURATION, DriverError

MOST_SPLITS = 8
"""Decode sizes, evenly spaced: on 132 SMs in groups of 8 they are 16 apart, as fine as MuxWise's (arXiv 2504.14489),
which found little in finer steps. A green context was published to cost 4 MB per group; not yet measured here."""

Resource = Any
"""SMs or workqueues, as the driver describes them."""

Context = Any


class Driver(Protocol):
    """The driver calls that partitions need. All raise DriverError."""

    def version(self) -> str:
        """Of the driver and its binding, for people."""

    def sms(self) -> Resource:
        """All SMs of the device."""

    def workqueues(self) -> Resource:
        """Workqueues that a context does not share with others as long as there are enough. CUDA 13.1."""

    def split(self, sms: Resource) -> tuple[Sequence[Resource], Resource]:
        """Disjoint groups of the smallest legal size, and what is left over (maybe no SM)."""

    def count(self, sms: Resource) -> int: ...

    def create_context(self, resources: Sequence[Resource]) -> Context:
        """On all of the resources: SMs of one split, and at most one of workqueues."""

    def context_sms(self, context: Context) -> int:
        """What it really got."""

    def create_stream(self, context: Context, *, urgent: bool) -> int:
        """The handle of a stream that never waits for the default stream."""

    def destroy_stream(self, stream: int) -> None:
        """Work that was launched on it finishes."""

    def destroy_context(self, context: Context) -> None:
        """Only when its streams are destroyed."""


@dataclass(frozen=True, slots=True)
class Part:
    """A stream and on how many SMs its kernels run."""

    sms: int
    stream: int


@dataclass(frozen=True, slots=True)
class Pair:
    """Two parts that share no SM."""

    decode: Part
    prefill: Part


class Partitions:
    """Pairs, fewest decode SMs first. `close` gives everything back; nothing may run on the streams then."""

    def __init__(
        self,
        pairs: Sequence[Pair],
        *,
        total_sms: int,
        group_sms: int,
        groups: int,
        rest_sms: int,
        rest_used: bool,
        balanced: bool,
        version: str,
        made: ExitStack,
    ) -> None:
        self.pairs = tuple(pairs)
        self.total_sms = total_sms
        self.group_sms = group_sms
        self.groups = groups
        self.rest_sms = rest_sms
        self.rest_used = rest_used
        self.balanced = balanced
        self._version = version
        self._made = made

    def describe(self) -> str:
        """For the log."""
        rest = ""
        if self.rest_sms:
            rest = f" and {self.rest_sms} over, {'given to prefill' if self.rest_used else 'unused'}"
        queues = "workqueues of their own" if self.balanced else "shared workqueues"
        return (
            f"{self.total_sms} SMs in {self.groups} groups of {self.group_sms}{rest}; {len(self.pairs)} splits with "
            f"{queues}, by cuDevSmResourceSplitByCount; {self._version}"
        )

    def close(self) -> None:
        """Backwards: each stream before its context, the last pair first."""
        self._made.close()


def sizes(groups: int, most: int = MOST_SPLITS) -> tuple[int, ...]:
    """Numbers of groups that decode may get, at most `most` of them evenly spaced; prefill has at least one."""
    assert groups >= 2, groups
    assert most >= 1, most
    count = min(most, groups - 1)
    if count == 1:
        return (groups // 2,)
    return tuple(1 + round(index * (groups - 2) / (count - 1)) for index in range(count))


def create(driver: Driver, *, balanced: bool, most: int = MOST_SPLITS) -> Partitions:
    """Every pair at once. Raises DriverError, and leaves nothing behind then."""
    device = driver.sms()
    groups, rest = driver.split(device)
    total_sms, rest_sms = driver.count(device), driver.count(rest)
    if len(groups) < 2:
        raise DriverError(
            "cuDevSmResourceSplitByCount", None, f"{len(groups)} group of {total_sms} SMs", "too few to split"
        )
    queues = [driver.workqueues()] if balanced else []
    with ExitStack() as made:
        leftover = [rest] if rest_sms else []
        pairs = []
        for size in sizes(len(groups), most):
            decode = _part(driver, [*groups[:size], *queues], made, urgent=True)
            try:
                prefill = _part(driver, [*groups[size:], *leftover, *queues], made, urgent=False)
            except DriverError as error:
                # What is left over may be aligned in another way than the groups: then no context can have both.
                if not leftover or error.error_code != INVALID_RESOURCE_CONFIGURATION:
                    raise
                leftover = []
                prefill = _part(driver, [*groups[size:], *queues], made, urgent=False)
            if decode.sms + prefill.sms > total_sms:
                found = f"parts of {decode.sms} and {prefill.sms} SMs on a GPU of {total_sms}"
                raise DriverError("cuGreenCtxGetDevResource", None, found, "they overlap")
            pairs.append(Pair(decode, prefill))
        return Partitions(
            pairs,
            total_sms=total_sms,
            group_sms=driver.count(groups[0]),
            groups=len(groups),
            rest_sms=rest_sms,
            rest_used=bool(leftover),
            balanced=balanced,
            version=driver.version(),
            made=made.pop_all(),
        )


def _part(driver: Driver, resources: Sequence[Resource], made: ExitStack, *, urgent: bool) -> Part:
    context = driver.create_context(resources)
    made.callback(driver.destroy_context, context)
    stream = driver.create_stream(context, urgent=urgent)
    made.callback(driver.destroy_stream, stream)
    return Part(driver.context_sms(context), stream)
