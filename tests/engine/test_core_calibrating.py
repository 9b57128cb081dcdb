"""What a node learns of its own speed: passes before it serves, and what an earlier run left behind."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

import core_harness
import host_streams
from core_harness import Harness
from drift_engine.core import calibrating, learned
from drift_engine.devices import sharing
from drift_engine.devices.base import Clock, Device
from drift_engine.devices.runner import Runner
from drift_engine.latency import Kind, LatencyModel, Load, saved
from drift_engine.latency.fitting import Measurement, fit
from drift_engine.wire import Split

IDENTITY = saved.Identity("cpu", "a model", "float32", "1")


@pytest.fixture
def harness(tmp_path: Path) -> Harness:
    return Harness(*core_harness.tiny_model(tmp_path), pages=4096)


def measure(harness: Harness, **limits: float) -> calibrating.Measured:
    asked = {
        "kv_tokens": 4096 * 4,
        "page_tokens": 4,
        "max_context_tokens": 512,
        "max_rows": 8,
        "max_step_tokens": 512,
        "budget_s": 60.0,
    }
    return calibrating.measure(harness.device, calibrating.Bounds(**(asked | limits)))  # type: ignore[arg-type]


def test_both_phases_are_timed_on_every_lane_size(harness: Harness) -> None:
    with harness:
        assert harness.device.splits == (Split(1, 1),)
        measured = measure(harness)
        for kind in (Kind.DECODE, Kind.PREFILL):
            assert {m.sms for m in measured.alone if m.load.kind is kind} == {1, 2}
            assert {sms for load, sms, _ in measured.beside if load.kind is kind} <= {1}
        assert all(m.seconds > 0 for m in measured.alone)
        assert measured.beside


def test_parts_that_are_the_whole_device_are_only_timed_beside_each_other(tmp_path: Path) -> None:
    def overlapping(runner: Runner, clock: Clock) -> Device:
        return host_streams.open_device(runner, clock, sharing.overlapping)

    with Harness(*core_harness.tiny_model(tmp_path), pages=4096, make_device=overlapping) as harness:
        assert harness.device.splits == (Split(4, 4),)
        measured = measure(harness)
        assert len({(m.load, m.sms) for m in measured.alone}) == len(measured.alone)
        assert {m.sms for m in measured.alone} == {4}
        assert measured.beside


def test_shapes_that_exceed_the_nodes_limits_are_left_out(harness: Harness) -> None:
    with harness:
        measured = measure(harness, kv_tokens=400, max_rows=4)
        assert {(m.load.decode_rows, m.load.new_tokens) for m in measured.alone} == {
            (1, 0),
            (0, 256),
            (0, 32),
        }
        assert not measured.beside  # both phases at once need more pages than there are


def test_a_calibration_ends_when_its_time_is_up(harness: Harness) -> None:
    with harness:
        assert measure(harness, budget_s=-1.0) == ([], [])


def test_requests_after_a_calibration_get_their_own_tokens(tmp_path: Path) -> None:
    model = core_harness.tiny_model(tmp_path)
    request = ("r", list(range(40)), core_harness.greedy(8))
    expected = core_harness.alone(*model, [request])
    with Harness(*model, pages=4096) as harness:
        measure(harness)
        harness.submit(*request)
        harness.run()
        assert harness.answers["r"].token_ids == expected["r"]


def test_long_prompts_are_assumed_to_grow_by_the_models_arithmetic() -> None:
    measured = [Measurement(Load.prefill([(n, 0)]), 2, 0.010 + n * 0.001) for n in (32, 256)]
    assumed = calibrating.assume(measured, pairs_share=1e-4)
    assert {m.load.new_tokens for m in assumed} == {1024, 256}
    latency = LatencyModel()
    latency.calibrate(fit(measured + assumed))
    short, long = (latency.pass_s(Load.prefill([(n, 0)]), 2) for n in (200, 4096))
    assert short == pytest.approx(0.210, rel=0.05)
    assert long is not None
    # 4.1 s of products, and half of 4096^2 pairs at 3e-4 ms: 2.5 s
    assert long == pytest.approx(6.6, rel=0.2)


def test_what_was_learned_is_there_in_the_next_run(tmp_path: Path) -> None:
    latency = LatencyModel()
    latency.observe(Load.decode(4, 400), 2, 0.02, None, 1.0)
    path = tmp_path / "cache" / "latency.json"
    learned.write(path, IDENTITY, latency)
    found = learned.read(path, IDENTITY)
    assert found is not None
    assert found.pass_s(Load.decode(4, 400), 2) == pytest.approx(0.02)


def test_another_models_file_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "latency.json"
    learned.write(path, IDENTITY, LatencyModel())
    with caplog.at_level(logging.INFO):
        assert learned.read(path, saved.Identity("cpu", "another", "float32", "1")) is None
    assert "was learned with model 'a model'" in caplog.text


def test_a_disk_that_takes_nothing_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    learned.write(tmp_path / "file" / "latency.json", IDENTITY, LatencyModel())
    assert "can't be written" in caplog.text
