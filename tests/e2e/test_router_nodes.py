"""A router process before real nodes with simulated GPUs: what clients get, and that it knows what the nodes hold."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

import real_node
import router_process
from drift_router.options import Promise
from http_calls import get, post
from router_process import RouterProcess

NODES = 3
CHAT = "/v1/chat/completions"
ROOMY = Promise(ttft_ms=20_000, tbt_ms=2_000)
"""That no stall of this machine breaks: a router that sees a promise broken leaves cached pages where they are."""
HEADERS = ["-H", "content-type: application/json", "-H", "expect: 100-continue"]
TRUSTED = {"x-drift-token": real_node.TOKEN}


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Iterator[list[real_node.RealNode]]:
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(
                real_node.started(
                    tmp_path_factory.mktemp(f"node{index}"),
                    model,
                    device="sim",
                    served_model_name="tiny",
                    slo={"tbt_ms": 20.0},
                )
            )
            for index in range(NODES)
        ]


@pytest.fixture(scope="module")
def router(nodes: list[real_node.RealNode]) -> Iterator[RouterProcess]:
    with router_process.router(
        *[f"{node.url},{node.control_url}" for node in nodes], token=real_node.TOKEN, promise=ROOMY
    ) as process:
        real_node.until(lambda: len(eligible(process)) == NODES, "the nodes behind the router")
        yield process
        assert process.stop() == 0


def statuses(process: RouterProcess) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = get(process.admin_url, "/control/v1/nodes", TRUSTED).json["nodes"]
    return found


def eligible(process: RouterProcess) -> list[dict[str, Any]]:
    return [one for one in statuses(process) if one["eligible"] and one["index"] == "exact"]


def body(text: str, **fields: Any) -> dict[str, Any]:
    return {"model": "tiny", "messages": [{"role": "user", "content": text}], "max_tokens": 8, **fields}


def test_the_openai_client_works_unchanged(router: RouterProcess) -> None:
    client = openai.OpenAI(base_url=f"{router.url}/v1", api_key="none", max_retries=0)
    assert [found.id for found in client.models.list()] == ["tiny"]
    question: Any = [{"role": "user", "content": "Hello?"}]
    whole = client.chat.completions.create(model="tiny", messages=question, temperature=0, max_tokens=12)
    parts = client.chat.completions.create(
        model="tiny", messages=question, temperature=0, max_tokens=12, stream=True
    )
    text = "".join(part.choices[0].delta.content or "" for part in parts if part.choices)
    assert text == whole.choices[0].message.content
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="another", messages=question)
    with pytest.raises(openai.BadRequestError, match="max_tokens"):
        client.chat.completions.create(model="tiny", messages=question, max_tokens=-1)


def test_curl_works(router: RouterProcess) -> None:
    sent = json.dumps(body("curl " * 220))  # long enough that curl asks for leave to send
    done = subprocess.run(
        ["curl", "-sS", "-i", f"{router.url}{CHAT}", *HEADERS, "-d", "@-"],
        input=sent.encode(),
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert b"HTTP/1.1 200 OK" in done.stdout
    assert b'"object":"chat.completion"' in done.stdout


def test_wrk_works(router: RouterProcess) -> None:
    if shutil.which("wrk") is None:
        pytest.skip("wrk is not installed")
    done = subprocess.run(
        ["wrk", "-t1", "-c16", "-d2", f"{router.url}/v1/models"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "requests in" in done.stdout
    assert "Socket errors" not in done.stdout
    assert "Non-2xx" not in done.stdout


def test_turns_of_a_session_meet_their_cache(router: RouterProcess) -> None:
    def ask(text: str) -> tuple[str, int, int]:
        reply = post(router.url, CHAT, body(text), {**TRUSTED, "x-drift-explain": "1"})
        assert reply.status == 200, reply.raw
        decision = json.loads(reply.headers["x-drift-decision"])
        cached = reply.json["usage"]["prompt_tokens_details"]["cached_tokens"]
        return decision["node"], decision["matched_tokens"], cached

    texts = {who: f"I am user {who}. " + f"{who} likes the number {who}. " * 30 for who in range(6)}
    homes: dict[int, set[str]] = {who: set() for who in texts}
    for turn in range(4):
        for who in texts:
            node, matched, cached = ask(texts[who])
            homes[who].add(node)
            if turn:
                assert matched > 100
                assert cached > 100
            texts[who] += f"And turn {turn} was good. "
        time.sleep(0.05)
    assert all(len(home) == 1 for home in homes.values())
    assert len({node for home in homes.values() for node in home}) > 1


def test_the_index_follows_what_nodes_forget(router: RouterProcess, nodes: list[real_node.RealNode]) -> None:
    text = "to be forgotten " * 60
    headers = {**TRUSTED, "x-drift-explain": "1"}

    def matched() -> int:
        reply = post(router.url, CHAT, body(text, max_tokens=1), headers)
        return int(json.loads(reply.headers["x-drift-decision"])["matched_tokens"])

    matched()
    assert matched() > 100
    time.sleep(11)  # the dispatches' own promise ends
    for node in nodes:
        assert post(node.control_url, "/control/v1/flush", {}, TRUSTED).status == 200
    time.sleep(0.5)  # the events come
    assert matched() == 0


def test_a_killed_node_loses_no_request(tmp_path: Path, model: Path, nodes: list[real_node.RealNode]) -> None:
    with contextlib.ExitStack() as stack:
        victim = stack.enter_context(
            real_node.started(tmp_path, model, device="sim", served_model_name="tiny", slo={"tbt_ms": 20.0})
        )
        process = stack.enter_context(
            router_process.router(
                *[f"{node.url},{node.control_url}" for node in [victim, nodes[0]]],
                token=real_node.TOKEN,
                policy="round-robin",
            )
        )
        real_node.until(lambda: len(eligible(process)) == 2, "both nodes")
        client = openai.OpenAI(base_url=f"{process.url}/v1", api_key="none", max_retries=0, timeout=60)

        def say(number: int) -> str:
            question: Any = [{"role": "user", "content": f"Count from {number}."}]
            parts = client.chat.completions.create(
                model="tiny",
                messages=question,
                temperature=0,
                max_tokens=600,
                stream=True,
                extra_body={"ignore_eos": True},
            )
            return "".join(part.choices[0].delta.content or "" for part in parts if part.choices)

        undisturbed = [say(number) for number in range(2)]
        said: dict[int, str] = {}

        def run(number: int) -> None:
            said[number] = say(number % 2)

        threads = [threading.Thread(target=run, args=(number,)) for number in range(12)]
        for thread in threads:
            thread.start()
        real_node.until(lambda: statuses(process)[0]["in_flight"] >= 4, "requests on the node")
        time.sleep(0.3)
        victim.kill()
        for thread in threads:
            thread.join(60)
        assert said == {number: undisturbed[number % 2] for number in range(12)}
        metrics = get(process.admin_url, "/metrics").raw.decode()
        resumed = [line for line in metrics.splitlines() if 'outcome="resumed"' in line]
        assert float(resumed[0].split()[-1]) >= 1
