"""A stream that breaks on one node goes on at another: text, end and usage are those of the uninterrupted one."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import signal
from collections.abc import Iterator
from typing import Any

import pytest

import drift_tiny
import real_node
import resumable_streams
from resumable_streams import Part, Router

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS: Any = [{"type": "function", "function": {"name": "weather", "parameters": WEATHER}}]
SHARED: Any = {"model": "tiny", "max_tokens": 60, "stream_options": {"include_usage": True}}
DRAWN: Any = {**SHARED, "temperature": 0.8, "presence_penalty": 0.4}


def message(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[real_node.RealNode]]:
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(
                real_node.started(
                    tmp_path_factory.mktemp("node"),
                    drift_tiny.checkpoint_path(),
                    served_model_name="tiny",
                    kv_bytes=16 * 2**20,
                )
            )
            for _ in range(2)
        ]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, {**DRAWN, **message("What is Drift?"), "seed": 11}),
        (CHAT, {**DRAWN, **message("What does a node do?"), "stop": ["e of", "ing"], "top_p": 0.9}),
        (
            CHAT,
            {**DRAWN, **message("How is the weather in Rome?"), "tools": TOOLS, "tool_choice": "required"},
        ),
        (COMPLETIONS, {**DRAWN, "prompt": "Drift serves", "ignore_eos": True, "frequency_penalty": 0.5}),
        (
            COMPLETIONS,
            {**SHARED, "temperature": 0, "prompt": "Drift serves", "logprobs": 2, "min_tokens": 30},
        ),
    ],
    ids=["seeded", "stop strings", "tool call", "penalties", "greedy"],
)
def test_a_cut_anywhere_is_not_seen(nodes: list[real_node.RealNode], path: str, body: dict[str, Any]) -> None:
    asking = Router(real_node.TOKEN, path, body)
    whole, seed = asking.first(nodes[0].url)
    expected = _equal_however_cached(resumable_streams.said(whole))
    shown = next(index for index, part in enumerate(whole) if part.events)
    cuts = {shown + 1, shown + 2, len(whole) // 2, len(whole) - 1}
    for cut in sorted(cut for cut in cuts if shown < cut < len(whole)):
        rest = asking.rest(nodes[1].url, whole[:cut], seed)
        assert _equal_however_cached(resumable_streams.said(whole[:cut] + rest)) == expected
    for node in nodes:
        node.settles()


def test_a_killed_nodes_stream_is_ended_by_the_other(nodes: list[real_node.RealNode]) -> None:
    body = {**DRAWN, "max_tokens": 1500, "prompt": "Drift", "ignore_eos": True}
    asking = Router(real_node.TOKEN, COMPLETIONS, body)
    killed = nodes[0]
    relayed, seed = _until_killed(killed, asking)
    assert not relayed[-1].done
    rest = asking.rest(nodes[1].url, relayed, seed)
    again = asking.ask(nodes[1].url, seed=seed)
    expected = resumable_streams.said(resumable_streams.read(again.raw))
    found = resumable_streams.said(relayed + rest)
    for name in ("text", "finish", "done", "token_ids"):
        assert found[name] == expected[name]
    assert found["usage"][0]["completion_tokens"] == 1500


def _until_killed(node: real_node.RealNode, asking: Router) -> tuple[list[Part], int]:
    """What a router has of an answer whose node is killed in the middle of it."""
    connection = http.client.HTTPConnection(node.url.removeprefix("http://"), timeout=real_node.DEADLINE_S)
    headers = {
        "content-type": "application/json",
        "x-drift-token": asking.token,
        "x-drift-resumable": "1",
    }
    with contextlib.closing(connection):
        connection.request("POST", asking.path, json.dumps({**asking.body, "stream": True}), headers)
        response = connection.getresponse()
        raw = response.read(2000)
        node.signal(signal.SIGKILL)
        with pytest.raises((http.client.IncompleteRead, ConnectionResetError)) as raised:
            response.read()
        if isinstance(raised.value, http.client.IncompleteRead):
            raw += raised.value.partial
    whole = max(comment.end() for comment in re.finditer(rb": tokens [0-9 ]+\n\n", raw))
    return resumable_streams.read(raw[:whole]), int(response.headers["x-drift-seed"])


def _equal_however_cached(found: dict[str, Any]) -> dict[str, Any]:
    for usage in found["usage"]:
        assert usage["prompt_tokens_details"].pop("cached_tokens") <= usage["prompt_tokens"]
    return found
