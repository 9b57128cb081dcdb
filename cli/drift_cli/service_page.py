"""A page about one service, and a table of many, for a terminal. Pure: DriftServices in, rich's renderables out."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from drift_cli import advice, verdicts
from drift_cli.spelling import UNKNOWN, milliseconds, number, share, span
from drift_cli.verdicts import Concern
from drift_operator.driftservice import DriftService
from drift_operator.status import Decision, NodeStatus, Status, TargetStatus

DECISIONS_SHOWN = 3
"""On the page; `drift explain` has them all."""

STYLES = {True: "bold green", False: "bold red"}

CLUSTER_UNSEEN = "no operator has looked at it: kubectl get lease -A | grep drift tells whether one runs"
RUN_UNSEEN = "the run has just begun"


def page(service: DriftService, now: datetime.datetime) -> RenderableType:
    status = service.status or Status()
    parts: list[RenderableType] = [
        headline(service),
        Text(f"  {_where(service)}", style="dim"),
        Text(),
        promise(service),
        Text(),
        Text(f"nodes: {_counts(status)}"),
    ]
    if status.nodes:
        parts.append(_indented(_nodes(status.nodes)))
    found = list(verdicts.concerns(service))
    for title, fault in (("what is wrong", True), ("what is going on", False)):
        if chosen := [concern for concern in found if concern.fault is fault]:
            parts += [Text(), Text(f"{title}:"), *(_concern(each, service, now) for each in chosen)]
    if service.status is None:
        parts += [Text(), Text(CLUSTER_UNSEEN if service.metadata.namespace is not None else RUN_UNSEEN)]
    if status.decisions:
        latest = status.decisions[:DECISIONS_SHOWN]
        parts += [Text(), Text("last decisions:"), _indented(time_line(latest, now))]
    return Group(*parts)


def headline(service: DriftService) -> Text:
    verdict = verdicts.judge(service)
    name = service.metadata.name
    where = (
        f" in namespace {service.metadata.namespace}" if service.metadata.namespace else " on this machine"
    )
    return Text.assemble((name, "bold"), where, ": ", (verdict.value, STYLES[verdict.good]))


def promise(service: DriftService) -> Table:
    """Both halves: what is promised, and how it is kept over the window."""
    slo = service.spec.slo
    kept = service.status.slo if service.status is not None else None
    slope = f" + {slo.ttft.per_token_ms:g} ms per uncached token" if slo.ttft.per_token_ms else ""
    table = _table("promise", "target", "*kept", "*P50", "*P99", "*burn", "*requests")
    for name, target, part in (
        ("first token", slo.ttft, kept.ttft if kept else None),
        ("every further token", slo.tbt, kept.tbt if kept else None),
    ):
        told = f"{target.target_ms} ms{slope if target is slo.ttft else ''} for {share(target.attainment)}"
        part = part or TargetStatus()
        missed = part.attainment is not None and part.attainment < target.attainment
        table.add_row(
            name,
            told,
            Text(share(part.attainment), style=STYLES[not missed] if part.attainment is not None else ""),
            milliseconds(part.p50_ms),
            milliseconds(part.p99_ms),
            number(part.burn_rate),
            number(part.requests),
        )
    return table


def time_line(decisions: Sequence[Decision], now: datetime.datetime) -> Table:
    """Newest first."""
    table = _table("when", "lever", "node", "from", "to", "why")
    for each in decisions:
        when = f"{span(verdicts.age_s(each.time, now))} ago"
        why = f"{each.reason}: {each.message}" if each.message else each.reason
        table.add_row(when, each.lever, each.node or "all", each.before, each.after, why)
    return table


def table(services: Sequence[DriftService]) -> RenderableType:
    """Of many, by namespace and name."""
    made = _table("namespace", "name", "state", "*TTFT", "*TBT", "*nodes", "*decode SMs", "what is wrong")
    for service in sorted(services, key=lambda each: (each.metadata.namespace or "", each.metadata.name)):
        status, verdict = service.status or Status(), verdicts.judge(service)
        slo = status.slo
        wrong = [each.condition.reason for each in verdicts.concerns(service) if each.fault]
        made.add_row(
            service.metadata.namespace or UNKNOWN,
            service.metadata.name,
            Text(verdict.value, style=STYLES[verdict.good]),
            share(slo.ttft.attainment if slo and slo.ttft else None),
            share(slo.tbt.attainment if slo and slo.tbt else None),
            f"{status.ready_replicas or 0}/{number(status.desired_replicas)}",
            status.decode_sms or UNKNOWN,
            ", ".join(dict.fromkeys(wrong)) or UNKNOWN,
        )
    return made


def _where(service: DriftService) -> str:
    spec, status = service.spec, service.status or Status()
    parts = [status.url or "", spec.model.uri, f"mode {spec.multiplexing.mode}"]
    return ", ".join(filter(None, parts))


def _counts(status: Status) -> str:
    said = f"{status.ready_replicas or 0} of {number(status.desired_replicas)} wanted are ready"
    leaving = f", {status.draining_replicas} leaving" if status.draining_replicas else ""
    more = len(status.nodes or ()) < (status.replicas or 0)
    return said + leaving + (f"; the first {len(status.nodes or ())} are shown" if more else "")


def _nodes(nodes: Sequence[NodeStatus]) -> Table:
    """As narrow as `drift top`'s: pods have long names."""
    made = _table("node", "state", "*split", "*weight", "*KV", "*hits", "set-point")
    made.columns[0].overflow = "fold"
    for node in nodes:
        split = f"{number(node.decode_sms)}/{number(node.prefill_sms)}"
        made.add_row(
            node.name,
            "leaving" if node.draining else "ready" if node.ready else "not ready",
            split if node.decode_sms is not None else UNKNOWN,
            number(node.weight),
            share(node.kv_use),
            share(node.hit_rate),
            _set_point(node),
        )
    return made


def _set_point(node: NodeStatus) -> str:
    if node.epoch_sent is None:
        return UNKNOWN
    return "taken" if (node.epoch_acknowledged or 0) >= node.epoch_sent else "waiting"


def _concern(concern: Concern, service: DriftService, now: datetime.datetime) -> RenderableType:
    found = concern.condition
    said, since = [found.message], f", for {span(verdicts.age_s(found.last_transition_time, now))}"
    todo = advice.on(found.reason) if service.metadata.namespace is not None else None
    if todo is not None:  # a local run has no kubectl
        said.append(f"what to do: {todo}")
    title = Text.assemble(
        (f"  {found.type} is {found.status}", "red" if concern.fault else "yellow"),
        f" ({found.reason}{since})",
    )
    return Group(title, *(Padding(Text(line), (0, 0, 0, 4), expand=False) for line in said))


def _table(*columns: str) -> Table:
    """A star before a column's name: numbers."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        made.add_column(column.removeprefix("*"), justify="right" if column.startswith("*") else "left")
    return made


def _indented(what: RenderableType) -> Padding:
    return Padding(what, (0, 0, 0, 2), expand=False)
