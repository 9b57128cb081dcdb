"""Nodes of ours behind routers by others: SGLang's, vLLM's and the Shepherd gateway, as pip installs them."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

import foreign_routers
import http_calls
import real_node

# The first one may have to install what it starts.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

NODES = 2
QUESTION: Any = [{"role": "user", "content": "What is Drift?"}]


@pytest.fixture(scope="module")
def nodes(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[real_node.RealNode]]:
    """Behind all of the routers: a start costs seconds."""
    folder = tmp_path_factory.mktemp("nodes")
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(
                real_node.started(folder / f"node{index}", model, device="sim", slo={"tbt_ms": 20.0})
            )
            for index in range(NODES)
        ]


@pytest.fixture(scope="module")
def routers(
    nodes: list[real_node.RealNode], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """URLs by name."""
    folder = tmp_path_factory.mktemp("routers")
    with contextlib.ExitStack() as stack:
        yield {
            name: stack.enter_context(foreign_routers.started(name, folder, nodes))
            for name in foreign_routers.COMMANDS
        }


@pytest.fixture(params=foreign_routers.COMMANDS)
def client(request: pytest.FixtureRequest, routers: dict[str, str]) -> Iterator[openai.OpenAI]:
    url = routers[request.param]
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=30) as found:
        yield found


def ask(client: openai.OpenAI, model: str = "small", **fields: Any) -> Any:
    forever = {"ignore_eos": True}
    return client.chat.completions.create(
        model=model, messages=QUESTION, temperature=0, max_tokens=24, extra_body=forever, **fields
    )


def test_answers_and_streams_are_the_nodes_own(
    nodes: list[real_node.RealNode], client: openai.OpenAI
) -> None:
    body = {
        "model": "small",
        "messages": QUESTION,
        "temperature": 0,
        "max_tokens": 24,
        "ignore_eos": True,
    }
    direct = http_calls.post(nodes[0].url, "/v1/chat/completions", body).json
    whole = ask(client)
    parts = list(ask(client, stream=True, stream_options={"include_usage": True}))
    text = direct["choices"][0]["message"]["content"]
    assert whole.choices[0].message.content == text
    assert "".join(part.choices[0].delta.content or "" for part in parts if part.choices) == text
    assert whole.usage.completion_tokens == parts[-1].usage.completion_tokens == 24


def test_the_model_is_listed(client: openai.OpenAI) -> None:
    assert [found.id for found in client.models.list()] == ["small"]


def test_both_nodes_serve(nodes: list[real_node.RealNode], client: openai.OpenAI) -> None:
    def answered() -> list[float]:
        return [node.count("vllm:request_success_total") for node in nodes]

    before = answered()
    for _ in range(6):
        ask(client)
    grown = [after - earlier for after, earlier in zip(answered(), before, strict=True)]
    assert sum(grown) == 6
    assert min(grown) >= 1


def test_errors_come_through(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError):
        ask(client, top_p=2.0)


def test_the_other_node_serves_when_one_has_died(
    nodes: list[real_node.RealNode], client: openai.OpenAI
) -> None:
    """Last: it costs a node."""
    body = nodes[1].completion(max_tokens=24)
    expected: str = http_calls.post(nodes[1].url, "/v1/completions", body).json["choices"][0]["text"]
    if nodes[0].process.poll() is None:
        nodes[0].signal(signal.SIGKILL)
        nodes[0].process.wait(real_node.DEADLINE_S)

    def complete() -> str:
        fields: Any = {"model": body["model"], "prompt": body["prompt"], "max_tokens": 24, "temperature": 0}
        answer = client.completions.create(**fields, extra_body={"ignore_eos": True})
        return str(answer.choices[0].text)

    def again() -> bool:
        with contextlib.suppress(openai.APIError):
            return complete() == expected
        return False

    real_node.until(again, "the other node's answer")
    assert [complete() for _ in range(6)] == [expected] * 6
