"""Two Grafana dashboards of a service, in a ConfigMap that Grafana's sidecar finds by its label.

One shows the promise as clients see it (the routers' figures), one the nodes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from drift_operator.driftservice import DriftService
from drift_operator.objects import kinds, metadata, monitoring, names
from drift_operator.objects.facts import Facts
from drift_operator.objects.metadata import Manifest

LABELS = {"grafana_dashboard": "1"}
"""What Grafana's Helm chart tells its sidecar to look for."""

COLUMNS, HEIGHT = 2, 8
"""A dashboard is 24 units wide."""

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}

QUANTILES = (0.5, 0.9, 0.99)


@dataclass(frozen=True)
class Panel:
    title: str
    unit: str
    queries: Sequence[tuple[str, str]]
    """(PromQL, legend)."""


def build(service: DriftService, facts: Facts) -> list[Manifest]:
    if not service.spec.observability.dashboards:
        return []
    made = metadata.begun(
        kinds.CONFIG_MAP, names.dashboards_map(service.metadata.name), service, facts, labels=LABELS
    )
    # Grafana's folder is flat: the file's name has to be another one for every service of every namespace.
    stem = f"drift-{metadata.namespace(service)}-{service.metadata.name}"
    pages = {"service": _service(service), "nodes": _nodes(service)}
    return [
        made
        | {
            "data": {
                f"{stem}-{page}.json": _dashboard(service, page, panels) for page, panels in pages.items()
            }
        }
    ]


def _service(service: DriftService) -> list[Panel]:
    def rate(name: str, by: str = "", **labels: str) -> str:
        return _sum(f"rate({monitoring.series(service, name, **labels)}[$__rate_interval])", by)

    def quantiles(name: str) -> list[tuple[str, str]]:
        return [
            (f"histogram_quantile({quantile}, {rate(f'{name}_bucket', 'le')})", f"P{100 * quantile:g}")
            for quantile in QUANTILES
        ]

    kept = "drift_router_slo_requests_total"
    return [
        Panel(
            "Promise kept",
            "percentunit",
            [(f"{rate(kept, 'slo', met='true')} / {rate(kept, 'slo')}", "{{slo}}")],
        ),
        Panel("Requests", "reqps", [(rate("drift_router_requests_total", "code"), "{{code}}")]),
        Panel("Time to first token", "s", quantiles("drift_router_ttft_seconds")),
        Panel("Time between tokens", "s", quantiles("drift_router_tbt_seconds")),
        Panel(
            "In flight and waiting",
            "short",
            [
                (_sum(monitoring.series(service, "drift_router_inflight")), "in flight"),
                (_sum(monitoring.series(service, "drift_router_queue_depth")), "waiting"),
            ],
        ),
        Panel(
            "Refused and resumed",
            "reqps",
            [
                (rate("drift_router_rejected_total", "reason"), "refused: {{reason}}"),
                (rate("drift_router_resumes_total", "outcome"), "resumed: {{outcome}}"),
            ],
        ),
        Panel(
            "Prompt tokens from caches",
            "percentunit",
            [
                (
                    f"{rate('drift_router_prefix_hit_tokens_total', 'source')} / ignoring (source) group_left "
                    f"{rate('drift_router_prompt_tokens_total')}",
                    "{{source}}",
                )
            ],
        ),
        Panel("Routing decisions", "reqps", [(rate("drift_router_decisions_total", "reason"), "{{reason}}")]),
    ]


def _nodes(service: DriftService) -> list[Panel]:
    def of(name: str) -> str:
        return monitoring.series(service, name)

    def rate(name: str, by: str) -> str:
        return _sum(f"rate({of(name)}[$__rate_interval])", by)

    return [
        Panel("SMs of each phase", "short", [(of("drift_split_sms"), "{{pod}} {{phase}}")]),
        Panel(
            "What the device does",
            "percentunit",
            [(rate("drift_activity_seconds_total", "pod, activity"), "{{pod}} {{activity}}")],
        ),
        Panel(
            "Requests",
            "short",
            [
                (of("vllm:num_requests_running"), "{{pod}} running"),
                (of("vllm:num_requests_waiting"), "{{pod}} waiting"),
            ],
        ),
        Panel("Prompt tokens not yet computed", "short", [(of("drift_queued_tokens"), "{{pod}}")]),
        Panel(
            "KV pages",
            "percentunit",
            [
                (of("vllm:kv_cache_usage_perc"), "{{pod}} held"),
                (of("drift_kv_used_ratio"), "{{pod}} held or cached"),
            ],
        ),
        Panel(
            "Tokens per second",
            "short",
            [
                (rate("vllm:generation_tokens_total", "pod"), "{{pod}} generated"),
                (rate("drift_computed_prompt_tokens_total", "pod"), "{{pod}} prompt"),
            ],
        ),
        Panel(
            "Latency model",
            "percentunit",
            [
                (of("drift_prediction_error_ratio"), "{{pod}} error, {{kind}}"),
                (of("drift_late_decode_ratio"), "{{pod}} late decode"),
            ],
        ),
        Panel(
            "Share of requests that routers give",
            "percentunit",
            [(f"avg by (node) ({of('drift_router_node_weight')})", "{{node}}")],
        ),
    ]


def _sum(expression: str, by: str = "") -> str:
    return f"sum by ({by}) ({expression})" if by else f"sum({expression})"


def _dashboard(service: DriftService, page: str, panels: Sequence[Panel]) -> str:
    place = f"{metadata.namespace(service)}/{service.metadata.name}"
    # Grafana takes 40 characters of [-_a-zA-Z0-9].
    uid = hashlib.sha256(f"{place}/{page}".encode()).hexdigest()[:32]
    datasource = {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}
    made = {
        "uid": uid,
        "title": f"Drift: {place}, {page}",
        "tags": ["drift"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [datasource]},
        "panels": [_panel(number, panel) for number, panel in enumerate(panels)],
    }
    return json.dumps(made, indent=1)


def _panel(number: int, panel: Panel) -> Manifest:
    width = 24 // COLUMNS
    row, column = divmod(number, COLUMNS)
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel.title,
        "datasource": DATASOURCE,
        "gridPos": {"x": column * width, "y": row * HEIGHT, "w": width, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + place), "datasource": DATASOURCE, "expr": query, "legendFormat": legend}
            for place, (query, legend) in enumerate(panel.queries)
        ],
    }
