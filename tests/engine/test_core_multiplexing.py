"""Several lanes at once: a request's tokens stay what they are, whatever runs where, in whatever order."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import core_harness
import random_schedules
from core_harness import Harness
from drift_engine import wire
from drift_engine.devices.base import Clock
from drift_engine.devices.runner import Runner
from drift_engine.models.transformer import Transformer
from random_schedules import Scheduled
from shuffled_device import DiceClock, Erratic, ShuffledDevice

model = core_harness.model


class Shuffled(Harness):
    """A core over a shuffled device of four SMs; the dice also make the latency model's answers."""

    shuffled: ShuffledDevice

    def __init__(
        self, model: Transformer, folder: Path, seed: int, *, lookahead_steps: int = 1, **options: object
    ) -> None:
        dice = random.Random(seed)

        def make_device(runner: Runner, clock: Clock) -> ShuffledDevice:
            self.shuffled = ShuffledDevice(runner, clock, dice, lookahead_steps=lookahead_steps)
            return self.shuffled

        super().__init__(
            model,
            folder,
            make_device=make_device,
            clock=DiceClock(),
            latency=Erratic(dice),
            **options,  # type: ignore[arg-type]
        )


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    workload=random_schedules.workloads(),
    mode=st.sampled_from([*wire.Mode]),
    slack=st.sampled_from([*wire.Slack]),
    min_dwell_s=st.sampled_from([0.0, 0.05]),
    lookahead_steps=st.sampled_from([1, 5]),
    pages=st.sampled_from([17, 24, 64]),
    max_step_tokens=st.sampled_from([9, 16, 256]),
    prefix=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_tokens_are_those_of_a_lone_run_for_any_schedule(
    model: tuple[Transformer, Path],
    workload: list[Scheduled],
    mode: wire.Mode,
    slack: wire.Slack,
    min_dwell_s: float,
    lookahead_steps: int,
    pages: int,
    max_step_tokens: int,
    prefix: bool,
    seed: int,
) -> None:
    expected = core_harness.alone(*model, [scheduled.request for scheduled in workload])
    with Shuffled(
        *model,
        seed,
        lookahead_steps=lookahead_steps,
        mode=mode,
        slack=slack,
        min_dwell_s=min_dwell_s,
        pages=pages,
        max_step_tokens=max_step_tokens,
        prefix=prefix,
    ) as harness:
        random_schedules.play(harness, workload, expected)


def test_prefill_and_decode_run_at_the_same_time_on_changing_splits(model: tuple[Transformer, Path]) -> None:
    requests = [(f"r{i}", list(range(i, i + 40)), core_harness.greedy(20)) for i in range(6)]
    expected = core_harness.alone(*model, requests)
    with Shuffled(*model, 7, mode=wire.Mode.MUX, pages=256) as harness:
        for request in requests:
            harness.submit(*request)
            for _ in range(10):
                harness.step()
        harness.run()
        assert {name: answer.token_ids for name, answer in harness.answers.items()} == expected
        assert harness.shuffled.together > 10
        lanes = {span.lane.partition("-")[0] for span in harness.core.spans}
        assert lanes == {"whole", "decode", "prefill"}
        assert len(harness.shuffled.used) > 1


def test_a_cancelled_prefill_ends_with_the_layers_that_were_launched(
    model: tuple[Transformer, Path],
) -> None:
    with Shuffled(*model, 1, mode=wire.Mode.MUX, prefix=False) as harness:
        harness.submit("gone", list(range(40)), core_harness.greedy(5))
        harness.step()
        assert harness.cache.pages_held > 0
        harness.cancel("gone")
        del harness.answers["gone"]
        for _ in range(50):
            harness.step()
        assert harness.cache.pages_free == harness.cache.pages_total
        assert not harness.shuffled.queued


def test_lanes_that_overlap_are_used_by_their_mode_only(model: tuple[Transformer, Path]) -> None:
    whole = wire.Split(4, 4)
    for mode, allowed in ((wire.Mode.OVERLAP, True), (wire.Mode.MUX, False), (wire.Mode.BATCH_TABLE, False)):
        with Shuffled(*model, 5, mode=mode, pages=256) as harness:
            for index in range(6):
                harness.submit(f"r{index}", list(range(index, index + 40)), core_harness.greedy(20))
                for _ in range(10):
                    harness.step()
            harness.run()
            assert harness.shuffled.used
            assert (harness.shuffled.used == {whole}) is allowed
            assert (whole in harness.shuffled.used) is allowed


@pytest.mark.parametrize("mode", [wire.Mode.MUX, wire.Mode.AUTO, wire.Mode.MUXWISE, wire.Mode.BATCH_TABLE])
def test_lanes_of_threads_give_the_same_tokens(model: tuple[Transformer, Path], mode: wire.Mode) -> None:
    requests = [(f"r{i}", list(range(i, i + 30 + 7 * i)), core_harness.greedy(16)) for i in range(6)]
    expected = core_harness.alone(*model, requests)
    with Harness(*model, mode=mode, pages=256) as harness:
        for request in requests:
            harness.submit(*request)
            harness.step()
        harness.run()
        assert {name: answer.token_ids for name, answer in harness.answers.items()} == expected


def test_bounds_hold_from_the_next_plan_until_their_time_is_over(model: tuple[Transformer, Path]) -> None:
    with Shuffled(*model, 3, mode=wire.Mode.MUX, pages=1024) as harness:
        clock = harness.shuffled.clock
        assert isinstance(clock, DiceClock)

        def used(prefix: str) -> set[int]:
            harness.shuffled.used.clear()
            for index in range(6):
                prompt = list(range(index, index + 40))
                harness.submit(f"{prefix}{index}", prompt, core_harness.greedy(20), arrival_s=clock.time_s)
                for _ in range(10):
                    harness.step()
            harness.run()
            return {split.decode_sms for split in harness.shuffled.used}

        assert len(used("free")) > 1
        harness.mailbox.inbox.append(wire.SetBounds(1, 2, 2, clock.time_s + 1e6))
        assert used("bounded") == {2}
        clock.time_s += 1e6
        assert len(used("free again")) > 1


def test_a_new_target_reaches_running_requests(model: tuple[Transformer, Path]) -> None:
    with Harness(*model) as harness:
        own = wire.Slo(tbt_ms=33.0)
        harness.mailbox.inbox.append(wire.Submit("own", [1, 2], core_harness.greedy(50), 0.0, slo=own))
        harness.answers["own"] = core_harness.Answer()
        harness.submit("node's", [1, 2, 3], core_harness.greedy(50))
        harness.step()
        running = harness.core.requests
        assert running["node's"].tbt_target_s == 0.08
        harness.mailbox.inbox.append(wire.SetTargets(wire.Targets(400.0, 0.0, 20.0)))
        harness.step()
        assert running["node's"].tbt_target_s == 0.02
        assert running["own"].tbt_target_s == 0.033
        harness.run()
