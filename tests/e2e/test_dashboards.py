"""A service's dashboards over real nodes and a real router: Prometheus has something to show for every query."""

from __future__ import annotations

import contextlib
import json
import math
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest

import http_calls
import prometheus
import real_node
import router_process
import service_objects
from prometheus import Prometheus
from router_process import RouterProcess

CLIENTS = 4
OWN = {"namespace": "team", "service": "demo"}
"""As `service_objects` calls it."""


def queries() -> Iterator[tuple[str, str]]:
    """(Panel, PromQL)."""
    made = service_objects.one("ConfigMap", "demo-dashboards", observability={"dashboards": True})
    for text in made["data"].values():
        for panel in json.loads(text)["panels"]:
            for target in panel["targets"]:
                yield (
                    panel["title"],
                    target["expr"].replace("$__rate_interval", f"{4 * prometheus.SCRAPE_S}s"),
                )


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Iterator[list[real_node.RealNode]]:
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(
                real_node.started(tmp_path_factory.mktemp(f"node{index}"), model, device="sim", mode="mux")
            )
            for index in range(2)
        ]


@pytest.fixture(scope="module")
def router(nodes: list[real_node.RealNode]) -> Iterator[RouterProcess]:
    urls = [f"{node.url},{node.control_url}" for node in nodes]
    with router_process.router(*urls, token=real_node.TOKEN) as process:
        real_node.until(lambda: http_calls.get(process.url, "/readyz").status == 200, "nodes")
        yield process


@pytest.fixture(scope="module")
def traffic(router: RouterProcess, model: Path) -> Iterator[None]:
    """Chats that go on, so that prompts are computed beside running answers."""
    done = threading.Event()

    def talk(client: int) -> None:
        said = f"client {client}: "
        while not done.is_set():
            said = said[:300] + "How are you? " * 20
            body = {"model": model.name, "prompt": said, "max_tokens": 60, "stream": True}
            assert http_calls.post(router.url, "/v1/completions", body).status == 200

    clients = [threading.Thread(target=talk, args=(number,)) for number in range(CLIENTS)]
    for client in clients:
        client.start()
    yield
    done.set()
    for client in clients:
        client.join()


@pytest.fixture(scope="module")
def server(
    nodes: list[real_node.RealNode],
    router: RouterProcess,
    traffic: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Prometheus]:
    targets = {
        urllib.parse.urlsplit(url).netloc: {**OWN, "pod": pod, "endpoint": endpoint}
        for pod, endpoint, url in (
            ("router", "admin", router.admin_url),
            *((f"node-{number}", "api", node.url) for number, node in enumerate(nodes)),
        )
    }
    with prometheus.scraping(tmp_path_factory.mktemp("prometheus"), targets) as found:
        yield found


@pytest.mark.parametrize(("panel", "query"), [*queries()])
def test_every_query_shows_something(server: Prometheus, panel: str, query: str) -> None:
    def shown() -> bool:
        return any(math.isfinite(float(sample["value"][1])) for sample in server.query(query))

    real_node.until(shown, f"{panel!r} to show {query}")


def test_alerts_are_of_series_that_are_scraped(server: Prometheus) -> None:
    """What an alert compares must be there; whether it fires is told by Prometheus's own judge, elsewhere."""
    for group in service_objects.one("PrometheusRule", "demo")["spec"]["groups"]:
        for rule in group["rules"]:
            if rule["expr"].startswith("absent"):
                assert server.query(rule["expr"]) == [], rule["alert"]
            else:
                for name in _selectors(rule["expr"]):
                    assert server.query(name), f"{rule['alert']}: nothing has {name}"


def _selectors(expression: str) -> set[str]:
    """The series of an expression, without their ranges."""
    found, rest = set(), expression
    while "}" in rest:
        head, _, rest = rest.partition("}")
        name, _, matchers = head.rpartition("{")
        found.add(f"{name.split('(')[-1].split(' ')[-1]}{{{matchers}}}")
    return found
