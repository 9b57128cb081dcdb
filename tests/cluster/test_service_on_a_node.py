"""Drift installed by its chart on a cluster with a node: the shipped model answers through the Ingress, and goes on
answering while parts of the service fail."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

import clusters
import helm
import installed
import nginx_ingress
from clusters import Cluster
from kubectl import Kubectl, until
from nginx_ingress import Door

HOST = installed.EXAMPLE["spec"]["expose"]["ingress"]["host"]
QUESTION = "What is Drift?"
LONG = "Count from one to forty, in words, one after the other, without stopping."
TRUTH_S = 15.0
"""Within this the status has to say what happened."""


@pytest.fixture(scope="module")
def release(cluster: Cluster) -> Iterator[Kubectl]:
    with installed.chart(cluster) as kubectl:
        yield kubectl


@pytest.fixture(scope="module")
def home(release: Kubectl, cluster: Cluster) -> Iterator[Kubectl]:
    cluster.kubectl("create", "namespace", "home")
    yield cluster.kubectl.within("home")
    cluster.kubectl.delete("namespace", "home", wait=False)


@pytest.fixture(scope="module")
def two(home: Kubectl) -> str:
    """A service with two nodes and two routers."""
    made = installed.document("two", replicas=2)
    made["spec"]["expose"]["ingress"]["host"] = "two.example.com"
    home.apply(made)
    installed.ready(home, "two")
    return "two"


@pytest.fixture
def door(home: Kubectl, two: str, tmp_path: Path) -> Iterator[Door]:
    with nginx_ingress.serving(home, two, tmp_path) as found:
        yield found


def client(door: Door, host: str) -> openai.OpenAI:
    return openai.OpenAI(
        base_url=f"{door.url}/v1", api_key="none", default_headers={"host": host}, max_retries=2, timeout=60
    )


def told(asked: openai.OpenAI, model: str, question: str, max_tokens: int = 48) -> str:
    """A greedy answer, streamed."""
    stream = asked.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": question}],
        temperature=0,
        max_tokens=max_tokens,
        stream=True,
    )
    return "".join(part.choices[0].delta.content or "" for part in stream if part.choices)


def test_example_answers_through_its_ingress(home: Kubectl, tmp_path: Path) -> None:
    made = installed.document("drift-tiny")
    home.apply(made)
    installed.ready(home, "drift-tiny", installed.READY_S)
    with nginx_ingress.serving(home, "drift-tiny", tmp_path) as door:
        assert told(client(door, HOST), "drift-tiny", QUESTION) == (
            "Drift serves large language models under latency promises."
        )
    said = home("get", "drs", "drift-tiny")
    assert said.split("\n")[1].split()[:2] == ["drift-tiny", "True"]
    home.delete("driftservice", "drift-tiny")
    until(lambda: not installed.pods(home, "drift-tiny", "node"), "its pods to go")
    selector = "app.kubernetes.io/instance=drift-tiny"
    until(
        lambda: not home.list("deployments,services,secrets,configmaps,ingresses,roles", selector),
        "all that the service had to go with it",
    )


def test_helm_test_gets_an_answer(release: Kubectl, cluster: Cluster) -> None:
    asked = ("test", "drift", f"--namespace={release.namespace}", "--timeout=110s")
    done = helm.call(*asked, kubeconfig=cluster.kubeconfig)
    assert done.returncode == 0, done.stdout + done.stderr


class Asking:
    """Greedy streams one after the other from several clients, until it is told to stop."""

    def __init__(self, door: Door, model: str, clients: int = 3) -> None:
        self._asked = client(door, f"{model}.example.com")
        self._model = model
        self._stop = threading.Event()
        self._pool = concurrent.futures.ThreadPoolExecutor(clients)
        self.expected = told(self._asked, model, LONG)
        self._runs = [self._pool.submit(self._run) for _ in range(clients)]
        self.answered = 0

    def _run(self) -> list[str]:
        answers = []
        while not self._stop.is_set():
            answers.append(told(self._asked, self._model, LONG))
            self.answered += 1
        return answers

    def more(self, count: int) -> None:
        """Returns when so many more answers have come."""
        until_count = self.answered + count
        until(lambda: self.answered >= until_count, f"{count} more answers", 60)

    def end(self) -> None:
        """All answers were whole and the same."""
        self._stop.set()
        answers = [answer for run in self._runs for answer in run.result(90)]
        self._pool.shutdown()
        assert answers
        assert set(answers) == {self.expected}


def node_names(home: Kubectl, service: str) -> set[str]:
    return {pod["metadata"]["name"] for pod in installed.pods(home, service, "node")}


def test_node_pod_that_is_killed_costs_no_answer(home: Kubectl, two: str, door: Door) -> None:
    asking = Asking(door, two)
    try:
        asking.more(2)
        victim = min(node_names(home, two))
        home("delete", "pod", victim, "--force", "--grace-period=0")
        until(
            lambda: (
                victim not in json.dumps(installed.status(home, two))
                and installed.status(home, two)["readyReplicas"] == 1
            ),
            "the status to tell of it",
            TRUTH_S,
        )
        asking.more(2)
    finally:
        asking.end()
    installed.ready(home, two)
    until(lambda: installed.status(home, two).get("readyReplicas") == 2, "both nodes to be back", 90)


def test_router_pod_that_is_deleted_costs_no_answer(home: Kubectl, two: str, door: Door) -> None:
    asking = Asking(door, two)
    try:
        asking.more(2)
        victim = installed.pods(home, two, "router")[0]["metadata"]["name"]
        home("delete", "pod", victim, "--wait=false")
        asking.more(4)
    finally:
        asking.end()
    until(lambda: installed.condition(home, two, "Ready").get("status") == "True", "it to be ready", 60)


def test_node_whose_network_is_cut_costs_no_answer(
    cluster: Cluster, home: Kubectl, two: str, door: Door
) -> None:
    victim = installed.pods(home, two, "node")[0]
    asking = Asking(door, two)
    try:
        asking.more(2)
        with cut_off(cluster, victim["status"]["podIP"]):
            name = victim["metadata"]["name"]
            until(
                lambda: (
                    not any(
                        node["ready"]
                        for node in installed.status(home, two).get("nodes", ())
                        if node["name"] == name
                    )
                    or installed.condition(home, two, "MetricsAvailable").get("status") == "False"
                ),
                "the status to tell of it",
                TRUTH_S,
            )
            asking.more(2)
    finally:
        asking.end()
    until(lambda: installed.status(home, two).get("readyReplicas") == 2, "both nodes to be back", 90)


@contextlib.contextmanager
def cut_off(cluster: Cluster, ip: str) -> Iterator[None]:
    """The pod of that address hears nothing and is not heard, until the end: the bridge's port to it is down."""
    machine = f"drift-{cluster.number}"
    mac = _run("ip", "-n", machine, "neigh", "show", ip).split(" lladdr ")[1].split()[0]
    lines = _run("ip", "netns", "exec", machine, "bridge", "fdb", "show").splitlines()
    port = next(line.split()[2] for line in lines if line.startswith(f"{mac} dev veth"))
    _run("ip", "-n", machine, "link", "set", port, "down")
    try:
        yield
    finally:
        _run("ip", "-n", machine, "link", "set", port, "up")


