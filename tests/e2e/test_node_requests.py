"""Requests to a real node: what each bad one is answered, and that nobody else's tokens are disturbed by anything."""

from __future__ import annotations

import http.client
import json
import threading
import urllib.parse
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import psutil
import pytest

import http_calls
import kv_index
import real_node
from drift_engine import wire

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
LONGEST = real_node.CONTEXT_TOKENS
HELLO = [{"role": "user", "content": "hi"}]
BODY_LIMIT = 8 * 2**20

BAD: dict[str, tuple[str, Any, str | None, str]] = {
    # path, body (bytes as they are, fields on top of a good request else), param, words of the message
    "malformed": (COMPLETIONS, b'{"model": "small", "prompt": "x"', None, "not valid JSON"),
    "not utf-8": (COMPLETIONS, b'{"model": "\xff"}', None, "must be UTF-8"),
    "nested deeply": (COMPLETIONS, b"[" * 100_000, None, "levels deep"),
    "no object": (CHAT, b"[1]", None, "must be a JSON object"),
    "no body": (CHAT, b"", None, "no body"),
    "null": (CHAT, b"null", None, "must be a JSON object"),
    "text for a number": (COMPLETIONS, {"max_tokens": "5"}, "max_tokens", "must be an integer, not '5'"),
    "fraction": (COMPLETIONS, {"max_tokens": 1.5}, "max_tokens", "must be an integer"),
    "number for a text": (COMPLETIONS, {"prompt": 7}, "prompt", "must be a string"),
    "truth for a number": (COMPLETIONS, {"temperature": True}, "temperature", "must be a number, not True"),
    "not a number": (
        COMPLETIONS,
        b'{"model": "small", "prompt": "x", "temperature": NaN}',
        "temperature",
        "finite",
    ),
    "unknown field": (COMPLETIONS, {"max_token": 5}, "max_token", "unknown field"),
    "unknown field inside": (
        CHAT,
        {"messages": [{"role": "user", "content": "hi", "contents": "x"}]},
        "messages[0].contents",
        "unknown field",
    ),
    "unknown role": (CHAT, {"messages": [{"role": "wizard", "content": "hi"}]}, "messages[0].role", "wizard"),
    "no messages": (CHAT, {"messages": []}, "messages", "at least 1"),
    "message without content": (CHAT, {"messages": [{"role": "user"}]}, "messages[0].content", "is required"),
    "empty prompt": (COMPLETIONS, {"prompt": ""}, "prompt", "no tokens"),
    "empty tokens": (COMPLETIONS, {"prompt": []}, "prompt", "not empty"),
    "foreign token": (COMPLETIONS, {"prompt": [1, 10**6]}, "prompt", "1000000 is not a token"),
    "half a surrogate": (COMPLETIONS, b'{"model": "small", "prompt": "\\ud800"}', "prompt", "surrogate"),
    "one token too long": (
        COMPLETIONS,
        {"prompt": [5] * LONGEST, "max_tokens": None},
        "prompt",
        f"maximum context length is {LONGEST} tokens, but the prompt has {LONGEST}",
    ),
    "answer too long": (
        COMPLETIONS,
        {"prompt": [5] * (LONGEST - 1), "max_tokens": 2},
        "prompt",
        f"is {LONGEST} tokens, but the request needs {LONGEST + 1}",
    ),
    "no tokens asked": (COMPLETIONS, {"max_tokens": 0}, "max_tokens", "0 is below the minimum 1"),
    "no tokens asked in a chat": (
        CHAT,
        {"messages": HELLO, "max_completion_tokens": 0},
        "max_completion_tokens",
        "0 is below the minimum 1",
    ),
    "temperature": (COMPLETIONS, {"temperature": 2.1}, "temperature", "2.1 is above the maximum 2"),
    "choices": (COMPLETIONS, {"n": 17}, "n", "17 is above the maximum 16"),
    "schema": (
        CHAT,
        {
            "messages": HELLO,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "x", "schema": {"type": "wizard"}},
            },
        },
        "response_format",
        "can't be used",
    ),
    "tool choice without tools": (
        CHAT,
        {"messages": HELLO, "tool_choice": "required"},
        "tool_choice",
        "tools",
    ),
}


def body_of(node: real_node.RealNode, path: str, body: Any) -> Any:
    if isinstance(body, bytes):
        return body
    if path == CHAT:
        return {"model": node.model, **body}
    return node.completion(**body)


@pytest.mark.parametrize("case", BAD)
def test_bad_request_is_400_and_says_why(node: real_node.RealNode, case: str) -> None:
    path, body, param, words = BAD[case]
    reply = node.post(path, body_of(node, path, body))
    assert (reply.status, reply.error["type"]) == (400, "invalid_request_error")
    assert reply.error["param"] == param
    assert words in reply.error["message"]
    assert len(reply.error["message"]) < 300
    assert "\n" not in reply.error["message"]
    assert reply.headers["x-request-id"]


def test_other_refusals(node: real_node.RealNode) -> None:
    other = node.post(COMPLETIONS, node.completion(model="gpt-4o"))
    assert (other.status, other.error["code"], other.error["param"]) == (404, "model_not_found", "model")
    assert "'small'" in other.error["message"]
    assert (node.get("/v1/nothing").status, node.get("/v1/nothing").error["param"]) == (404, None)
    assert node.get(COMPLETIONS).status == 405
    wrong_type = node.post(
        COMPLETIONS, json.dumps(node.completion()).encode(), **{"content-type": "text/xml"}
    )
    assert wrong_type.status == 400
    assert "application/json" in wrong_type.error["message"]


def test_longest_prompt_is_served(node: real_node.RealNode) -> None:
    reply = node.post(COMPLETIONS, node.completion([5] * (LONGEST - 1), max_tokens=1))
    assert reply.status == 200
    assert reply.json["usage"]["total_tokens"] == LONGEST


