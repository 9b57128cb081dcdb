"""Bad input: each kind has one defined answer in OpenAI's shape, and none disturbs the node."""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Iterator
from typing import Any

import openai
import pytest

import api_node
import fake_core
import http_calls
from drift_engine import wire

HELLO: Any = [{"role": "user", "content": "hi"}]
CHAT: Any = {"model": "small", "messages": HELLO}
COMPLETION: Any = {"model": "small", "prompt": "hi"}
TOOL: Any = {"type": "function", "function": {"name": "f"}}
CALLS: Any = {
    "role": "assistant",
    "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}] * 129,
}
CHAT_PATH = "/v1/chat/completions"
PATH = "/v1/completions"
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def node() -> Iterator[api_node.ApiNode]:
    with api_node.node() as running:
        yield running
        # nothing that was refused has left anything behind
        assert running.call(lambda: running.context.admission.idle(10))
        assert running.context.link.open_requests == 0


@pytest.fixture(autouse=True)
def default_answer(node: api_node.ApiNode) -> None:
    node.reply(None)


@pytest.mark.parametrize(
    ("path", "body", "param", "words"),
    [
        (CHAT_PATH, b'{"model": "small", ', None, "not valid JSON"),
        (CHAT_PATH, b"\xff\xfe{}", None, "body"),
        (CHAT_PATH, b"[" * 100_000, None, "body"),
        (CHAT_PATH, b"", None, "no body"),
        (CHAT_PATH, b"[]", None, "must be a JSON object"),
        (CHAT_PATH, b'"text"', None, "must be a JSON object"),
        (CHAT_PATH, {"messages": HELLO}, "model", "is required"),
        (CHAT_PATH, {"model": "small"}, "messages", "is required"),
        (CHAT_PATH, {**CHAT, "messages": []}, "messages", "at least 1 items, not 0"),
        (CHAT_PATH, {**CHAT, "messages": "hi"}, "messages", "must be an array, not 'hi'"),
        (CHAT_PATH, {**CHAT, "messages": [5]}, "messages[0]", "must be an object, not 5"),
        (CHAT_PATH, {**CHAT, "messages": [{"role": "king"}]}, "messages[0].role", "must be 'system'"),
        (CHAT_PATH, {**CHAT, "colour": 1}, "colour", "unknown field"),
        (CHAT_PATH, {**CHAT, "messages": [{**HELLO[0], "mood": 1}]}, "messages[0].mood", "unknown field"),
        (
            CHAT_PATH,
            {**CHAT, "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages[0].content",
            "'image_url'",
        ),
        (CHAT_PATH, {**CHAT, "max_tokens": 0}, "max_tokens", "0 is below the minimum 1"),
        (
            CHAT_PATH,
            {**CHAT, "max_completion_tokens": 0},
            "max_completion_tokens",
            "0 is below the minimum 1",
        ),
        (CHAT_PATH, {**CHAT, "max_tokens": "5"}, "max_tokens", "must be an integer, not '5'"),
        (CHAT_PATH, {**CHAT, "temperature": 2.5}, "temperature", "2.5 is above the maximum 2"),
        (CHAT_PATH, {**CHAT, "temperature": True}, "temperature", "must be a number, not True"),
        (
            CHAT_PATH,
            b'{"model": "small", "messages": [], "temperature": NaN}',
            "temperature",
            "finite number",
        ),
        (CHAT_PATH, {**CHAT, "top_p": 0}, "top_p", "0 must be above 0"),
        (CHAT_PATH, {**CHAT, "n": 17}, "n", "17 is above the maximum 16"),
        (
            CHAT_PATH,
            {**CHAT, "top_logprobs": 21, "logprobs": True},
            "top_logprobs",
            "21 is above the maximum 20",
        ),
        (CHAT_PATH, {**CHAT, "seed": 2**63}, "seed", "is above the maximum"),
        (CHAT_PATH, {**CHAT, "top_k": 2**31}, "top_k", "must be below"),
        (CHAT_PATH, {**CHAT, "messages": HELLO * 4097}, "messages", "must have at most 4096 items"),
        (CHAT_PATH, {**CHAT, "messages": [CALLS]}, "messages[0].tool_calls", "must have at most 128 items"),
        (CHAT_PATH, {**CHAT, "tools": [TOOL] * 129}, "tools", "must have at most 128 items"),
        (CHAT_PATH, {**CHAT, "stop": ["x" * 1025]}, "stop", "longer than the limit of 1024 characters"),
        (CHAT_PATH, {**CHAT, "stop_token_ids": [1] * 65}, "stop_token_ids", "must have at most 64 items"),
        (
            CHAT_PATH,
            {**CHAT, "logit_bias": {str(i): 1 for i in range(1025)}},
            "logit_bias",
            "must have at most 1024 items",
        ),
        (CHAT_PATH, {**CHAT, "stop": [""]}, "stop", "none empty"),
        (CHAT_PATH, {**CHAT, "stop": ["x"] * 17}, "stop", "17 strings, more than the limit of 16"),
        (CHAT_PATH, {**CHAT, "logit_bias": {"1": 101}}, "logit_bias.1", "101 is above the maximum 100"),
        (CHAT_PATH, {**CHAT, "logit_bias": {"x": 1}}, "logit_bias", "must be token ids"),
        (CHAT_PATH, {**CHAT, "logit_bias": {"99999": 1}}, "logit_bias", "99999 is not a token"),
        (CHAT_PATH, {**CHAT, "stop_token_ids": [99999]}, "stop_token_ids", "99999 is not a token"),
        (
            CHAT_PATH,
            {**CHAT, "min_tokens": 9, "max_tokens": 3},
            "min_tokens",
            "9 is above max_tokens, which is 3",
        ),
        (
            CHAT_PATH,
            b'{"model":"small","messages":[{"role":"user","content":"\\ud800"}]}',
            "messages[0].content",
            "",
        ),
        (PATH, {"model": "small"}, "prompt", "is required"),
        (PATH, {**COMPLETION, "prompt": ""}, "prompt", "has no tokens"),
        (PATH, {**COMPLETION, "prompt": []}, "prompt", "not empty"),
        (PATH, {**COMPLETION, "prompt": [1, "a"]}, "prompt", "must be a string"),
        (PATH, {**COMPLETION, "prompt": [99999]}, "prompt", "99999 is not a token of this model"),
        (PATH, {**COMPLETION, "prompt": [2**70], "echo": True}, "prompt", "is not a token of this model"),
        (PATH, {**COMPLETION, "logprobs": 21}, "logprobs", "21 is above the maximum 20"),
        (PATH, {**COMPLETION, "n": 17}, "n", "17 is above the maximum 16"),
        (PATH, {**COMPLETION, "prompt": ["a"] * 129}, "prompt", "129 prompts, more than the limit of 128"),
        (PATH, {**COMPLETION, "suffix": "x"}, "suffix", "is not supported"),
        (PATH, {**COMPLETION, "best_of": 3}, "best_of", "3 must equal n, which is 1"),
        (PATH, {**COMPLETION, "echo": True, "logprobs": 1}, "echo", "can't be combined with logprobs"),
        (PATH, {**COMPLETION, "max_tokens": 0}, "max_tokens", "0 is below the minimum 1"),
        ("/tokenize", {"model": "small"}, "prompt", "exactly one of prompt and messages"),
        ("/tokenize", {"messages": HELLO * 4097}, "messages", "must have at most 4096 items"),
        ("/tokenize", {"messages": HELLO, "tools": [TOOL] * 129}, "tools", "must have at most 128 items"),
        ("/detokenize", {"tokens": [99999]}, "tokens", "99999 is not a token"),
    ],
)
def test_bad_requests(node: api_node.ApiNode, path: str, body: Any, param: str | None, words: str) -> None:
    reply = http_calls.post(node.url, path, body)
    assert reply.status == 400
    error = reply.error
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert words in error["message"]
    assert "\n" not in error["message"]
    assert len(error["message"]) < 400


def test_a_body_that_is_not_said_to_be_json(node: api_node.ApiNode) -> None:
    for headers in ({"content-type": "text/plain"}, {"content-type": "application/x-www-form-urlencoded"}):
        reply = http_calls.post(node.url, CHAT_PATH, json.dumps(CHAT).encode(), headers)
        assert reply.status == 400
        assert "Content-Type: application/json" in reply.error["message"]


def test_over_long_prompts_say_both_lengths(node: api_node.ApiNode) -> None:
    limit = fake_core.CONTEXT_TOKENS
    fits = http_calls.post(node.url, PATH, {"model": "small", "prompt": [5] * (limit - 1)})
    assert fits.json["usage"]["completion_tokens"] == 1
    reply = http_calls.post(node.url, PATH, {"model": "small", "prompt": [5] * limit})
    assert (reply.status, reply.error["code"]) == (400, "context_length_exceeded")
    assert f"maximum context length is {limit} tokens, but the prompt has {limit}" in reply.error["message"]
    reply = http_calls.post(node.url, PATH, {"model": "small", "prompt": [5] * 10, "max_tokens": limit - 9})
    assert (reply.status, reply.error["code"]) == (400, "context_length_exceeded")
    assert f"is {limit} tokens, but the request needs {limit + 1}: 10 of the prompt" in reply.error["message"]
    reply = http_calls.post(
        node.url, CHAT_PATH, {"model": "small", "messages": [{"role": "user", "content": "x" * MIB}]}
    )
    assert (reply.status, reply.error["code"]) == (400, "context_length_exceeded")


def test_unknown_models_and_routes(node: api_node.ApiNode) -> None:
    reply = http_calls.post(node.url, CHAT_PATH, {**CHAT, "model": "gpt-x"})
    assert (reply.status, reply.error["code"], reply.error["param"]) == (404, "model_not_found", "model")
    assert "'gpt-x'" in reply.error["message"]
    assert "'small'" in reply.error["message"]
    reply = http_calls.get(node.url, "/v1/nothing")
    assert (reply.status, reply.error["message"]) == (404, "no such route: GET /v1/nothing")
    assert http_calls.get(node.url, "/v1/models/other").status == 404
    reply = http_calls.get(node.url, CHAT_PATH)
    assert (reply.status, reply.headers["allow"]) == (405, "POST")
    assert "does not take GET" in reply.error["message"]


def raw(node: api_node.ApiNode, data: bytes) -> bytes:
    host, port = node.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
    return received


def test_bodies_over_the_limit(node: api_node.ApiNode) -> None:
    reply = http_calls.post(node.url, CHAT_PATH, b" " * (50 * MIB))
    assert (reply.status, reply.error["code"]) == (413, "too_large")
    assert str(8 * MIB) in reply.error["message"]


def test_bodies_over_the_limit_without_a_length(node: api_node.ApiNode) -> None:
    host, port = node.url.removeprefix("http://").split(":")
    piece = b"%x\r\n%b\r\n" % (MIB, b" " * MIB)
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(
            b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
            % CHAT_PATH.encode()
        )
        for _ in range(9):
            connection.sendall(piece)
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_what_is_not_http(node: api_node.ApiNode) -> None:
    assert raw(node, b"\x16\x03\x01 hello\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    huge = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999999999999\r\n\r\n"
    assert raw(node, huge).startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 413 "))


def test_the_core_gives_a_request_up(node: api_node.ApiNode) -> None:
    node.answer("the lazy dog", error_after=1)
    reply = http_calls.post(node.url, CHAT_PATH, CHAT)
    assert (reply.status, reply.error["type"]) == (500, "server_error")
    assert reply.error["message"] == "the page store is damaged"
    # a stream that has not begun can still say so in its status
    reply = http_calls.post(node.url, CHAT_PATH, {**CHAT, "stream": True})
    assert (reply.status, reply.error["message"]) == (500, "the page store is damaged")


def test_the_core_gives_a_stream_up(node: api_node.ApiNode) -> None:
    node.answer(" dog" * 900, error_after=800)  # so long that the stream has begun when it breaks
    with openai.OpenAI(base_url=f"{node.url}/v1", api_key="x", max_retries=0) as client:
        stream = client.chat.completions.create(model="small", messages=HELLO, stream=True)
        with pytest.raises(openai.APIError, match="the page store is damaged"):
            list(stream)
    reply = http_calls.post(node.url, CHAT_PATH, {**CHAT, "stream": True})
    assert reply.raw.endswith(b"data: [DONE]\n\n")


def test_while_loading_and_draining() -> None:
    with api_node.node() as node:
        node.call(lambda: node.context.health.drain())
        reply = http_calls.post(node.url, CHAT_PATH, CHAT)
        assert (reply.status, reply.headers["retry-after"]) == (503, "1")
        assert "draining" in reply.error["message"]
        assert http_calls.get(node.url, "/v1/models").status == 503
        assert http_calls.get(node.url, "/readyz").json == {"status": "draining"}
        assert http_calls.get(node.url, "/healthz").status == 200
    with api_node.node() as node:
        health = type(node.context.health)()
        health.loading("weights", 1, 4)
        node.call(lambda: setattr(node.context, "health", health))
        reply = http_calls.post(node.url, CHAT_PATH, CHAT)
        assert (reply.status, reply.headers["retry-after"]) == (503, "1")
        assert "stage: weights, 25 %" in reply.error["message"]
        ready = http_calls.get(node.url, "/readyz")
        assert (ready.status, ready.json) == (
            503,
            {"status": "loading", "stage": "weights", "done": 1, "total": 4},
        )


KEY, OTHER_KEY = "key-one", "key-two"


@pytest.fixture(scope="module")
def locked() -> Iterator[api_node.ApiNode]:
    digests = tuple(hashlib.sha256(key.encode()).hexdigest() for key in (KEY, OTHER_KEY))
    with api_node.node(api_key_sha256=digests) as running:
        yield running


def test_api_keys(locked: api_node.ApiNode) -> None:
    for headers in (
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": f"Basic {KEY}"},
        {"authorization": KEY},
    ):
        for reply in (
            http_calls.post(locked.url, CHAT_PATH, CHAT, headers),
            http_calls.get(locked.url, "/v1/models", headers),
            http_calls.post(locked.url, "/tokenize", {"prompt": "x"}, headers),
        ):
            assert (reply.status, reply.error["code"]) == (401, "invalid_api_key")
            assert "wrong" not in reply.error["message"].replace("missing or wrong", "")
    for path in ("/healthz", "/readyz", "/metrics", "/version"):
        assert http_calls.get(locked.url, path).status == 200
    with openai.OpenAI(base_url=f"{locked.url}/v1", api_key=KEY, max_retries=0) as client:
        assert client.chat.completions.create(model="small", messages=HELLO).choices


def test_keys_do_not_share_prefixes(locked: api_node.ApiNode) -> None:
    salts = []
    for key in (KEY, OTHER_KEY, KEY):
        http_calls.post(locked.url, CHAT_PATH, CHAT, {"authorization": f"Bearer {key}"})
        salts.append(locked.last.salt)
    assert salts[0] == salts[2] != salts[1]
    assert all(salts)
    assert KEY not in salts[0]


def test_only_a_trusted_router_sets_targets(locked: api_node.ApiNode) -> None:
    wishes = {
        "authorization": f"Bearer {KEY}",
        "x-drift-slo-ttft-ms": "250",
        "x-drift-slo-tbt-ms": "30.5",
        "x-drift-priority": "7",
        "x-drift-tenant": "team-a",
    }
    http_calls.post(locked.url, CHAT_PATH, CHAT, wishes)
    ignored = locked.last
    assert (ignored.slo, ignored.priority) == (wire.Slo(), 0)
    http_calls.post(locked.url, CHAT_PATH, CHAT, {**wishes, "x-drift-token": api_node.CONTROL_TOKEN + "x"})
    assert (locked.last.slo, locked.last.salt) == (wire.Slo(), ignored.salt)
    trusted = {**wishes, "x-drift-token": api_node.CONTROL_TOKEN}
    http_calls.post(locked.url, CHAT_PATH, CHAT, trusted)
    assert (locked.last.slo, locked.last.priority) == (wire.Slo(250, 30.5), 7)
    assert locked.last.salt != ignored.salt
    for name, value in (
        ("x-drift-slo-ttft-ms", "soon"),
        ("x-drift-slo-tbt-ms", "-1"),
        ("x-drift-priority", "high"),
    ):
        reply = http_calls.post(locked.url, CHAT_PATH, CHAT, {**trusted, name: value})
        assert (reply.status, reply.error["param"]) == (400, name)


def test_request_ids(node: api_node.ApiNode) -> None:
    reply = http_calls.post(node.url, CHAT_PATH, CHAT, {"x-request-id": "mine-1"})
    assert reply.headers["x-request-id"] == "mine-1"
    reply = http_calls.post(node.url, CHAT_PATH, {}, {"x-request-id": "with space"})
    assert reply.headers["x-request-id"] not in ("", "with space")
    # the same id twice at once is the client's affair: the core sees its own
    assert http_calls.post(node.url, CHAT_PATH, CHAT, {"x-request-id": "mine-1"}).status == 200


def test_small_endpoints(node: api_node.ApiNode) -> None:
    models = http_calls.get(node.url, "/v1/models").json
    assert [(card["id"], card["max_model_len"], card["mode"]) for card in models["data"]] == [
        ("small", fake_core.CONTEXT_TOKENS, "fused")
    ]
    assert http_calls.get(node.url, "/v1/models/small").json == models["data"][0]
    tokens = http_calls.post(node.url, "/tokenize", {"prompt": "the lazy 你", "return_token_strs": True}).json
    assert tokens["tokens"] == node.core.text("the lazy 你")
    assert tokens["count"] == len(tokens["tokens"]) == len(tokens["token_strs"])
    assert tokens["max_model_len"] == fake_core.CONTEXT_TOKENS
    back = http_calls.post(node.url, "/detokenize", {"tokens": tokens["tokens"]}).json
    assert back == {"prompt": "the lazy 你"}
    http_calls.post(node.url, CHAT_PATH, CHAT)
    chat = http_calls.post(node.url, "/tokenize", {"model": "small", "messages": HELLO}).json
    assert chat["tokens"] == node.last.token_ids
    assert http_calls.get(node.url, "/version").json["version"]
    assert http_calls.get(node.url, "/server_info").json["served_model_name"] == "small"


def test_the_api_document_describes_the_requests(node: api_node.ApiNode) -> None:
    document = http_calls.get(node.url, "/openapi.json").json
    schemas = document["components"]["schemas"]
    for path, name in ((CHAT_PATH, "ChatRequest"), (PATH, "CompletionRequest")):
        content = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        assert content["schema"]["$ref"].endswith(f"/{name}")
        assert schemas[name]["additionalProperties"] is False
    kinds = {entry.get("type") for entry in schemas["CompletionRequest"]["properties"]["prompt"]["anyOf"]}
    assert kinds == {"string", "array"}
