"""docs/reference/metrics.md: every series that nodes, routers and operators tell, from what they say themselves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from documentation.tables import code, page, table
from drift_engine import wire
from drift_engine.api.metrics import Metrics as NodeMetrics
from drift_engine.options import SloOptions
from drift_operator.doors.figures import ServiceFigures, TargetFigures
from drift_operator.doors.metrics import Metrics as OperatorMetrics
from drift_operator.doors.metrics import Outcome
from drift_router import metrics as router_metrics
from drift_router.counters import Counters
from drift_router.nodes.breaker import Circuit
from drift_router.nodes.health import State
from drift_router.nodes.statuses import NodeStatus
from drift_router.pictures import Picture
from drift_router.snapshots import IndexState

INTRODUCTION = """\
All speak the Prometheus text format at `/metrics`. Seconds, ratios from 0 to 1; counters end in `_total`.
Histograms have an edge exactly at the promised target, so the share of requests that kept it can be read from
the buckets. What is unknown is absent, never zero.

What to look at, and when: [operations](../operations.md#metrics-of-the-operator). Alerts are [there,
too](../operations.md#alerts).
"""

HEADINGS = ("series", "type", "labels", "meaning")


def render() -> str:
    return page(
        "Metrics",
        "what nodes, routers and the operator answer at `/metrics`",
        INTRODUCTION,
        "## A node\n\nPort 8000 on a cluster, and the address that `drift up` tells. `vllm:` names are vLLM's.\n",
        table(HEADINGS, _rows(node_text())),
        "## A router\n\nThe admin port: 8081 on a cluster, `--admin-port` of `drift router`.\n",
        table(HEADINGS, _rows(router_text())),
        "## The operator\n\nPort 8080 of the Service `drift-operator`.\n",
        table(HEADINGS, _rows(operator_text())),
    )


def node_text() -> str:
    """What a node that has served says."""
    metrics = NodeMetrics("model", SloOptions())
    split = wire.Split(1, 1)
    metrics.ready = wire.Ready(
        architecture="",
        parameters=1,
        vocab_size=1,
        max_model_len_tokens=1,
        eos_token_ids=(),
        device="cpu",
        hardware="",
        dtype="float32",
        threads=1,
        page_tokens=16,
        kv_pages=1,
        kv_bytes=1,
        mode=wire.Mode.AUTO,
        load_s=0.0,
    )
    metrics.step(
        wire.Stats(
            time_s=0.0,
            running=0,
            waiting=0,
            queued_tokens=0,
            kv_pages_used=0,
            kv_pages_held=0,
            kv_pages_total=1,
            split=split,
            activity_s_total={wire.Activity.MUX: 0.0},
            prediction_errors={"decode": 0.0},
        )
    )
    metrics.rejected("full")
    return generate_latest(metrics.registry).decode()


def router_text() -> str:
    """What a router with a node says."""
    node = NodeStatus(
        slot=0,
        name="node",
        url="",
        control_url=None,
        weight=1.0,
        draining=False,
        removed=False,
        eligible=True,
        health=State.HEALTHY,
        problem="",
        circuit=Circuit.CLOSED,
        index=IndexState.EXACT,
        in_flight=0,
        queued_tokens=0,
        warmth=1.0,
        trust=1.0,
        prefill_tokens_per_s=0.0,
        fixed_s=0.0,
        tbt_s=0.0,
        report_age_s=None,
        report=None,
    )
    counters = Counters.fresh(0.4, 0.08)
    counters.requests[200] = 1
    return router_metrics.render(Picture(counters, [node], 0, 0, draining=False)).decode()


class _OneService:
    """An operator's memory of one service, of which all is known."""

    def __init__(self) -> None:
        target = TargetFigures(400.0, 0.99, 1.0, burn_rates={"1m": 0.0})
        self._service = ServiceFigures("default", "chat", 0.0, 0.5, 1, 1, target, target, feasible=True)

    def lookup(self, namespace: str, name: str) -> ServiceFigures | None:
        return self._service

    def all(self) -> Iterable[ServiceFigures]:
        return [self._service]


def operator_text() -> str:
    """What an operator with a service says that it has done everything for."""
    metrics = OperatorMetrics(_OneService(), clock=lambda: 0.0)
    service = ("default", "chat")
    metrics.reconciled(service, 0.0, Outcome.UNCHANGED)
    metrics.decided(service, "split", "Relaxing")
    metrics.pushed(0.0, acknowledged=True)
    metrics.watch_restarted("pods")
    return metrics.render().decode()


def _rows(text: str) -> Iterator[tuple[str, ...]]:
    for family in sorted(text_string_to_metric_families(text), key=lambda each: each.name):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {label: None for sample in family.samples for label in sample.labels if label != "le"}
        yield code(name), family.type, ", ".join(map(code, labels)), family.documentation
