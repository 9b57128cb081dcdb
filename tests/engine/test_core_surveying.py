"""What a survey says of a device whose speed is known, in virtual time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import msgspec
import pytest

import sim_core
from drift_engine import wire
from drift_engine.clock import VirtualClock
from drift_engine.core import calibrating, learned, surveying
from drift_engine.core.loop import Core
from drift_engine.core.serving import Started
from drift_engine.core.surveying import Curves, Head, Timed
from drift_engine.devices.sim import SimDevice
from drift_engine.devices.sim_tokens import CountedTokens
from drift_engine.latency.loads import Load

TRUTH = sim_core.HandMade()
PAGES, PAGE_TOKENS, CONTEXT_TOKENS = 4096, 16, 4096
BOUNDS = calibrating.Bounds(
    kv_tokens=PAGES * PAGE_TOKENS,
    page_tokens=PAGE_TOKENS,
    max_context_tokens=CONTEXT_TOKENS,
    max_rows=64,
    max_step_tokens=2048,
    budget_s=60.0,
)


def started(splits: Sequence[wire.Split] = sim_core.SPLITS, device: str = "cuda") -> Started:
    sim = SimDevice(
        VirtualClock(), TRUTH, CountedTokens(), sms=sim_core.SMS, splits=splits, layers=sim_core.LAYERS
    )
    ready = wire.Ready(
        architecture="none",
        parameters=1,
        vocab_size=1,
        max_model_len_tokens=CONTEXT_TOKENS,
        eos_token_ids=(),
        device=device,
        hardware="virtual",
        dtype="none",
        threads=1,
        page_tokens=PAGE_TOKENS,
        kv_pages=PAGES,
        kv_bytes=0,
        mode=wire.Mode.MUX,
        load_s=0.0,
        splits=tuple(splits),
    )
    return Started(cast("Core", None), sim, ready, learned.calibrate(sim, BOUNDS, 0.0), lambda: None)


def test_first_what_then_curves_by_size_then_passes() -> None:
    lines = list(surveying.survey(started(), 1e3))
    assert [type(line) for line in lines[:5]] == [Head, Curves, Curves, Curves, Curves]
    assert [line.sms for line in lines if isinstance(line, Curves)] == [2, 4, 6, 8]
    assert {type(line) for line in lines[5:]} == {Timed}


def test_lanes_that_share_all_sms_have_one_curve() -> None:
    whole = wire.Split(sim_core.SMS, sim_core.SMS)
    for splits in ((), (whole,), (*sim_core.SPLITS, whole)):
        sizes = [line.sms for line in surveying.survey(started(splits), 0.0) if isinstance(line, Curves)]
        assert sizes == sorted({sim_core.SMS, *(split.decode_sms for split in splits)})


def test_a_timed_pass_says_what_it_computed() -> None:
    timed = [line for line in surveying.survey(started(), 1e3) if isinstance(line, Timed)]
    assert {line.sms for line in timed} == {2, 4, 6, 8}
    for line in timed:
        if line.new_tokens:
            assert line.context_tokens == 0
            each = (line.new_tokens // line.rows, line.reused_tokens // line.rows)
            load = Load.prefill([each] * line.rows)
        else:
            assert line.reused_tokens == 0
            load = Load.decode(line.rows, line.context_tokens)
        assert line.seconds == pytest.approx(TRUTH.pass_s(load, line.sms))
        assert line.predicted_s == pytest.approx(line.seconds, rel=0.2)


def test_curves_are_what_the_planner_is_told() -> None:
    measured = started()
    for line in surveying.survey(measured, 0.0):
        if isinstance(line, Curves):
            assert line == surveying.curves(measured.latency, line.sms)
            for tokens, seconds in line.prefill_s.items():
                assert seconds == measured.latency.pass_s(Load.prefill([(tokens, 0)]), line.sms)
            for rows, seconds in line.beside_prefill_s.items():
                assert seconds >= line.decode_s[rows]


def test_no_pass_exceeds_the_node_or_the_budget() -> None:
    measured = started()
    start_s = measured.device.clock.now_s()
    few = [line for line in surveying.survey(measured, 0.5) if isinstance(line, Timed)]
    most = [line for line in surveying.survey(started(), 1e3) if isinstance(line, Timed)]
    assert 0 < len(few) < len(most)
    # The last one may begin within it.
    assert measured.device.clock.now_s() - start_s < 0.5 + 2 * max(line.seconds for line in most)
    for line in most:
        assert (line.context_tokens + line.reused_tokens + line.new_tokens) // line.rows <= CONTEXT_TOKENS


def test_a_simulated_device_is_not_timed() -> None:
    measured = started(device="sim")
    start_s = measured.device.clock.now_s()
    assert not [line for line in surveying.survey(measured, 1e3) if isinstance(line, Timed)]
    assert measured.device.clock.now_s() == start_s


def test_lines_survive_json() -> None:
    for line in surveying.survey(started(), 0.1):
        assert msgspec.json.decode(msgspec.json.encode(line), type=surveying.Line) == line
