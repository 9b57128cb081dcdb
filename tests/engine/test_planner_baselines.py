"""The policies of others, as they are: MuxWise's, SGLang's, and one phase at a time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from drift_engine import wire
from drift_engine.latency.loads import Load
from drift_engine.scheduling import batch_table, order, planner, splits
from drift_engine.scheduling.views import Cut, Flight, Running
from planner_pictures import LAYERS, SPLITS, Speeds, Unknown, decoding, lanes, new, state


def names(chunks: object) -> list[str]:
    return [chunk.request_id for chunk in chunks]  # type: ignore[attr-defined]


# muxwise ----------------------------------------------------------------------------------------------------


def test_muxwise_takes_the_best_fit_whatever_the_last_split_was() -> None:
    latency = Speeds(0.150, 0.001, saturated=8)  # on 2 SMs 75 ms of 80: mux would stay at 3
    present = lanes(split=wire.Split(3, 5), since_s=0.0)
    picture = state(waiting=(new("p", 300),), running=(decoding("d", 9),), lanes=present, min_dwell_s=9.0)
    assert planner.plan(wire.Mode.MUXWISE, picture, latency, 0.0).split == wire.Split(2, 6)
    assert planner.plan(wire.Mode.MUX, picture, latency, 0.0).split == wire.Split(3, 5)


def test_muxwise_launches_layers_for_one_decode_step() -> None:
    latency = Speeds(0.020, 0.001)  # 10 layers of 6 ms each on 7 SMs, beside a step of 20 ms
    load = Load.prefill([(420, 0)])
    for launched, done in ((0, 0), (2, 1)):
        cut = Cut(load, 0.4, 1.6, SPLITS[0], LAYERS, launched, done)
        picture = state(running=(decoding("d", 9),), lanes=lanes(cut=cut))
        assert planner.plan(wire.Mode.MUXWISE, picture, latency, 0.0).layers == 4
    flight = Flight(Load.decode(1, 10), SPLITS[0], ends_s=0.02, tbt_target_s=0.08)
    busy = lanes(flight=flight, cut=Cut(load, 0.4, 1.6, SPLITS[0], LAYERS, 5, 4))
    assert planner.plan(wire.Mode.MUXWISE, state(lanes=busy, in_flight=2), latency, 0.0).layers <= 3


def test_muxwise_interrupts_once_and_only_who_still_makes_its_target() -> None:
    latency = Speeds(0.02, 0.002)  # 400 ms on 8 SMs, of which 300 are left; 100 tokens take 25
    for deadline_s, depth, expected in ((0.5, 1, ["p"]), (0.31, 1, []), (0.5, 2, [])):
        cut = Cut(Load.prefill([(1600, 0)]), deadline_s, 1.6, None, 8, launched=2, done=2)
        picture = state(
            waiting=(new("p", 100),), free=1000, lanes=replace(lanes(), cuts=(cut,) * depth), in_flight=1
        )
        assert names(planner.plan(wire.Mode.MUXWISE, picture, latency, 0.0).begin) == expected


def test_muxwise_fills_a_prefill_with_prompts() -> None:
    picture = state(
        waiting=tuple(new(name, 300) for name in "abcd"), free=1000, max_step_tokens=2048, lanes=lanes()
    )
    plan = planner.plan(wire.Mode.MUXWISE, picture, Speeds(0.02, 0.001), 0.0)
    assert names(plan.begin) == ["a", "b", "c", "d"]


# batch-table ------------------------------------------------------------------------------------------------


def test_the_table_has_the_fewest_decode_sms_that_keep_the_target_for_each_size() -> None:
    latency = Speeds(0.0, 0.001, row_s=0.010, saturated=8)  # 10 ms a row on one SM
    found = batch_table.tuned(SPLITS, 64, 1024, 0.045, latency)
    sizes = ((1, 1), (2, 1), (3, 1), (5, 2), (9, 4), (17, 7), (33, 7))
    assert found == tuple((rows, SPLITS[sms - 1]) for rows, sms in sizes)


def test_a_table_waits_until_something_is_known() -> None:
    assert batch_table.tuned(SPLITS, 64, 1024, 0.08, Unknown()) is None
    picture = state(waiting=(new("p", 300),), running=(decoding("d", 9),), lanes=lanes())
    assert planner.plan(wire.Mode.BATCH_TABLE, picture, Unknown(), 0.0).split == SPLITS[3]


def test_the_split_is_looked_up_by_rows_and_nothing_else() -> None:
    table = batch_table.read("2:2, 4:5", SPLITS)
    for rows, sms in ((1, 2), (2, 2), (3, 2), (4, 5), (6, 5)):
        picture = state(
            waiting=(new("p", 300),),
            running=tuple(decoding(f"d{index}", 9) for index in range(rows)),
            lanes=lanes(split=SPLITS[6]),
            table=table,
        )
        for latency in (Speeds(9.0, 0.001), Speeds(0.001, 0.001)):
            plan = planner.plan(wire.Mode.BATCH_TABLE, picture, latency, 0.0)
            assert plan.split is not None
            assert plan.split.decode_sms == sms


def test_a_table_by_hand_gets_the_next_larger_split() -> None:
    legal = (wire.Split(16, 116), wire.Split(32, 100))
    assert batch_table.read("1:8,8:17,20:99", legal) == ((1, legal[0]), (8, legal[1]), (20, legal[1]))
    assert batch_table.read("", legal) == ()


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("1", "'1' is not ROWS:DECODE_SMS"),
        ("4:16,4:32", "4 rows must be more than the 4 before"),
        ("0:3", "0 rows"),
    ],
)
def test_a_table_that_is_none_is_refused(text: str, phrase: str) -> None:
    with pytest.raises(ValueError, match=phrase):
        batch_table.read(text, SPLITS)


def test_batch_table_never_interrupts() -> None:
    cut = Cut(Load.prefill([(1600, 0)]), 9.0, 1.6, None, 8, launched=2, done=2)
    picture = state(waiting=(new("p", 100, deadline_s=0.1),), free=1000, lanes=lanes(cut=cut), in_flight=1)
    assert planner.plan(wire.Mode.MUX, picture, Speeds(0.02, 0.002), 0.0).begin
    assert not planner.plan(wire.Mode.BATCH_TABLE, picture, Speeds(0.02, 0.002), 0.0).begin


# overlap ----------------------------------------------------------------------------------------------------


def test_overlap_takes_the_lanes_that_share_sms_and_no_other_mode_does() -> None:
    offered = (*SPLITS, wire.Split(8, 8))
    for mode in wire.Mode:
        expected = (wire.Split(8, 8),) if mode is wire.Mode.OVERLAP else SPLITS
        assert splits.usable(mode, offered, 8) == expected
    assert splits.usable(wire.Mode.OVERLAP, SPLITS, 8) == ()


# one phase at a time ----------------------------------------------------------------------------------------


def test_solo_prefill_takes_one_prompt_at_a_time() -> None:
    waiting = (new("a", 300), new("b", 20))
    picture = state(waiting=waiting, running=(decoding("d", 9),), max_step_tokens=200)
    plan = planner.plan(wire.Mode.SOLO_PREFILL, picture, Unknown(), 0.0)
    assert (names(plan.prefill), plan.decode) == (["a"], ())
    half = Running("a", 200, 100, 0.0, 0.08, 0.4)
    picture = state(waiting=waiting[1:], running=(decoding("d", 9), half))
    plan = planner.plan(wire.Mode.SOLO_PREFILL, picture, Unknown(), 0.0)
    assert names(plan.prefill) == ["a"]


def test_solo_decode_starts_no_prefill_while_anything_decodes() -> None:
    waiting = (new("a", 30, arrival_s=1.0, deadline_s=1.4), new("b", 20, arrival_s=1.0, deadline_s=1.4))
    busy = state(waiting=waiting, running=(decoding("d", 9),))
    assert planner.plan(wire.Mode.SOLO_DECODE, busy, Unknown(), 2.0).decode == ("d",)
    plan = planner.plan(wire.Mode.SOLO_DECODE, busy, Unknown(), 1.0 + order.AGED_TARGETS * 0.4)
    assert (names(plan.prefill), plan.decode) == (["a"], ())
    plan = planner.plan(wire.Mode.SOLO_DECODE, state(waiting=waiting), Unknown(), 2.0)
    assert names(plan.prefill) == ["a", "b"]
