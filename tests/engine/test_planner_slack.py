"""How long a step may take, what KV pressure changes, when a split may change, and who waits for a shared prefix."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drift_engine import wire
from drift_engine.scheduling import planner, pressure, sharing, slack, splits
from drift_engine.scheduling.views import Memory, Waiting
from planner_pictures import PAGE_TOKENS, SPLITS, Speeds, decoding, lanes, new, state

STRICT, CHAIN = wire.Slack.STRICT, wire.Slack.CHAIN

# slack ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "last_s", "tokens", "expected"),
    [
        (STRICT, 1.3, 4, 1.4),
        (CHAIN, 1.3, 4, 1.5),  # the fifth token behind the first, at 1.0
        (CHAIN, 1.1, 4, 1.3),  # far ahead: two targets after the last one
        (CHAIN, 1.9, 4, 1.5),  # behind its chain: overdue
    ],
)
def test_when_the_next_token_is_due(form: wire.Slack, last_s: float, tokens: int, expected: float) -> None:
    due_s = slack.due_s(form, 0.1, last_s=last_s, first_s=1.0, tokens_since_first=tokens)
    assert due_s == pytest.approx(expected)


@given(
    gaps_s=st.lists(st.floats(0.0, 1.0), max_size=50),
    target_s=st.floats(0.01, 1.0),
)
def test_a_chain_never_plans_a_gap_beyond_its_bound(gaps_s: list[float], target_s: float) -> None:
    last_s = first_s = 5.0
    for index, gap_s in enumerate(gaps_s):
        last_s += gap_s
        due_s = slack.due_s(CHAIN, target_s, last_s=last_s, first_s=first_s, tokens_since_first=index + 1)
        assert due_s <= last_s + slack.CHAIN_GAP_TARGETS * target_s
        assert due_s <= first_s + (index + 2) * target_s


def test_the_row_that_is_due_first_bounds_the_step() -> None:
    rows = (decoding("a", 9, due_s=1.08), decoding("b", 9, due_s=1.07))
    assert slack.allowed_s(rows, 1.0, 0.0, pressed=False) == pytest.approx(0.07)
    assert slack.allowed_s(rows, 1.0, 0.0, pressed=True) == pytest.approx(0.035)


def test_a_row_that_no_step_can_serve_in_time_asks_for_no_more_than_a_share_of_its_target() -> None:
    assert slack.allowed_s((decoding("a", 9, due_s=0.5),), 1.0, 0.01, pressed=False) == pytest.approx(0.06)


def test_a_late_row_does_not_hide_one_that_can_be_served_in_time() -> None:
    rows = (
        decoding("late", 9, due_s=1.005),
        decoding("soon", 9, due_s=1.03),
        decoding("later", 9, due_s=1.07),
    )
    assert slack.allowed_s(rows, 1.0, 0.01, pressed=False) == pytest.approx(0.03)


def test_saved_time_buys_prefill_a_larger_part_and_a_larger_chunk() -> None:
    latency = Speeds(0.200, 0.001, saturated=8)
    found = []
    for due_s in (0.08, 0.16):
        picture = state(
            waiting=(new("p", 2000),), running=(decoding("d", 9, due_s=due_s),), lanes=lanes(), free=1000
        )
        split = planner.plan(wire.Mode.MUX, picture, latency, 0.0).split
        assert split is not None
        chunk = planner.plan(wire.Mode.FUSED, picture, latency, 0.0).prefill[0].tokens
        found.append((split.decode_sms, chunk))
    assert found[0][0] > found[1][0]
    assert found[0][1] < found[1][1]


# pressure ---------------------------------------------------------------------------------------------------


@given(used=st.integers(0, 100), before=st.booleans())
def test_pressure_turns_at_one_share_and_back_at_another(used: int, before: bool) -> None:
    memory = Memory(PAGE_TOKENS, 100, (100 - used) // 2, 100 - used - (100 - used) // 2)
    assert pressure.turned(memory, 1, 100, before) is (used > (80 if before else 90))
    assert pressure.turned(Memory(PAGE_TOKENS, 100, 100, 0), used, 100, before) is (
        used > (80 if before else 90)
    )


def test_under_pressure_decode_gets_the_larger_part_and_prefill_a_smaller_chunk() -> None:
    latency = Speeds(0.200, 0.001, saturated=8)
    found = []
    for pressed in (False, True):
        picture = state(
            waiting=(new("p", 400),), running=(decoding("d", 9),), lanes=lanes(), free=1000, pressed=pressed
        )
        split = planner.plan(wire.Mode.MUX, picture, latency, 0.0).split
        chunk = planner.plan(wire.Mode.FUSED, picture, latency, 0.0).prefill[0].tokens
        found.append((split, chunk))
    assert [split for split, _ in found] == [wire.Split(3, 5), wire.Split(6, 2)]
    assert found[0][1] > 4 * found[1][1]


def test_under_pressure_an_admission_leaves_room_to_grow() -> None:
    running = tuple(decoding(f"d{index}", 7) for index in range(4))
    for pressed, free, admitted in ((False, 20, ("p",)), (True, 20, ()), (True, 27, ("p",))):
        picture = state(waiting=(new("p", 40),), running=running, free=free, pressed=pressed)
        plan = planner.plan(wire.Mode.FUSED, picture, Speeds(0.001, 0.0001), 0.0)
        assert plan.admit == admitted
        assert not plan.preempt
    alone = state(waiting=(new("p", 40),), free=11, pressed=True)
    assert planner.plan(wire.Mode.FUSED, alone, Speeds(0.001, 0.0001), 0.0).admit == ("p",)


# splits -----------------------------------------------------------------------------------------------------


def test_a_split_stands_for_its_dwell_before_decode_gets_less() -> None:
    present = lanes(split=SPLITS[2], since_s=1.0)
    assert [s.decode_sms for s, _ in splits.open_splits(present, 0.5, 1.4)] == [3, 4, 5, 6, 7]
    assert dict(splits.open_splits(present, 0.5, 1.5)) == {
        split: splits.KEEP_SHARE if split.decode_sms < 3 else 1.0 for split in SPLITS
    }
    assert len(list(splits.open_splits(lanes(), 9.0, 0.0))) == len(SPLITS)


def test_decode_gets_more_at_once() -> None:
    latency = Speeds(0.200, 0.001, saturated=8)
    present = lanes(split=SPLITS[0], since_s=0.0)
    picture = state(waiting=(new("p", 300),), running=(decoding("d", 9),), lanes=present, min_dwell_s=9.0)
    assert planner.plan(wire.Mode.MUX, picture, latency, 0.0).split == SPLITS[2]


def test_bounds_that_leave_smaller_splits_only_are_kept() -> None:
    present = lanes(split=wire.Split(9, 1), since_s=0.0)
    picture = state(waiting=(new("p", 300),), running=(decoding("d", 9),), lanes=present, min_dwell_s=9.0)
    assert planner.plan(wire.Mode.MUX, picture, Speeds(0.02, 0.001), 0.0).split == SPLITS[-1]


# sharing ----------------------------------------------------------------------------------------------------

STEM = list(range(64))


def prompt(name: str, token_ids: list[int], *, cached: int = 0, arrival_s: float = 0.0) -> Waiting:
    marks = sharing.marks(token_ids, "", PAGE_TOKENS)
    deadline_s = arrival_s + 0.4
    return new(name, len(token_ids), cached=cached, arrival_s=arrival_s, deadline_s=deadline_s, marks=marks)


def test_marks_tell_prefixes_and_tenants_apart() -> None:
    one = sharing.marks(STEM, "", 4)
    assert len(one) == 5  # 4, 8, 16, 32 and 64 tokens
    assert sharing.marks([*STEM[:20], *range(100, 144)], "", 4)[:3] == one[:3]
    assert not set(sharing.marks([*STEM[:20], *range(100, 144)], "", 4)[3:]) & set(one)
    assert not set(sharing.marks(STEM, "tenant", 4)) & set(one)
    assert sharing.marks([1, 2, 3], "", 4) == ()


def served(*waiting: Waiting, computing: tuple[tuple[int, ...], ...] = (), now_s: float = 0.0) -> list[str]:
    picture = state(waiting=waiting, computing=computing)
    return [request.request_id for request in sharing.serialised(picture, now_s)]


def test_the_second_of_two_that_begin_alike_waits_and_others_do_not() -> None:
    first, second, other = prompt("a", [*STEM, 1]), prompt("b", [*STEM, 2]), prompt("c", [9] * 65)
    assert served(first, second, other) == ["a", "c"]
    assert served(second, first) == ["b"]
    assert served(second, computing=(first.marks,)) == []
    assert served(second, computing=(other.marks,)) == ["b"]


def test_what_is_cached_already_is_not_waited_for() -> None:
    assert served(prompt("a", [*STEM, 1], cached=64), prompt("b", [*STEM, 2], cached=64)) == ["a", "b"]


def test_nobody_waits_for_a_small_saving() -> None:
    assert served(prompt("a", [*STEM[:8], *[1] * 60]), prompt("b", [*STEM[:8], *[2] * 60])) == ["a", "b"]


def test_an_aged_request_waits_for_no_prefix() -> None:
    second = prompt("b", [*STEM, 2])
    assert served(second, computing=(prompt("a", STEM).marks,), now_s=1.59) == []
    assert served(second, computing=(prompt("a", STEM).marks,), now_s=1.61) == ["b"]


def test_only_modes_that_order_by_laxity_let_requests_wait_for_a_prefix() -> None:
    picture = state(waiting=(prompt("a", [*STEM, 1]), prompt("b", [*STEM, 2])), free=1000)
    for mode, expected in ((wire.Mode.FUSED, ("a",)), (wire.Mode.PREFILL_FIRST, ("a", "b"))):
        assert planner.plan(mode, picture, Speeds(0.02, 0.001), 0.0).admit == expected
