"""The first quarter of an hour of somebody with a cluster: install, a service, the console in a browser, a question,
a replay, a node's pod killed in the middle of it, and reading why nothing failed."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import browser
import clusters
import console_visits
import documents
import helm
import http_calls
import installed
from browser import Stage
from clusters import Cluster
from drift_operator.local import ports
from kubectl import Kubectl, until
from running_up import DRIFT

SERVICE = "drift-tiny"
NODES = 2
TRACE = documents.REPOSITORY / "tests" / "support" / "traces" / "mooncake_conversation_piece.jsonl"
QUESTION, ANSWER = "What is Drift?", "Drift serves large language models under latency promises."
TOKEN = "a-token-for-the-console"
TRUTH_S = 15.0
REPLAY_S = 300


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with browser.stage() as found:
        yield found


@pytest.fixture(scope="module")
def release(cluster: Cluster) -> Iterator[Kubectl]:
    """With a console that may ask, as docs/console.md has it."""
    with installed.chart(cluster) as kubectl:
        kubectl("create", "secret", "generic", "drift-console", f"--from-literal=token={TOKEN}")
        done = helm.call(
            *("upgrade", "drift", str(helm.CHART), f"--namespace={kubectl.namespace}", "--wait"),
            *("--reset-then-reuse-values", f"--timeout={installed.INSTALL_S:.0f}s"),
            *("--set", "console.tokenSecretRef.name=drift-console"),
            *("--set", "console.tokenSecretRef.key=token"),
            kubeconfig=cluster.kubeconfig,
            timeout_s=installed.INSTALL_S + 20,
        )
        assert done.returncode == 0, done.stderr
        yield kubectl


@pytest.fixture(scope="module")
def home(release: Kubectl, cluster: Cluster) -> Iterator[Kubectl]:
    cluster.kubectl("create", "namespace", "stranger")
    kubectl = cluster.kubectl.within("stranger")
    # Of a promise that a busy machine can keep: a request that it refuses is no fault of who was killed.
    promise = {"ttft": {"targetMs": 20_000}, "tbt": {"targetMs": 2_000}}
    kubectl.apply(installed.document(SERVICE, replicas=NODES, slo=promise))
    kubectl("wait", "--for=condition=Ready", f"driftservice/{SERVICE}", "--timeout=240s", timeout_s=250)
    yield kubectl
    cluster.kubectl.delete("namespace", "stranger", wait=False)


@contextlib.contextmanager
def forwarded(cluster: Cluster, namespace: str, service: str, port: int) -> Iterator[str]:
    """`kubectl port-forward`: the Service's URL on this machine."""
    (free,) = ports.free("127.0.0.1", 1)
    command = [str(clusters.binaries() / "kubectl"), "port-forward", f"--namespace={namespace}"]
    with subprocess.Popen(
        [*command, f"service/{service}", f"{free}:{port}"],
        env={**os.environ, "KUBECONFIG": str(cluster.kubeconfig)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert "Forwarding" in process.stdout.readline()
            yield f"http://127.0.0.1:{free}"
        finally:
            process.kill()


def drift(cluster: Cluster, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*DRIFT, *arguments],
        env={**os.environ, "KUBECONFIG": str(cluster.kubeconfig)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def working(home: Kubectl) -> str:
    """A node that answers requests now, by its own metrics."""
    found: list[str] = []

    def somebody_works() -> bool:
        for pod in installed.pods(home, SERVICE, "node"):
            url = f"http://{pod['status']['podIP']}:8000"
            if http_calls.metric(url, "vllm:num_requests_running"):
                found.append(pod["metadata"]["name"])
                return True
        return False

    until(somebody_works, "a node to have requests")
    return found[0]


@pytest.mark.timeout(900)
def test_from_install_to_why_a_killed_node_failed_nothing(
    cluster: Cluster, release: Kubectl, home: Kubectl, stage: Stage, tmp_path: Path
) -> None:
    with (
        forwarded(cluster, release.namespace, "drift-operator", 8080) as operator,
        forwarded(cluster, home.namespace, SERVICE, 80) as url,
    ):
        page = f"{operator}/console/#/{home.namespace}/{SERVICE}"
        body = {"model": SERVICE, "messages": [{"role": "user", "content": QUESTION}], "temperature": 0}
        said = http_calls.post(url, "/v1/chat/completions", body).json
        assert said["choices"][0]["message"]["content"] == ANSWER
        entry = f"{operator}/console/#token={TOKEN}"
        console_visits.ask(stage, entry, QUESTION, ANSWER, f"{home.namespace}/{SERVICE}")

        result = tmp_path / "result.json"
        asked = ["bench", "--url", url, "--trace", str(TRACE), "--length-scale", "0.1", "--requests", "16"]
        asked += ["--concurrency-limit", "4"]
        with subprocess.Popen(
            [*DRIFT, *asked, "--json", str(result)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as bench:
            try:
                victim = working(home)
                others = names(home) - {victim}
                home("delete", "pod", victim, "--force", "--grace-period=0")
                until(lambda: told(home, victim), "the status to tell of it", TRUTH_S)
                output, _ = bench.communicate(timeout=REPLAY_S)
            finally:
                bench.kill()
        assert bench.returncode == 0, output
        measured: dict[str, Any] = json.loads(result.read_text())
        assert (measured["requests"], measured["failed"]) == (16, 0)

        until(lambda: installed.status(home, SERVICE)["readyReplicas"] == NODES, "both nodes to be back", 90)
        assert installed.condition(home, SERVICE, "Ready")["status"] == "True"
        (successor,) = names(home) - others
        assert SERVICE in console_visits.read(stage, page, node=successor, says="ready")
    assert "Ready" in home("describe", "driftservice", SERVICE)
    explained = drift(cluster, "explain", SERVICE, f"--namespace={home.namespace}")
    assert "what would move each lever next" in explained.stdout, explained.stderr


def names(home: Kubectl) -> set[str]:
    return {pod["metadata"]["name"] for pod in installed.pods(home, SERVICE, "node")}


def told(home: Kubectl, victim: str) -> bool:
    status = installed.status(home, SERVICE)
    return status["readyReplicas"] < NODES and victim not in json.dumps(status.get("nodes", []))
