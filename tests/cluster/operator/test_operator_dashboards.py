"""The chart's dashboards over an operator at work: Prometheus has something to show for every query."""

from __future__ import annotations

import json
import math
import re
import urllib.parse
from collections.abc import Iterator

import pytest

import documents
import operator_bed
import prometheus
from operator_bed import Bed
from plant import Demand
from prometheus import Prometheus

FOLDER = documents.REPOSITORY / "charts" / "drift" / "dashboards"
RUSH = Demand(requests_per_s=36, prompt_tokens=2048, output_tokens=32)
"""More than a node bears, so that there is something to decide."""


def queries() -> Iterator[tuple[str, str]]:
    """(Panel, PromQL)."""
    for file in sorted(FOLDER.glob("*.json")):
        for panel in json.loads(file.read_text())["panels"]:
            for target in panel["targets"]:
                query = target["expr"].replace("$__rate_interval", f"{4 * prometheus.SCRAPE_S}s")
                yield panel["title"], re.sub(r'"\$\w+"', '".*"', query)


@pytest.fixture(scope="module")
def server(bed: Bed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    address = urllib.parse.urlsplit(bed.operator.url).netloc
    with (
        operator_bed.scene(bed) as scene,
        prometheus.scraping(tmp_path_factory.mktemp("prometheus"), {address: {"pod": "operator"}}) as found,
    ):
        scene.apply(autoscaling={"minReplicas": 1, "maxReplicas": 3, "stabilization": {"up": "0s"}})
        scene.until_ready(nodes=1)
        scene.service().demand = RUSH
        scene.until(lambda status: bool(status.get("decisions")))
        yield found


@pytest.mark.parametrize(("panel", "query"), [*queries()])
def test_every_query_shows_something(server: Prometheus, panel: str, query: str) -> None:
    def shown() -> bool:
        return any(math.isfinite(float(sample["value"][1])) for sample in server.query(query))

    operator_bed.eventually(shown, deadline_s=40)
