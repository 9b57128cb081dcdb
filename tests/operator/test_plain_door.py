"""The operator's plain port over a real socket: health, metrics, and JSON for KEDA and for people."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from aiohttp import ClientSession, ClientTimeout, web

from drift_operator.doors import plain
from drift_operator.doors.figures import STALE_S, ServiceFigures, TargetFigures
from drift_operator.doors.metrics import Metrics, Outcome
from drift_operator.doors.pulse import Pulse
from drift_operator.status import Condition, Decision, NodeStatus
from kept_figures import KeptFigures

NOW_S = 1000.0
STAMP = "2026-01-02T03:04:05Z"
DECISION = {
    "time": STAMP,
    "lever": "replicas",
    "from": "2",
    "to": "3",
    "reason": "PressureHigh",
    "message": "pressure 0.93 > 0.85",
}
LLM = ServiceFigures(
    "ns",
    "llm",
    measured_s=NOW_S - 2,
    pressure=0.83,
    desired_replicas=3,
    present_replicas=2,
    ttft=TargetFigures(400, 0.99, attainment=0.97, requests=120, burn_rates={"1m": 3.0, "10m": 1.5}),
    tbt=TargetFigures(80, 0.99),
    feasible=True,
    conditions=(
        Condition.model_validate(
            {
                "type": "Ready",
                "status": "True",
                "reason": "Serving",
                "message": "2 nodes",
                "lastTransitionTime": STAMP,
            }
        ),
    ),
    nodes=(NodeStatus(name="llm-0", ready=True, decodeSMs=16),),
    decisions=(Decision.model_validate(DECISION),),
)


class Port:
    def __init__(self) -> None:
        self.now_s = NOW_S
        self.figures = KeptFigures(LLM)
        self.metrics = Metrics(self.figures, "east", self.clock)
        self.pulse = Pulse(self.clock)
        self.why_not_ready: str | None = None
        self.app = plain.create_app(
            self.figures, self.metrics, self.pulse, lambda: self.why_not_ready, self.clock
        )
        self.url = ""

    def clock(self) -> float:
        return self.now_s

    async def get(self, path: str) -> tuple[int, Any]:
        async with (
            ClientSession(timeout=ClientTimeout(total=20)) as session,
            session.get(self.url + path) as answer,
        ):
            is_json = answer.content_type == "application/json"
            return answer.status, await answer.json() if is_json else await answer.text()

    async def samples(self) -> dict[str, float]:
        _, text = await self.get("/metrics")
        lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in lines}


def run(scenario: Callable[[Port], Coroutine[Any, Any, None]]) -> None:
    async def served() -> None:
        port = Port()
        runner = web.AppRunner(port.app, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            port.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            await scenario(port)
        finally:
            await runner.cleanup()

    asyncio.run(served())


def test_keda_reads_the_pressure() -> None:
    async def scenario(port: Port) -> None:
        assert await port.get("/v1/services/ns/llm/pressure") == (
            200,
            {"pressure": 0.83, "desired_replicas": 3, "present_replicas": 2, "age_s": 2.0},
        )

    run(scenario)


@pytest.mark.parametrize(
    "changes",
    [
        {"pressure": None},
        {"pressure": math.nan},
        {"pressure": -1.0},
        {"measured_s": None},
        {"measured_s": NOW_S - STALE_S - 1},
    ],
    ids=["unknown", "nan", "negative", "never measured", "stale"],
)
def test_an_unknown_pressure_is_an_error_and_no_number(changes: dict[str, Any]) -> None:
    async def scenario(port: Port) -> None:
        port.figures.change("ns", "llm", **changes)
        status, body = await port.get("/v1/services/ns/llm/pressure")
        assert status == 503
        assert set(body) == {"error"}
        assert "ns/llm" in body["error"]["message"]

    run(scenario)


def test_the_pressure_of_a_service_that_is_not_known_yet_is_unavailable() -> None:
    async def scenario(port: Port) -> None:
        status, body = await port.get("/v1/services/ns/other/pressure")
        assert (status, body["error"]["code"]) == (503, "unknown_service")

    run(scenario)


def test_a_service_tells_why_it_is_as_it_is() -> None:
    async def scenario(port: Port) -> None:
        status, body = await port.get("/v1/services/ns/llm")
        assert status == 200
        assert body["decisions"] == [DECISION]
        assert body["conditions"][0]["lastTransitionTime"] == STAMP
        assert body["nodes"][0]["decodeSMs"] == 16
        assert body["slo"]["ttft"]["burn_rates"] == {"1m": 3.0, "10m": 1.5}
        assert body["slo"]["tbt"]["attainment"] is None

    run(scenario)


def test_services_are_listed_by_name() -> None:
    async def scenario(port: Port) -> None:
        port.figures.change("a", "z")
        status, body = await port.get("/v1/services")
        assert status == 200
        assert [(one["namespace"], one["name"]) for one in body["services"]] == [("a", "z"), ("ns", "llm")]

    run(scenario)


def test_absurd_numbers_are_null_in_json() -> None:
    async def scenario(port: Port) -> None:
        port.figures.change("ns", "llm", pressure=math.inf, ttft=TargetFigures(400, 0.99, math.nan))
        _, body = await port.get("/v1/services/ns/llm")
        assert body["pressure"] is None
        assert body["slo"]["ttft"]["attainment"] is None

    run(scenario)


@pytest.mark.parametrize("path", ["/v1/services/ns/other", "/v1/else"])
def test_what_is_not_there_is_not_found(path: str) -> None:
    async def scenario(port: Port) -> None:
        status, body = await port.get(path)
        assert status == 404
        assert body["error"]["message"]

    run(scenario)


def test_it_is_alive_while_its_loops_move() -> None:
    async def scenario(port: Port) -> None:
        port.pulse.expect("push", 3)
        assert await port.get("/healthz") == (200, "ok\n")
        port.now_s += 31
        status, text = await port.get("/healthz")
        assert status == 500
        assert "loop push has not moved for 31 s" in text

    run(scenario)


def test_it_is_ready_once_it_does_its_work() -> None:
    async def scenario(port: Port) -> None:
        port.why_not_ready = "the services have not been listed yet"
        assert await port.get("/readyz") == (503, "the services have not been listed yet\n")
        port.why_not_ready = None
        assert await port.get("/readyz") == (200, "ok\n")

    run(scenario)


def test_metrics_tell_of_the_operator_s_work() -> None:
    async def scenario(port: Port) -> None:
        service = ("ns", "llm")
        port.metrics.reconciled(service, 0.2, Outcome.CHANGED)
        port.metrics.reconciled(service, 0.2, Outcome.FAILED)
        port.metrics.decided(service, "replicas", "PressureHigh")
        port.metrics.pushed(0.01, acknowledged=True)
        port.metrics.pushed(1.0, acknowledged=False)
        port.metrics.watch_restarted("pods")
        found = await port.samples()
        passes = {
            outcome: found[
                f'drift_operator_reconcile_total{{namespace="ns",outcome="{outcome}",service="llm"}}'
            ]
            for outcome in Outcome
        }
        assert passes == {Outcome.CHANGED: 1, Outcome.UNCHANGED: 0, Outcome.FAILED: 1}
        assert found['drift_operator_reconcile_errors_total{namespace="ns",service="llm"}'] == 1
        assert found["drift_operator_reconcile_duration_seconds_count"] == 2
        decided = 'lever="replicas",namespace="ns",reason="PressureHigh",service="llm"'
        assert found[f"drift_operator_decisions_total{{{decided}}}"] == 1
        assert found["drift_operator_push_total"] == 2
        assert found["drift_operator_push_failures_total"] == 1
        assert found["drift_operator_push_duration_seconds_count"] == 2
        assert found['drift_operator_watch_restarts_total{resource="pods"}'] == 1
        assert found['drift_operator_info{cluster="east"}'] == 1

    run(scenario)


def test_metrics_tell_of_every_service() -> None:
    async def scenario(port: Port) -> None:
        found = await port.samples()
        labels = 'namespace="ns",service="llm"'
        assert found[f"drift_slo_pressure{{{labels}}}"] == 0.83
        assert found[f"drift_desired_replicas{{{labels}}}"] == 3
        assert found[f"drift_present_replicas{{{labels}}}"] == 2
        assert found[f"drift_slo_feasible{{{labels}}}"] == 1
        assert found[f"drift_operator_metrics_age_seconds{{{labels}}}"] == 2
        assert found[f'drift_slo_attainment_ratio{{{labels},slo="ttft"}}'] == 0.97
        assert found[f'drift_slo_objective_ratio{{{labels},slo="ttft"}}'] == 0.99
        assert found[f'drift_slo_target_seconds{{{labels},slo="tbt"}}'] == 0.08
        assert found[f'drift_slo_burn_rate{{{labels},slo="ttft",window="10m"}}'] == 1.5

    run(scenario)


def test_unknown_numbers_are_absent_from_metrics() -> None:
    async def scenario(port: Port) -> None:
        port.now_s += STALE_S
        names = {name.partition("{")[0] for name in await port.samples()}
        assert "drift_operator_metrics_age_seconds" in names
        assert not names & {"drift_slo_pressure", "drift_desired_replicas"}

    run(scenario)


def test_a_service_that_is_gone_is_gone_from_metrics() -> None:
    async def scenario(port: Port) -> None:
        port.metrics.reconciled(("ns", "llm"), 0.2, Outcome.CHANGED)
        port.metrics.decided(("ns", "llm"), "replicas", "PressureHigh")
        port.metrics.forget(("ns", "llm"))
        port.figures.forget("ns", "llm")
        assert not [name for name in await port.samples() if 'service="llm"' in name]

    run(scenario)
