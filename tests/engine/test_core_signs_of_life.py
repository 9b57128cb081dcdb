"""A core says something every second, and does not wait for ever for a device that hangs. In virtual time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import core_harness
from core_harness import Harness
from drift_engine import wire
from drift_engine.core.flights import PASS_LIMIT_S
from drift_engine.core.loop import HEARTBEAT_S
from drift_engine.devices.base import Clock, CutPass, Event, Lane, Pass, Results
from drift_engine.devices.runner import Runner
from drift_engine.errors import DeviceError


class HandClock:
    def __init__(self) -> None:
        self.time_s = 100.0

    def now_s(self) -> float:
        return self.time_s


class HangingDevice:
    """Takes passes and ends none of them: device, lane and event in one."""

    name = "whole"
    sms = 1
    splits: Sequence[wire.Split] = ()
    lookahead_steps = 1
    sharing = wire.Sharing.NONE
    sharing_reason = "it hangs"

    def __init__(self, runner: Runner, clock: Clock) -> None:
        self.clock = clock
        self.whole = self

    def lanes(self, split: wire.Split) -> tuple[Lane, Lane]:
        raise AssertionError("it has no splits")

    def cut(self, work: Pass) -> CutPass:
        raise AssertionError("a fused core cuts nothing")

    def recall(self, event: Event) -> None:
        raise AssertionError("a pass has one step")

    def launch(self, work: Pass) -> Event:
        return self

    def launch_layers(self, cut: CutPass, stop: int) -> Event:
        raise AssertionError("a fused core cuts nothing")

    def done(self) -> bool:
        return False

    def wait(self, events: Sequence[Event], timeout_s: float) -> bool:
        return False

    def results(self) -> Results:
        raise AssertionError("the pass has not ended")

    def release(self, request_id: str) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def harness(tmp_path: Path, clock: HandClock) -> Iterator[Harness]:
    model, folder = core_harness.tiny_model(tmp_path)
    with Harness(model, folder, make_device=HangingDevice, clock=clock) as made:
        yield made


def steps_told(harness: Harness) -> int:
    harness.core.step()
    return sum(isinstance(message, wire.Step) for message in harness.mailbox.sent)


def test_an_idle_core_says_so_every_second(harness: Harness, clock: HandClock) -> None:
    told = steps_told(harness)
    assert steps_told(harness) == told
    clock.time_s += HEARTBEAT_S
    assert steps_told(harness) == told + 1
    assert steps_told(harness) == told + 1


def test_a_core_says_so_while_a_long_pass_runs(harness: Harness, clock: HandClock) -> None:
    harness.submit("a", [1, 2, 3], core_harness.greedy(4))
    told = steps_told(harness)
    assert steps_told(harness) == told
    clock.time_s += HEARTBEAT_S
    assert steps_told(harness) == told + 1


def test_a_pass_that_hangs_is_an_error_that_names_it(harness: Harness, clock: HandClock) -> None:
    harness.submit("a", [1, 2, 3], core_harness.greedy(4))
    steps_told(harness)
    clock.time_s += PASS_LIMIT_S
    steps_told(harness)
    clock.time_s += 1
    with pytest.raises(DeviceError, match="a pass of 0 decode rows and 3 prefill tokens has not ended"):
        harness.core.step()
