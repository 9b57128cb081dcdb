"""What the console's page is told: pure, of services, reports and a clock."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import seen_services
from drift_operator.console import model, verdicts
from drift_operator.console.seen import Heard, ServiceSeen
from drift_operator.console.trails import Trails
from drift_operator.console.verdicts import Verdict
from drift_operator.doors.figures import STALE_S, ServiceFigures, TargetFigures
from drift_operator.levers.attainment import NOTHING
from drift_operator.levers.observations import STALE_S as REPORT_STALE_S
from drift_operator.levers.observations import Router
from drift_router.recent_decisions import KEPT
from seen_services import START_S, START_UNIX_S

CHAT = ("team-a", "chat")
NOW = {"now_s": START_S, "unix_s": START_UNIX_S}


def full(service: ServiceSeen, **later: float) -> dict[str, Any]:
    """Of one service; `later`: other times."""
    told = model.document([service], Trails(), service.key, chat=False, **(NOW | later))
    found: dict[str, Any] = told["service"]
    return found


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, Verdict.KEPT),
        ({"conditions": (seen_services.READY,)}, Verdict.IDLE),
        ({"measured_s": None}, Verdict.UNKNOWN),
        ({"measured_s": START_S - STALE_S - 1}, Verdict.UNKNOWN),
        (
            {
                "conditions": (
                    seen_services.READY,
                    seen_services.condition("SLOMet", "False", "Missed", "91 %"),
                )
            },
            Verdict.MISSED,
        ),
        (
            {
                "conditions": (
                    seen_services.condition("Ready", "False", "NoNodeReady", "none"),
                    seen_services.KEPT,
                )
            },
            Verdict.DOWN,
        ),
        ({"conditions": (), "measured_s": None}, Verdict.UNKNOWN),
    ],
    ids=["kept", "nothing judged", "never measured", "old", "missed", "not ready", "new"],
)
def test_a_service_has_one_verdict(changes: dict[str, Any], verdict: Verdict) -> None:
    assert verdicts.judge(seen_services.figures(**changes), START_S)[0] is verdict


def test_the_verdict_says_why_in_the_conditions_words() -> None:
    down = seen_services.condition("Ready", "False", "InvalidSpec", "spec.slo: must be positive")
    figures = seen_services.figures(conditions=(down,), measured_s=None)
    assert verdicts.judge(figures, START_S) == (Verdict.DOWN, "spec.slo: must be positive")


def test_services_are_listed_with_the_most_urgent_first() -> None:
    new = ServiceSeen(ServiceFigures("team-a", "a-new-one"))
    told = model.document(
        [seen_services.kept(), new, seen_services.pressed()], Trails(), None, chat=False, **NOW
    )
    assert [line["name"] for line in told["services"]] == ["search", "a-new-one", "chat"]
    assert told["service"] is None


def test_more_services_than_a_page_shows_are_counted() -> None:
    many = [ServiceSeen(ServiceFigures("ns", f"service-{place}")) for place in range(model.MOST_SERVICES + 3)]
    told = model.document(many, Trails(), None, chat=False, **NOW)
    assert (len(told["services"]), told["services_left_out"]) == (model.MOST_SERVICES, 3)


def test_what_is_unknown_is_null_and_never_zero() -> None:
    found = full(ServiceSeen(ServiceFigures("ns", "new")))
    unknown = (
        "pressure",
        "desired_replicas",
        "requests_per_s",
        "failed_last_minute",
        "age_s",
        "ttft_attainment",
    )
    assert {name: found[name] for name in unknown} == dict.fromkeys(unknown)
    assert found["promises"] == [None, None]


def test_figures_that_are_old_are_not_told_as_those_of_now() -> None:
    found = full(seen_services.kept(), now_s=START_S + STALE_S + 1)
    assert (found["pressure"], found["requests_per_s"]) == (None, None)
    assert found["age_s"] == pytest.approx(61.4)


def test_a_promise_is_told_with_its_distribution_and_the_target_is_an_edge_of_it() -> None:
    ttft, _ = full(seen_services.kept())["promises"]
    assert (ttft["target_ms"], ttft["objective"], ttft["attainment"]) == (400, 0.99, 0.996)
    buckets = ttft["distribution"]["buckets"]
    assert [bucket["up_to_ms"] for bucket in buckets if not bucket["late"]][-1] == 400
    assert sum(bucket["count"] for bucket in buckets) == sum(seen_services.counted().ttft_s.values())


def test_the_distribution_is_what_routers_counted_over_the_promises_window() -> None:
    before, after = (seen_services.router_report().totals for _ in range(2))
    after.ttft.observe(0.05)
    ledger = seen_services.ledger(NOTHING).observe([Router("router", before, age_s=0.0)], START_S)
    ledger = ledger.observe([Router("router", after, age_s=0.0)], START_S + 1)
    found = full(seen_services.kept(ledger=ledger))["promises"][0]["distribution"]
    assert found["window_s"] == ledger.window.horizon_s
    assert sum(bucket["count"] for bucket in found["buckets"]) == 1


def test_a_distribution_of_nothing_is_empty() -> None:
    ttft, _ = full(seen_services.kept(ledger=None))["promises"]
    assert ttft["distribution"]["buckets"] == []


def test_requests_beyond_every_edge_are_in_the_last_bucket() -> None:
    late = replace(NOTHING, ttft_s={float("inf"): 2})
    ttft, _ = full(seen_services.kept(ledger=seen_services.ledger(late)))["promises"]
    assert ttft["distribution"]["buckets"][-1] == {"up_to_ms": None, "count": 2, "late": True}


def test_a_node_is_told_with_split_memory_and_how_old_its_word_is() -> None:
    node = full(seen_services.kept())["nodes"][0]
    assert (node["name"], node["state"], node["age_s"]) == ("chat-node-0", "ready", 0.4)
    assert (node["decode_sms"], node["prefill_sms"], node["bounds_sms"]) == (48, 84, [24, 96])
    assert (node["kv_use"], node["hit_rate"], node["weight"]) == (0.5, 0.43, 0.5)


def test_a_node_that_fell_silent_is_said_to_be_and_its_old_figures_are_not_shown() -> None:
    heard = Heard(seen_services.report(48, START_S), START_S - REPORT_STALE_S - 1, "no answer within 1 s")
    node = full(seen_services.kept(nodes={"chat-node-0": heard}))["nodes"][0]
    assert (node["state"], node["problem"]) == ("silent", "no answer within 1 s")
    assert "kv_use" not in node


def test_a_node_that_is_gone_stays_as_long_as_its_picture() -> None:
    trails, service = Trails(), seen_services.kept()
    trails.add([service], START_S)
    without = seen_services.kept(
        START_S + 5, nodes={}, figures=seen_services.figures(now_s=START_S + 5, nodes=())
    )
    trails.add([without], START_S + 5)
    told = model.document([without], trails, CHAT, now_s=START_S + 5, unix_s=START_UNIX_S + 5, chat=False)
    assert [node["state"] for node in told["service"]["nodes"]] == ["gone", "gone"]
    assert told["service"]["nodes"][0]["history"]["decode_sms"][-2:] == [48, None]


def test_only_the_first_nodes_are_drawn() -> None:
    count = model.MOST_DRAWN + 2
    nodes = {f"node-{place:02}": Heard(seen_services.report(48, START_S), START_S) for place in range(count)}
    service = seen_services.kept(nodes=nodes, figures=seen_services.figures(nodes=()))
    trails = Trails()
    trails.add([service], START_S)
    told = model.document([service], trails, CHAT, chat=False, **NOW)["service"]["nodes"]
    assert [node["history"] is not None for node in told] == [True] * model.MOST_DRAWN + [False] * 2


def test_decisions_of_all_routers_are_told_newest_first_and_bounded() -> None:
    routers = {
        f"router-{place}": Heard(
            seen_services.router_report(
                *(seen_services.decided("chat-node-0", age) for age in range(place, KEPT))
            ),
            START_S - 3 * place,
        )
        for place in range(2)
    }
    ages = [one["age_s"] for one in full(seen_services.kept(routers=routers))["routed"]]
    assert ages == sorted(ages)
    assert len(ages) == KEPT


def test_a_routed_request_is_told_with_the_scores_of_the_nodes() -> None:
    routed = full(seen_services.kept())["routed"][0]
    assert (routed["node"], routed["reason"], routed["matched_tokens"]) == ("chat-node-0", "sticky", 1536)
    assert [(score["node"], score["chosen"]) for score in routed["scores"]] == [
        ("chat-node-0", True),
        ("chat-node-1", False),
    ]


def test_the_operators_decisions_are_told_with_their_age() -> None:
    first = full(seen_services.pressed())["decisions"][0]
    assert (first["lever"], first["from"], first["to"], first["age_s"]) == ("replicas", "2", "3", 41.0)


def test_concerns_come_with_faults_first_and_how_long_they_last() -> None:
    found = full(seen_services.pressed())["concerns"]
    assert [(one["condition"], one["fault"], one["for_s"]) for one in found] == [
        ("SLOMet", True, 410.0),
        ("Progressing", False, 35.0),
    ]


ODD = st.one_of(st.none(), st.floats(), st.just(float("nan")), st.just(float("inf")))


@given(pressure=ODD, attainment=ODD, p99_ms=ODD, burn=ODD, measured_s=ODD)
def test_whatever_was_measured_the_document_is_json_that_browsers_read(
    pressure: float | None,
    attainment: float | None,
    p99_ms: float | None,
    burn: float | None,
    measured_s: float | None,
) -> None:
    ttft = TargetFigures(400, 0.99, attainment, 1, None, p99_ms, {} if burn is None else {"1m": burn})
    figures = seen_services.figures(pressure=pressure, ttft=ttft, measured_s=measured_s)
    service = seen_services.kept(figures=figures)
    trails = Trails()
    trails.add([service], START_S)
    told = model.document([service], trails, CHAT, chat=False, **NOW)
    json.dumps(msgspec.to_builtins(told), allow_nan=False)
