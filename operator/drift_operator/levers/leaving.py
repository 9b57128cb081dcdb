"""Who leaves when there is a node too many: whoever has the least work to lose, the newest among equals."""

from __future__ import annotations

from collections.abc import Iterable

from drift_operator.levers.observations import MOST_COUNT, Node

CACHE_STEP = 0.25
"""Of KV use: caches are told apart by quarters, so that a percent does not outweigh an hour of life."""


def order(nodes: Iterable[Node]) -> tuple[str, ...]:
    """Names, the first to leave first. Those that leave already come first, then those that take no requests; of
    the others those whose work is unknown come last."""

    def work(node: Node) -> tuple[int, int, int, float, str]:
        report = node.report
        idle = 0 if node.leaving else 1 if not node.ready else 2
        in_flight = report.in_flight if report is not None else MOST_COUNT
        cache = round(report.kv_usage / CACHE_STEP) if report is not None else 0
        return idle, in_flight, cache, -node.started_s, node.name

    return tuple(node.name for node in sorted(nodes, key=work))
