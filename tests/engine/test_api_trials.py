"""Schemas that would keep a compiler busy for ever, or end its process, are refused; and nothing else suffers."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import api_node
import http_calls
from drift_engine import wire
from drift_engine.api import errors
from drift_engine.api.trials import Trials
from waiting import until

PATH = "/v1/chat/completions"
HELLO: Any = [{"role": "user", "content": "hi"}]

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "the intersection of 40 patterns": (
        {"allOf": [{"type": "string", "pattern": f".*a.{{{i}}}b"} for i in range(40)]},
        "longer than the limit of 0.25 s",
    ),
    "a chain of 3,000 references": (
        {
            "$ref": "#/$defs/d0",
            "$defs": {f"d{i}": {"properties": {"a": {"$ref": f"#/$defs/d{i + 1}"}}} for i in range(3000)}
            | {"d3000": {"type": "string"}},
        },
        "nested too deeply",
    ),
    "a product of alternatives": (
        {
            "allOf": [
                {"anyOf": [{"properties": {f"p{j}": {"enum": [i, j]}}} for i in range(3)]} for j in range(9)
            ]
        },
        "too large",
    ),
    "references in a circle": (
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
        "can't be used",
    ),
    "a pattern with 100,000 parentheses": (
        {"type": "string", "pattern": "(" * 100_000 + ")" * 100_000},
        "can't be used",
    ),
    "60,000 values": ({"enum": [f"value {i}" for i in range(60_000)]}, "more than the limit of 262144"),
}
USABLE: dict[str, dict[str, Any]] = {
    "a thousand properties": {
        "type": "object",
        "properties": {f"k{i}": {"type": "string"} for i in range(1000)},
        "additionalProperties": False,
    },
    "a list of lists of a million numbers": {
        "type": "array",
        "minItems": 1000,
        "items": {"type": "array", "minItems": 1000, "items": {"type": "integer"}},
    },
    "a long pattern of Unicode classes": {
        "type": "string",
        "pattern": r"^(\p{L}|\p{N}){1,500}(\w+\s?){200}$",
    },
    "a tree": {
        "$ref": "#/$defs/tree",
        "$defs": {"tree": {"type": "object", "properties": {"left": {"$ref": "#/$defs/tree"}}}},
    },
}


@pytest.fixture(scope="module")
def node() -> Iterator[api_node.ApiNode]:
    with api_node.node() as running:
        yield running


def ask(node: api_node.ApiNode, schema: dict[str, Any]) -> http_calls.Reply:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    return http_calls.post(node.url, PATH, {"model": "small", "messages": HELLO, "response_format": form})


@pytest.mark.parametrize("name", REFUSED)
def test_a_schema_that_would_harm_the_node_is_refused(node: api_node.ApiNode, name: str) -> None:
    schema, words = REFUSED[name]
    submitted = len(node.core.submitted)
    reply = ask(node, schema)
    assert (reply.status, reply.error["param"]) == (400, "response_format"), reply.error["message"]
    assert words in reply.error["message"]
    assert len(node.core.submitted) == submitted


@pytest.mark.parametrize("name", USABLE)
def test_a_large_but_harmless_schema_is_taken(node: api_node.ApiNode, name: str) -> None:
    reply = ask(node, USABLE[name])
    assert reply.status == 200, reply.error["message"]


def test_tools_are_tried_as_schemas_are() -> None:
    schema, _ = REFUSED["a chain of 3,000 references"]
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    body = {"model": "small", "messages": HELLO, "tools": [tool], "tool_choice": "required"}
    with api_node.node(
        "{% for m in messages %}{{ m.content }}{% endfor %}<tool_call>{% if tools %}{% endif %}"
    ) as node:
        reply = http_calls.post(node.url, PATH, body)
    assert (reply.status, reply.error["param"]) == (400, "tools"), reply.error["message"]
    assert "can't be used" in reply.error["message"]


@pytest.mark.parametrize("levels", [65, 300, 900])
@pytest.mark.parametrize("field", ["schema", "parameters", "chat_template_kwargs", "metadata"])
def test_json_that_is_nested_too_deeply_is_refused(node: api_node.ApiNode, field: str, levels: int) -> None:
    deep: Any = {}
    for _ in range(levels - 1):
        deep = {"properties": deep}
    body: dict[str, Any] = {"model": "small", "messages": HELLO}
    match field:
        case "schema":
            body["response_format"] = {"type": "json_schema", "json_schema": {"name": "x", "schema": deep}}
        case "parameters":
            body["tools"] = [{"type": "function", "function": {"name": "f", "parameters": deep}}]
        case _:
            body[field] = deep
    reply = http_calls.post(node.url, PATH, body)
    assert reply.status == 400
    assert field in reply.error["param"]
    assert "nested more than 64 levels" in reply.error["message"]


def test_arguments_of_an_earlier_call_that_are_nested_too_deeply_are_text(node: api_node.ApiNode) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "[" * 1500}}
    messages = [*HELLO, {"role": "assistant", "tool_calls": [call]}, *HELLO]
    assert http_calls.post(node.url, PATH, {"model": "small", "messages": messages}).status == 200


# the process that tries

GRAMMAR = wire.Grammar(wire.GrammarKind.JSON_SCHEMA, "{}")
SAYS_READY = "import sys; print('\"\"', flush=True)\n"


def run(script: str, scenario: Callable[[Trials], Awaitable[None]]) -> None:
    async def bounded() -> None:
        trials = Trials([sys.executable, "-c", script])
        try:
            async with asyncio.timeout(20):
                await scenario(trials)
        finally:
            await trials.close()

    asyncio.run(bounded())


def test_what_is_known_of_a_grammar_is_not_asked_again(tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    script = f"{SAYS_READY}for line in sys.stdin: open({str(asked)!r}, 'a').write(line); print('\"no\"', flush=True)"

    async def scenario(trials: Trials) -> None:
        again = [trials.problem(GRAMMAR) for _ in range(5)]
        assert await asyncio.gather(*again) == ["no"] * 5

    run(script, scenario)
    assert [json.loads(line)["text"] for line in asked.read_text().splitlines()] == ["{}"]


def test_a_process_that_does_not_start_is_no_fault_of_the_client() -> None:
    async def scenario(trials: Trials) -> None:
        with pytest.raises(errors.ApiError) as caught:
            await trials.problem(GRAMMAR)
        assert caught.value.status == 503

    run("raise SystemExit(1)", scenario)


def test_an_exchange_that_was_interrupted_is_not_gone_on_with() -> None:
    # else all that come later would get the answer of the one before
    script = (
        f"{SAYS_READY}"
        "for line in sys.stdin:\n"
        "    if 'wait' in line: __import__('time').sleep(60)\n"
        "    print('\"\"', flush=True)"
    )

    async def scenario(trials: Trials) -> None:
        assert await trials.problem(GRAMMAR) == ""
        asking = asyncio.ensure_future(trials.problem(wire.Grammar(wire.GrammarKind.REGEX, "wait")))
        await until(lambda: trials._process is None)  # it was given the grammar
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert await trials.problem(wire.Grammar(wire.GrammarKind.REGEX, "a")) == ""

    run(script, scenario)
