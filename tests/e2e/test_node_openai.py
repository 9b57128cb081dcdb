"""The official `openai` client, synchronous and asynchronous, against a real node: it works unchanged."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import jsonschema
import openai
import pydantic
import pytest

import real_node

HELLO: Any = [{"role": "user", "content": "What is Drift?"}]
GREEDY: dict[str, Any] = {"messages": HELLO, "temperature": 0}
FOREVER = {"ignore_eos": True}

WEATHER = {
    "type": "object",
    "properties": {
        "city": {"enum": ["Paris", "Rome", "Zürich"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 14},
        "hourly": {"type": "boolean"},
    },
    "required": ["city", "days", "hourly"],
    "additionalProperties": False,
}
CLOCK = {"type": "object", "properties": {"utc": {"type": "boolean"}}, "additionalProperties": False}
TOOLS: Any = [
    {"type": "function", "function": {"name": "weather", "description": "ahead", "parameters": WEATHER}},
    {"type": "function", "function": {"name": "clock", "parameters": CLOCK}},
]

Make = Callable[[Any], Any]
"""A call of either client: the answer, or (asynchronous) what is awaited for it."""

Ask = Callable[[Make], Any]
"""Makes the call and returns its answer; a stream's as the list of its parts."""


def settings(node: real_node.RealNode) -> dict[str, Any]:
    return {
        "base_url": f"{node.url}/v1",
        "api_key": "none",
        "timeout": real_node.DEADLINE_S,
        "max_retries": 0,
    }


@pytest.fixture(params=["sync", "async"])
def ask(node: real_node.RealNode, request: pytest.FixtureRequest) -> Ask:
    def synchronous(make: Make) -> Any:
        with openai.OpenAI(**settings(node)) as client:
            answer = make(client)
            return list(answer) if isinstance(answer, openai.Stream) else answer

    async def run(make: Make) -> Any:
        async with openai.AsyncOpenAI(**settings(node)) as client:
            answer = await make(client)
            return [part async for part in answer] if isinstance(answer, openai.AsyncStream) else answer

    return synchronous if request.param == "sync" else lambda make: asyncio.run(run(make))


def chat(**fields: Any) -> Make:
    return lambda client: client.chat.completions.create(model="small", **{**GREEDY, **fields})


def text(parts: list[Any]) -> str:
    return "".join(choice.delta.content or "" for part in parts for choice in part.choices)


def test_models(ask: Ask) -> None:
    (card,) = ask(lambda client: client.models.list()).data
    assert (card.id, card.max_model_len) == ("small", real_node.CONTEXT_TOKENS)
    assert ask(lambda client: client.models.retrieve("small")).id == "small"


def test_stream_says_what_the_whole_answer_says(ask: Ask) -> None:
    whole = ask(chat(max_tokens=60, extra_body=FOREVER))
    parts = ask(chat(max_tokens=60, extra_body=FOREVER, stream=True, stream_options={"include_usage": True}))
    *deltas, last = parts
    assert text(deltas) == whole.choices[0].message.content
    assert [part.choices[0].delta.role for part in deltas][:2] == ["assistant", None]
    assert [part.choices[0].finish_reason for part in deltas] == [None] * (len(deltas) - 1) + ["length"]
    assert all(part.usage is None for part in deltas)
    assert last.choices == []
    assert last.usage.completion_tokens == whole.usage.completion_tokens == 60
    assert last.usage.prompt_tokens == whole.usage.prompt_tokens
    assert last.usage.total_tokens == last.usage.prompt_tokens + 60
    assert len({part.id for part in parts}) == 1


def test_required_tool_is_called_with_its_schema(ask: Ask) -> None:
    answer = ask(chat(tools=TOOLS, tool_choice="required", parallel_tool_calls=False, max_tokens=120))
    (choice,) = answer.choices
    (call,) = choice.message.tool_calls
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    parameters = {"weather": WEATHER, "clock": CLOCK}[call.function.name]
    jsonschema.validate(json.loads(call.function.arguments), parameters)

    named = {"type": "function", "function": {"name": "weather"}}
    parts = ask(chat(tools=TOOLS, tool_choice=named, max_tokens=120, stream=True))
    calls = [call for part in parts for call in part.choices[0].delta.tool_calls or []]
    assert [call.function.name for call in calls if call.id] == ["weather"]
    arguments = json.loads("".join(call.function.arguments for call in calls))
    jsonschema.validate(arguments, WEATHER)
    assert parts[-1].choices[0].finish_reason == "tool_calls"


def test_tool_results_go_back(ask: Ask) -> None:
    first = ask(chat(tools=TOOLS, tool_choice="required", parallel_tool_calls=False, max_tokens=120))
    message = first.choices[0].message
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": '{"degrees": 21}'}
    second = ask(chat(messages=[*HELLO, message, result], tools=TOOLS, max_tokens=8))
    assert second.usage.prompt_tokens > first.usage.prompt_tokens + 10


def test_json_schema(ask: Ask) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "weather", "schema": WEATHER, "strict": True}}
    answer = ask(chat(response_format=form, max_tokens=120)).choices[0]
    assert answer.finish_reason == "stop"
    jsonschema.validate(json.loads(answer.message.content), WEATHER)


class Weather(pydantic.BaseModel):
    city: Literal["Paris", "Rome"]
    hourly: bool


def test_pydantic_model_comes_back(ask: Ask) -> None:
    answer = ask(
        lambda client: client.chat.completions.parse(
            model="small", response_format=Weather, max_tokens=60, **GREEDY
        )
    )
    assert isinstance(answer.choices[0].message.parsed, Weather)


