"""Debian's Prometheus: rules that are judged in virtual time, and a server that scrapes what a test runs."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

import http_calls
import real_node
from drift_operator.local import ports

Rules = Sequence[Mapping[str, Any]]
"""Groups, as a PrometheusRule has them."""

SCRAPE_S = 3
"""A scrape has no longer, and a machine with other work takes a second for one."""


def program(name: str) -> str:
    """Skips the test where there is none."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"no {name} here: apt-get install prometheus")
    return found


def assert_firing(
    rules: Rules, series: Mapping[str, str], expected: Iterable[str], *, after: str, folder: Path
) -> None:
    """Exactly these alerts fire. `series`: samples a minute apart, in promtool's notation."""
    (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": list(rules)}))
    case = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": after,
                "exp_samples": [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in expected],
            }
        ],
    }
    test = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": [case]}
    (folder / "test.yaml").write_text(yaml.safe_dump(test))
    done = subprocess.run(
        [program("promtool"), "test", "rules", str(folder / "test.yaml")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


class Prometheus:
    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"

    def ready(self) -> bool:
        with contextlib.suppress(OSError):
            return http_calls.get(self._url, "/-/ready").status == 200
        return False

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples of now. Raises AssertionError where Prometheus does not understand it."""
        reply = http_calls.get(self._url, f"/api/v1/query?query={urllib.parse.quote(expression)}")
        assert reply.status == 200, f"{expression}: {reply.raw.decode()}"
        found: list[dict[str, Any]] = json.loads(reply.raw)["data"]["result"]
        return found


@contextlib.contextmanager
def scraping(folder: Path, targets: Mapping[str, Mapping[str, str]]) -> Iterator[Prometheus]:
    """`targets`: HOST:PORT of a /metrics -> the labels that its PodMonitor would give it."""
    (port,) = ports.free("127.0.0.1")
    config = {
        "global": {"scrape_interval": f"{SCRAPE_S}s"},
        "scrape_configs": [
            {
                "job_name": "pods",
                "honor_labels": True,
                "static_configs": [
                    {"targets": [address], "labels": dict(labels)} for address, labels in targets.items()
                ],
            }
        ],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                program("prometheus"),
                f"--config.file={folder / 'prometheus.yaml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        server = Prometheus(port)
        real_node.until(server.ready, "Prometheus to be ready")
        yield server
    finally:
        process.terminate()
        process.wait(timeout=20)