@pytest.mark.parametrize("chunked", [False, True])
def test_body_of_50_mb_is_refused_unread(node: real_node.RealNode, chunked: bool) -> None:
    def body() -> Iterator[bytes]:
        block = b" " * 2**20
        yield from [block] * 50

    before_bytes = psutil.Process(node.process.pid).memory_info().rss
    parts = urllib.parse.urlsplit(node.url)
    connection = http.client.HTTPConnection(
        parts.hostname or "", parts.port, timeout=real_node.DEADLINE_S, blocksize=2**20
    )
    try:
        headers = {"content-type": "application/json"}
        if not chunked:
            headers["content-length"] = str(50 * 2**20)
        connection.request("POST", COMPLETIONS, body(), headers, encode_chunked=chunked)
        response = connection.getresponse()
        reply = http_calls.Reply(response.status, {}, response.read())
    finally:
        connection.close()
    assert (reply.status, reply.error["code"]) == (413, "too_large")
    assert f"{BODY_LIMIT} bytes" in reply.error["message"]
    grown_bytes = psutil.Process(node.process.pid).memory_info().rss - before_bytes
    assert grown_bytes < 4 * BODY_LIMIT


def test_bad_requests_disturb_nobody(node: real_node.RealNode) -> None:
    """All of the table again and again, beside a request that streams."""
    alone = node.tokens(max_tokens=200)
    ended = threading.Event()

    def annoy() -> int:
        sent = 0
        while not ended.is_set():
            for path, body, _, _ in BAD.values():
                assert node.post(path, body_of(node, path, body)).status == 400
                sent += 1
        return sent

    with ThreadPoolExecutor(1) as pool:
        nuisance = pool.submit(annoy)
        try:
            beside = node.tokens(max_tokens=200)
        finally:
            ended.set()
        assert nuisance.result(real_node.DEADLINE_S) >= len(BAD)
    assert beside == alone


def test_tokens_side_by_side_are_those_of_lone_runs(node: real_node.RealNode) -> None:
    """Of different lengths and samplings, more at once than run at once, on a cold cache and on a warm one."""
    asked: list[dict[str, Any]] = [
        {
            "prompt": f"{index} " + "the quick brown fox " * (7 * index % 23),
            "max_tokens": 8 + 5 * (index % 5),
            "temperature": (index % 3) / 2,
            "seed": index,
            "top_p": 1.0 if index % 2 else 0.9,
            "frequency_penalty": 0.5 if index % 5 == 0 else 0.0,
        }
        for index in range(40)
    ]
    alone = [node.tokens(**fields) for fields in asked]
    for warm in (True, False):
        if not warm:
            assert node.control("POST", "/control/v1/flush").status == 200
        with ThreadPoolExecutor(len(asked)) as pool:
            assert list(pool.map(lambda fields: node.tokens(**fields), asked)) == alone
    assert len({tuple(tokens) for tokens in alone}) > 30


def test_second_turn_reuses_the_first(node: real_node.RealNode) -> None:
    messages = [{"role": "user", "content": "What does a node serve? " * 8}]
    first = node.post(
        CHAT, {"model": node.model, "messages": messages, "max_tokens": 24, "temperature": 0}
    ).json
    messages.append(first["choices"][0]["message"])
    messages.append({"role": "user", "content": "Under which promise?"})
    second = node.post(CHAT, {"model": node.model, "messages": messages, "max_tokens": 8}).json
    prompt = first["usage"]["prompt_tokens"]
    cached = second["usage"]["prompt_tokens_details"]["cached_tokens"]
    # the answer's text may be cut into other tokens than the model drew, so only the prompt is certain
    assert prompt - real_node.PAGE_TOKENS < cached < second["usage"]["prompt_tokens"]
    assert cached % real_node.PAGE_TOKENS == 0


def test_events_rebuild_the_cached_set(node: real_node.RealNode) -> None:
    """What a router that follows from the start knows is what one that joins late is told."""
    prompt = [7, 8, 9, 10] * 20
    node.tokens(prompt, max_tokens=4)
    node.settles()
    index = kv_index.KvIndex()
    last = node.report()["kv_events_sequence"]
    parts = urllib.parse.urlsplit(node.control_url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=real_node.DEADLINE_S)
    try:
        connection.request("GET", "/kv/v1/events?after=0", headers={"x-drift-token": real_node.TOKEN})
        sequence = 0
        response = connection.getresponse()
        while sequence < last:
            line = json.loads(response.readline())
            assert line["sequence"] == sequence + 1
            sequence = line.pop("sequence")
            index.apply([msgspec.convert(line, wire.Stored | wire.Removed | wire.Cleared)])
        response.close()
    finally:
        connection.close()
    state = node.control("GET", "/kv/v1/state").json
    assert state["sequence"] == last
    assert dict(state["blocks"]) == index.parents
    assert set(kv_index.names(prompt, "", real_node.PAGE_TOKENS)) <= set(index.parents)


def test_control_port_needs_its_token(node: real_node.RealNode) -> None:
    for method, path in [
        ("GET", "/control/v1/report"),
        ("POST", "/control/v1/drain"),
        ("POST", "/control/v1/flush"),
        ("GET", "/kv/v1/state"),
        ("GET", "/kv/v1/events"),
    ]:
        for token in ("", "wrong", real_node.TOKEN[:-1], "🔑".encode().decode("latin-1")):
            reply = node.control(method, path, token=token)
            assert (reply.status, reply.error["code"]) == (401, "invalid_control_token")
    assert http_calls.get(node.url, "/control/v1/report", {"x-drift-token": real_node.TOKEN}).status == 404
    assert node.get("/readyz").status == 200