def test_logprobs(ask: Ask) -> None:
    fields = {"max_tokens": 12, "logprobs": True, "top_logprobs": 3, "extra_body": FOREVER}
    whole = ask(chat(**fields)).choices[0].logprobs.content
    parts = ask(chat(stream=True, **fields))
    assert whole == [entry for part in parts for entry in (part.choices[0].logprobs or Nothing).content]
    assert len(whole) == 12
    for entry in whole:
        assert len(entry.top_logprobs) == 3
        assert [top.logprob for top in entry.top_logprobs] == sorted(
            (top.logprob for top in entry.top_logprobs), reverse=True
        )
        assert entry.token == entry.top_logprobs[0].token  # greedy
        assert entry.logprob == entry.top_logprobs[0].logprob < 0


class Nothing:
    content: tuple[()] = ()


def test_three_choices(ask: Ask) -> None:
    fields = {"n": 3, "max_tokens": 12, "temperature": 1, "seed": 7, "extra_body": FOREVER}
    whole = ask(chat(**fields))
    texts = [choice.message.content for choice in whole.choices]
    assert [choice.index for choice in whole.choices] == [0, 1, 2]
    assert len(set(texts)) == 3
    assert whole.usage.completion_tokens == 36
    parts = ask(chat(stream=True, **fields))
    assert [text([part for part in parts if part.choices[0].index == index]) for index in range(3)] == texts


def test_stop(ask: Ask) -> None:
    """Ends before the string, wherever it falls, and streams nothing of it."""
    whole = ask(chat(max_tokens=40, extra_body=FOREVER)).choices[0].message.content
    stop = whole[len(whole) // 2 :][:4]
    cut = ask(chat(max_tokens=40, extra_body=FOREVER, stop=["never there", stop])).choices[0]
    assert (cut.message.content, cut.finish_reason) == (whole[: whole.index(stop)], "stop")
    parts = ask(chat(max_tokens=40, extra_body=FOREVER, stop=stop, stream=True))
    assert text(parts) == cut.message.content


def test_completions(ask: Ask) -> None:
    fields = {"model": "small", "prompt": ["the fox", "the dog"], "max_tokens": 6, "temperature": 0}
    whole = ask(lambda client: client.completions.create(**fields, logprobs=2))
    parts = ask(lambda client: client.completions.create(**fields, stream=True))
    for choice in whole.choices:
        found = "".join(part.choices[0].text for part in parts if part.choices[0].index == choice.index)
        assert found == choice.text
        assert len(choice.logprobs.tokens) == len(choice.logprobs.token_logprobs)


def test_errors_are_the_clients_own(ask: Ask) -> None:
    with pytest.raises(openai.BadRequestError) as bad:
        ask(chat(max_tokens=0))
    assert (bad.value.param, bad.value.type) == ("max_tokens", "invalid_request_error")
    with pytest.raises(openai.NotFoundError) as missing:
        ask(lambda client: client.chat.completions.create(model="gpt-4o", messages=HELLO))
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as long:
        ask(chat(messages=[{"role": "user", "content": "a b c d " * 1000}], stream=True))
    assert long.value.code == "context_length_exceeded"


def test_closed_stream_is_cancelled(node: real_node.RealNode) -> None:
    before = node.count("drift_core_generation_tokens_total")
    with (
        openai.OpenAI(**settings(node)) as client,
        client.chat.completions.create(
            model="small", messages=HELLO, max_tokens=1900, extra_body=FOREVER, stream=True
        ) as stream,
    ):
        next(iter(stream))
    node.settles()
    assert node.count("drift_core_generation_tokens_total") - before < 1900


@pytest.mark.parametrize("stream", [True, False])
def test_cancelled_task_is_cancelled(node: real_node.RealNode, stream: bool) -> None:
    """Leaving an `await` is all that it takes."""
    before = node.count("drift_core_generation_tokens_total")

    async def run() -> None:
        async with openai.AsyncOpenAI(**settings(node)) as client:
            fields: Any = {"model": "small", "messages": HELLO, "max_tokens": 1900, "extra_body": FOREVER}

            async def follow() -> None:
                answer = await client.chat.completions.create(**fields, stream=stream)
                if isinstance(answer, openai.AsyncStream):
                    async for _ in answer:
                        pass

            task = asyncio.create_task(follow())
            await asyncio.to_thread(
                real_node.until, lambda: node.report()["running"] == 1, "the request to run"
            )
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(run())
    node.settles()
    assert node.count("drift_core_generation_tokens_total") - before < 1900


def test_clients_of_both_kinds_side_by_side(node: real_node.RealNode) -> None:
    questions: list[Any] = [[{"role": "user", "content": f"question {index}"}] for index in range(12)]
    fields: dict[str, Any] = {
        "model": "small",
        "max_tokens": 30,
        "temperature": 0.8,
        "seed": 1,
        "extra_body": FOREVER,
    }

    async def together() -> list[str]:
        async with openai.AsyncOpenAI(**settings(node)) as client:

            async def one(messages: Any) -> str:
                stream = await client.chat.completions.create(messages=messages, stream=True, **fields)
                return text([part async for part in stream])

            return await asyncio.gather(*map(one, questions))

    with openai.OpenAI(**settings(node)) as client:

        def one(messages: Any) -> str:
            answer = client.chat.completions.create(messages=messages, **fields)
            return str(answer.choices[0].message.content)

        alone = list(map(one, questions))
        with ThreadPoolExecutor(len(questions)) as pool:
            threads = list(pool.map(one, questions))
    assert threads == alone
    assert asyncio.run(together()) == alone
