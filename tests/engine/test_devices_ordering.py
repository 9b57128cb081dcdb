"""Waits between streams: no launch overtakes an earlier one of the same request, and a forgotten wait is noticed."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drift_engine.devices.ordering import Ordering
from host_streams import HostGpu, HostMark, HostStream


class Never(HostMark):
    """The host never sees it done."""

    def __init__(self, stream: HostStream) -> None:
        super().__init__(stream)
        self.at_s = 0.0

    def done(self) -> bool:
        return False


def test_one_streams_launches_need_no_wait() -> None:
    ordering, stream = Ordering(), HostStream()
    for _ in range(3):
        ordering.before(stream, ["a", "b"])
        ordering.launched(stream, ["a", "b"], stream.mark())
    assert stream.waits == 0


def test_a_batch_waits_once_for_each_launch_it_follows() -> None:
    ordering = Ordering()
    first, second, third = HostStream(), HostStream(), HostStream()
    ordering.launched(first, ["a", "b"], first.mark())
    ordering.launched(second, ["c"], second.mark())
    ordering.before(third, ["a", "b", "c", "new"])
    assert third.waits == 2
    ordering.launched(third, ["a", "b", "c", "new"], third.mark())
    ordering.before(third, ["a", "b", "c", "new"])
    assert third.waits == 2


def test_what_was_forgotten_is_not_awaited() -> None:
    ordering, first, second = Ordering(), HostStream(), HostStream()
    ordering.launched(first, ["a"], Never(first))
    ordering.forget("a")
    ordering.forget("never launched")
    ordering.before(second, ["a"])
    ordering.launched(second, ["a"], second.mark())
    assert second.waits == 0


def test_a_launch_that_does_not_wait_is_refused() -> None:
    ordering, first, second = Ordering(check=True), HostStream(), HostStream()
    ordering.launched(first, ["a"], Never(first))
    with pytest.raises(AssertionError, match="request a was launched on a stream that does not wait"):
        ordering.launched(second, ["a"], second.mark())
    ordering.launched(second, ["b"], second.mark())
    ordering.before(second, ["a"])
    ordering.launched(second, ["a"], second.mark())


def test_a_wait_for_an_older_launch_is_not_enough() -> None:
    ordering, first, second = Ordering(check=True), HostStream(), HostStream()
    ordering.launched(first, ["old"], Never(first))
    ordering.before(second, ["old"])
    ordering.launched(first, ["new"], Never(first))
    with pytest.raises(AssertionError, match="request new"):
        ordering.launched(second, ["new"], second.mark())


def test_waits_reach_through_a_third_stream() -> None:
    ordering, first, second, third = Ordering(check=True), HostStream(), HostStream(), HostStream()
    ordering.launched(first, ["a", "b"], Never(first))
    ordering.before(second, ["a"])
    ordering.launched(second, ["a"], Never(second))
    ordering.before(third, ["a"])
    ordering.launched(third, ["b"], third.mark())  # b's own launch is behind a's, which was awaited


def test_what_the_host_saw_end_needs_no_wait() -> None:
    ordering, first, second = Ordering(check=True), HostStream(), HostStream()
    ordering.launched(first, ["a"], first.mark())
    ordering.launched(second, ["a"], second.mark())


@given(
    launches=st.lists(
        st.tuples(st.integers(0, 3), st.sets(st.integers(0, 4), min_size=1)), min_size=1, max_size=25
    ),
    seed=st.integers(0, 1000),
)
def test_a_requests_work_runs_in_the_order_of_its_launches(
    launches: list[tuple[int, set[int]]], seed: int
) -> None:
    gpu = HostGpu(random.Random(seed))
    streams = [gpu.stream() for _ in range(4)]
    ordering = Ordering(check=True)
    ran: list[int] = []
    for number, (stream_index, numbers) in enumerate(launches):
        stream, requests = streams[stream_index], [f"r{n}" for n in numbers]
        ordering.before(stream, requests)
        stream.run(lambda number=number: ran.append(number))  # type: ignore[misc]
        ordering.launched(stream, requests, stream.mark())
        gpu.look()
    while any(stream.queue for stream in streams):
        gpu.look()
    for request in range(5):
        mine = [number for number, (_, numbers) in enumerate(launches) if request in numbers]
        assert [number for number in ran if number in mine] == mine
