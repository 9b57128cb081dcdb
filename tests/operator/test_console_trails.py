"""The last quarter of an hour: equal steps, gaps where nothing was known, and bounds."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import node_reports
import seen_services
from drift_engine.wire import Activity, Report
from drift_operator.console import activities
from drift_operator.console.seen import Heard, ServiceSeen
from drift_operator.console.trails import MOST_NODES, Trails
from seen_services import START_S

CHAT = ("team-a", "chat")


def trails(points: int = 6) -> Trails:
    return Trails(step_s=5.0, points=points)


def silent(now_s: float) -> ServiceSeen:
    return seen_services.kept(now_s, nodes={}, figures=seen_services.figures(now_s=now_s, measured_s=None))


def test_each_step_keeps_its_first_word() -> None:
    found = trails()
    for past_s in (0, 2, 4, 5):
        found.add([seen_services.kept(START_S + past_s)], START_S + past_s)
    assert found.service(CHAT)["pressure"] == [None, None, None, None, 0.62, 0.62]


def test_what_was_not_known_is_a_gap() -> None:
    found = trails()
    for step, service in enumerate((seen_services.kept, silent, seen_services.kept)):
        found.add([service(START_S + 5 * step)], START_S + 5 * step)
    assert found.service(CHAT)["pressure"] == [None, None, None, 0.62, None, 0.62]


def test_steps_in_which_nobody_looked_are_a_gap() -> None:
    found = trails()
    for past_s in (0, 15):
        found.add([seen_services.kept(START_S + past_s)], START_S + past_s)
    assert found.service(CHAT)["pressure"] == [None, None, 0.62, None, None, 0.62]


def test_a_machine_that_slept_for_days_costs_nothing() -> None:
    found = trails()
    found.add([seen_services.kept()], START_S)
    later_s = START_S + 3e6
    found.add([seen_services.kept(later_s)], later_s)
    assert found.service(CHAT)["pressure"] == [None] * 5 + [0.62]


def test_a_service_that_is_gone_is_forgotten() -> None:
    found = trails()
    found.add([seen_services.kept()], START_S)
    found.add([], START_S + 5)
    assert found.service(CHAT)["pressure"] == [None] * 6
    assert found.nodes(CHAT) == {}


def test_a_node_that_is_gone_is_forgotten_once_nothing_of_it_would_be_drawn() -> None:
    found = trails(points=3)
    found.add([seen_services.kept()], START_S)
    for step in (1, 2):
        found.add([silent(START_S + 5 * step)], START_S + 5 * step)
    assert found.nodes(CHAT)["chat-node-0"]["decode_sms"] == [48, None, None]
    found.add([silent(START_S + 15)], START_S + 15)
    assert found.nodes(CHAT) == {}


def test_nodes_that_crash_under_new_names_for_ever_fill_nothing() -> None:
    found = trails(points=500)
    for step in range(MOST_NODES + 20):
        now_s = START_S + 5 * step
        node = Heard(seen_services.report(48, now_s), now_s)
        found.add([seen_services.kept(now_s, nodes={f"node-{step:03}": node})], now_s)
    kept = list(found.nodes(CHAT))
    assert (len(kept), kept[-1]) == (MOST_NODES, f"node-{MOST_NODES + 19:03}")


def test_a_report_that_no_pass_renewed_is_drawn_until_it_is_old() -> None:
    found = trails()
    heard = Heard(seen_services.report(48, START_S), START_S)
    for step in range(4):
        found.add([seen_services.kept(START_S + 5 * step, nodes={"node": heard})], START_S + 5 * step)
    assert found.nodes(CHAT)["node"]["decode_sms"] == [None, None, 48, 48, 48, None]


@given(st.lists(st.floats(0, 100), max_size=40))
def test_a_series_has_always_as_many_points_and_its_last_is_the_last_word(gaps_s: list[float]) -> None:
    found, now_s = trails(), START_S
    found.add([seen_services.kept(now_s)], now_s)
    for gap_s in gaps_s:
        now_s += gap_s
        found.add([seen_services.kept(now_s)], now_s)
    series = found.service(CHAT)["requests_per_s"]
    assert len(series) == 6
    assert series[-1] == 6.2


def worked(uptime_s: float, **spent_s: float) -> Report:
    activity = {Activity(name): seconds for name, seconds in spent_s.items()}
    return node_reports.report(uptime_s=uptime_s, activity_s_total=activity)


def test_a_lanes_bubble_is_the_share_of_the_work_that_it_had_nothing_of() -> None:
    before = worked(100, decode=10, prefill=5, mux=20)
    now = worked(110, decode=12, prefill=6, mux=24, fused=1)
    lanes = activities.between(before, now)
    assert lanes is not None
    assert (lanes.busy, lanes.decode_bubble, lanes.prefill_bubble) == pytest.approx((0.8, 1 / 8, 2 / 8))


def test_a_device_without_work_has_no_bubbles() -> None:
    lanes = activities.between(worked(100, decode=10), worked(110, decode=10))
    assert lanes is not None
    assert (lanes.busy, lanes.decode_bubble, lanes.prefill_bubble) == (0.0, None, None)


@pytest.mark.parametrize(
    "now",
    [worked(100, decode=10), worked(3, decode=1), worked(110, decode=9)],
    ids=["the same report", "started again", "counts that shrank"],
)
def test_between_reports_that_do_not_follow_nothing_is_known(now: Any) -> None:
    assert activities.between(worked(100, decode=10), now) is None