def _run(*command: str) -> str:
    path = {"PATH": clusters.SYSTEM_PATH}
    done = subprocess.run(command, env=path, capture_output=True, text=True, timeout=20, check=True)
    return done.stdout


def test_full_cache_costs_no_answer(home: Kubectl, two: str, door: Door) -> None:
    asked = client(door, f"{two}.example.com")
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        words = [" ".join(f"word{place}-{turn}" for place in range(300)) for turn in range(12)]
        answers = list(pool.map(lambda text: told(asked, two, f"{text} {QUESTION}", 8), words))
    assert all(answers)
    assert installed.condition(home, two, "Ready")["status"] == "True"


def test_pods_carry_no_token_that_they_do_not_need(home: Kubectl, two: str) -> None:
    token = "/var/run/secrets/kubernetes.io/serviceaccount/token"
    look = ["python3", "-c", f"import os; print(os.path.exists({token!r}))"]
    node = installed.pods(home, two, "node")[0]["metadata"]["name"]
    router = installed.pods(home, two, "router")[0]["metadata"]["name"]
    assert home("exec", node, "--", *look).strip() == "False"
    assert home("exec", router, "--", *look).strip() == "True"
    account = f"system:serviceaccount:{home.namespace}"
    as_router = home.acting_as(f"{account}:{two}-router")
    assert as_router.may("watch", "endpointslices.discovery.k8s.io")
    assert not any(
        as_router.may(verb, what)
        for verb, what in [
            ("get", "secrets"),
            ("list", "pods"),
            ("get", "driftservices"),
            ("patch", "services"),
        ]
    )
    as_node = home.acting_as(f"{account}:{two}-node")
    assert not any(as_node.may("list", what) for what in ("endpointslices", "pods", "secrets", "configmaps"))


def test_control_port_obeys_nobody_without_the_token(home: Kubectl, two: str) -> None:
    ip = installed.pods(home, two, "node")[0]["status"]["podIP"]
    for token in ("", "guess"):
        request = urllib.request.Request(
            f"http://{ip}:8001/control/v1/split",
            data=json.dumps({"epoch": 10**9, "decode_sms": 1}).encode(),
            headers={"x-drift-token": token, "content-type": "application/json"},
            method="PUT",
        )
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=20)
        assert refused.value.code == 401
        refused.value.close()


def test_operator_that_is_killed_stops_no_request(
    release: Kubectl, home: Kubectl, two: str, door: Door
) -> None:
    asking = Asking(door, two)
    try:
        asking.more(2)
        release("delete", "pod", "--force", "--grace-period=0", "-l", "app.kubernetes.io/name=drift-operator")
        asking.more(3)
    finally:
        asking.end()
    before: Any = home.get("deployment", f"{two}-node")
    until(
        lambda: all(pod["status"].get("phase") == "Running" for pod in release.list("pods")),
        "the operator to be back",
    )
    time.sleep(5)
    after: Any = home.get("deployment", f"{two}-node")
    assert after["metadata"]["generation"] == before["metadata"]["generation"]
