"""`drift up` with several nodes: what a person sees, and that a node's death loses nothing."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

import documents
import http_calls
import real_node
from drift_operator.local import ports
from running_up import DRIFT, Fleet, started

EXAMPLE = documents.REPOSITORY / "examples" / "three-nodes.yaml"
NAMES = ["three-nodes-0", "three-nodes-1", "three-nodes-2"]
SIM = {"device": "sim"}


@pytest.fixture
def simulated(tmp_path: Path) -> Path:
    """The example, on simulated hardware: it starts in seconds."""
    document = yaml.safe_load(EXAMPLE.read_text())
    document["spec"]["engine"] = SIM
    file = tmp_path / "simulated.yaml"
    file.write_text(yaml.safe_dump(document))
    return file


def body(number: int, tokens: int, **fields: Any) -> dict[str, Any]:
    return {
        "model": "drift-tiny",
        "prompt": f"{number}: What is Drift? " * 20,
        "max_tokens": tokens,
        "temperature": 0,
        "ignore_eos": True,
        **fields,
    }


def answered(url: str, number: int, tokens: int) -> str:
    """The text of a greedy request; every second one is a stream."""
    if number % 2:
        reply = http_calls.post(url, "/v1/completions", body(number, tokens))
        assert reply.status == 200, reply.raw
        text: str = reply.json["choices"][0]["text"]
        return text
    reply = http_calls.post(url, "/v1/completions", body(number, tokens, stream=True))
    assert reply.status == 200, reply.raw
    *events, last = [line.removeprefix(b"data: ") for line in reply.raw.split(b"\n\n") if line]
    assert last == b"[DONE]"
    parts = [json.loads(event) for event in events]
    assert "error" not in parts[-1], parts[-1]
    return "".join(choice["text"] for part in parts for choice in part["choices"])


def all_answered(url: str, count: int, tokens: int) -> list[str]:
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda number: answered(url, number, tokens), range(count)))


def loses_nothing(fleet: Fleet, count: int, tokens: int) -> None:
    """One node is killed while it has requests; every answer is what it was before."""
    undisturbed = all_answered(fleet.url, count, tokens)
    with ThreadPoolExecutor(1) as pool:
        disturbed = pool.submit(all_answered, fleet.url, count, tokens)
        busy: list[str] = []

        def somebody_works() -> bool:
            busy[:] = [name for name, node in fleet.nodes().items() if node["in_flight"]]
            return bool(busy) or disturbed.done()

        real_node.until(somebody_works, "a node to have requests")
        assert busy, "all was over before a node could be killed"
        victim = busy[0]
        os.kill(fleet.pid_of(victim), signal.SIGKILL)
        assert disturbed.result() == undisturbed
    fleet.wait_for(f"node {victim} was killed by SIGKILL (out of memory?); starting it again")
    fleet.wait_for(f"node {victim} serves again")

    def works_again() -> bool:
        all_answered(fleet.url, 6, 4)
        report = fleet.nodes()[victim]["report"]
        return bool(report is not None and report["prompt_tokens_total"])

    real_node.until(works_again, "the node to get requests again")


def test_three_nodes_stand_behind_one_address_and_a_killed_one_loses_nothing(
    simulated: Path, tmp_path: Path
) -> None:
    runtime = tmp_path / "runtime"
    with started(simulated, XDG_RUNTIME_DIR=str(runtime)) as fleet:
        assert "3 nodes behind a router" in fleet.said
        assert re.search(r"^three-nodes-1: .*ready", fleet.said, re.MULTILINE)
        (file,) = (runtime / "drift").iterdir()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        seen = fleet.top()
        assert all(re.search(rf"^{name} +healthy +exact +auto ", seen, re.MULTILINE) for name in NAMES)
        assert "3 of 3 nodes take requests" in seen
        page = fleet.drift("status", "--local", "three-nodes")
        assert page.startswith("three-nodes on this machine: ready; no request to judge the promise by\n")
        assert all(re.search(rf"^  {name} +ready ", page, re.MULTILINE) for name in NAMES)
        loses_nothing(fleet, 12, 1000)
        fleet.process.send_signal(signal.SIGTERM)
        assert fleet.ended() == 0
        assert fleet.lines[-1] == "stopped\n"
        assert "stopping: requests may finish" in fleet.said
        assert "Traceback" not in fleet.said
        assert list((runtime / "drift").iterdir()) == []


def test_drift_tiny_behind_a_router_loses_nothing() -> None:
    with started(EXAMPLE, "--log-level", "warning") as fleet:
        loses_nothing(fleet, 6, 400)
        fleet.process.send_signal(signal.SIGINT)
        assert fleet.ended() == 0


def test_the_first_signal_lets_requests_finish_and_takes_no_more(simulated: Path) -> None:
    with started(simulated) as fleet, ThreadPoolExecutor(1) as pool:
        undisturbed = answered(fleet.url, 0, 1000)
        last = pool.submit(answered, fleet.url, 0, 1000)
        real_node.until(lambda: any(node["in_flight"] for node in fleet.nodes().values()), "the request")
        fleet.process.send_signal(signal.SIGINT)
        fleet.wait_for("stopping: ")
        assert last.result() == undisturbed
        assert fleet.ended() == 0


def test_the_second_signal_ends_all_at_once(simulated: Path) -> None:
    with started(simulated) as fleet, ThreadPoolExecutor(1) as pool:
        long = pool.submit(http_calls.post, fleet.url, "/v1/completions", body(0, 2000))
        real_node.until(lambda: any(node["in_flight"] for node in fleet.nodes().values()), "the request")
        fleet.process.send_signal(signal.SIGINT)
        fleet.wait_for("stopping: ")
        fleet.process.send_signal(signal.SIGINT)
        assert fleet.ended() == 0
        assert long.exception() is not None


def test_a_killed_supervisor_takes_all_along(simulated: Path, tmp_path: Path) -> None:
    runtime = str(tmp_path / "runtime")
    with started(simulated, XDG_RUNTIME_DIR=runtime) as fleet:
        fleet.process.kill()
        fleet.gone()
    done = subprocess.run(
        [*DRIFT, "top"],
        capture_output=True,
        text=True,
        env={**os.environ, "XDG_RUNTIME_DIR": runtime},
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "drift: no `drift up` of yours runs on this machine; give the address to look at with --url\n"
    )


def test_keys_are_asked_for_at_the_router_and_open_no_node(tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    spec = {"engine": SIM, "replicas": 2, "auth": {"apiKeysSecretRef": {"name": "keys"}}}
    file.write_text(yaml.safe_dump(documents.minimal(**spec)))
    with started(file, DRIFT_API_KEYS="secret") as fleet:
        asked = {"model": "demo", "prompt": "hello", "max_tokens": 4}
        key = {"authorization": "Bearer secret"}
        assert http_calls.post(fleet.url, "/v1/completions", asked, key).status == 200
        assert http_calls.post(fleet.url, "/v1/completions", asked).status == 401
        for node in fleet.nodes().values():
            assert http_calls.post(node["url"], "/v1/completions", asked, key).status == 401
        lines = " ".join(word for child in fleet.children for word in child.cmdline())
        assert "secret" not in lines


def test_one_node_is_seen_without_a_router(tmp_path: Path) -> None:
    file = tmp_path / "one.yaml"
    file.write_text(yaml.safe_dump(documents.minimal(engine=SIM)))
    with started(file, XDG_RUNTIME_DIR=str(tmp_path)) as fleet:
        assert len(fleet.children) == 2, "an api and a core process"
        assert re.search(r"^demo-0 +ready +auto ", fleet.top("--once"), re.MULTILINE)
        assert json.loads(fleet.top("--json"))["node"]["node"] == "demo-0"
        assert json.loads(fleet.drift("status", "--local", "demo", "--json"))["kept"]
        assert "spec.autoscaling is not set" in fleet.drift("explain", "--local")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://127.0.0.1:{port}", "no answer: Connection refused"),
        ("127.0.0.1:80", "--url: 127.0.0.1:80 is not of the form http://HOST:PORT"),
        ("http://127.0.0.1:x", "is not of the form http://HOST:PORT"),
    ],
)
def test_top_says_why_there_is_nothing_to_see(url: str, words: str) -> None:
    asked = url.format(port=ports.free("127.0.0.1")[0])
    done = subprocess.run(
        [*DRIFT, "top", "--url", asked], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_console_is_where_the_welcome_says_and_asks_who_has_its_token(
    simulated: Path, tmp_path: Path
) -> None:
    with started(simulated, XDG_RUNTIME_DIR=str(tmp_path)) as fleet:
        found = re.search(r"(http://\S+)/console/#token=(\S+)", fleet.said)
        assert found is not None
        url, token = found.groups()

        def all_ready() -> bool:
            told = http_calls.get(url, "/console/v1/snapshot?service=local/three-nodes").json["service"]
            return told is not None and [node["state"] for node in told["nodes"]] == ["ready"] * 3

        real_node.until(all_ready, "three nodes on the console")
        question = {
            "namespace": "local",
            "name": "three-nodes",
            "messages": [{"role": "user", "content": "?"}],
        }
        assert http_calls.post(url, "/console/v1/chat", question).status == 401
        answer = http_calls.post(url, "/console/v1/chat", question, {"authorization": f"Bearer {token}"})
        assert answer.status == 200
        assert answer.raw.endswith(b"data: [DONE]\n\n")
