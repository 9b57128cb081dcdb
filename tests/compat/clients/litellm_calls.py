"""LiteLLM before a server of OpenAI's API, as its documentation has it: `openai/` and the model's name."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any, Literal

import litellm
import pydantic

import client_calls

ASKED = json.loads(sys.argv[1])
QUESTION = "What is Drift?"
MESSAGES = [{"role": "user", "content": QUESTION}]
CONNECTION: dict[str, Any] = {
    "model": f"openai/{ASKED['model']}",
    "api_base": ASKED["url"],
    "api_key": ASKED["key"],
    "num_retries": 0,
    "max_retries": 0,
}
ANSWER: dict[str, Any] = {"temperature": 0, "max_tokens": 40}
FOREVER = {"extra_body": {"ignore_eos": True}}
WEATHER = {
    "type": "object",
    "properties": {"city": {"enum": ["Paris", "Rome"]}, "hourly": {"type": "boolean"}},
    "required": ["city", "hourly"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "weather", "description": "ahead", "parameters": WEATHER}}


class Weather(pydantic.BaseModel):
    city: Literal["Paris", "Rome"]
    hourly: bool


def fields(**further: Any) -> dict[str, Any]:
    return {**CONNECTION, **ANSWER, "messages": MESSAGES, **further}


def answered(answer: Any) -> dict[str, Any]:
    (choice,) = answer.choices
    return {
        "text": choice.message.content,
        "finish_reason": choice.finish_reason,
        "usage": {
            "input_tokens": answer.usage.prompt_tokens,
            "output_tokens": answer.usage.completion_tokens,
            "total_tokens": answer.usage.total_tokens,
        },
    }


def streamed(parts: list[Any]) -> dict[str, Any]:
    texts = [
        part.choices[0].delta.content for part in parts if part.choices and part.choices[0].delta.content
    ]
    whole = litellm.stream_chunk_builder(parts, messages=MESSAGES)
    return {**answered(whole), "text": "".join(texts), "pieces": len(texts)}


STREAM = {**FOREVER, "stream": True, "stream_options": {"include_usage": True}}


async def asynchronous() -> dict[str, Any]:
    whole = answered(await litellm.acompletion(**fields(**FOREVER)))
    parts = [part async for part in await litellm.acompletion(**fields(**STREAM))]
    return {"whole": whole, "stream": streamed(parts)}


def tool_and_back() -> dict[str, Any]:
    asked = fields(tools=[TOOL], tool_choice="required", parallel_tool_calls=False, max_tokens=120)
    message = litellm.completion(**asked).choices[0].message
    (call,) = message.tool_calls
    result = {"role": "tool", "tool_call_id": call.id, "content": "21 degrees"}
    then = fields(messages=[*MESSAGES, message, result], tools=[TOOL], max_tokens=8, **FOREVER)
    said = litellm.completion(**then)
    arguments = json.loads(call.function.arguments)
    return {"name": call.function.name, "args": arguments, "after": answered(said)}


def structured() -> dict[str, Any]:
    answer = litellm.completion(**fields(response_format=Weather, max_tokens=60))
    return Weather.model_validate_json(answer.choices[0].message.content).model_dump()


def completion(**further: Any) -> Any:
    connection = {**CONNECTION, "model": f"text-completion-openai/{ASKED['model']}"}
    return litellm.text_completion(**connection, **ANSWER, prompt=QUESTION, **FOREVER, **further)


def until_limited() -> None:
    for _ in range(3):
        litellm.completion(**fields(api_key=ASKED["limited_key"], max_tokens=1))


client_calls.tell(
    {
        "whole": lambda: answered(litellm.completion(**fields(**FOREVER))),
        "stream": lambda: streamed(list(litellm.completion(**fields(**STREAM)))),
        "async": lambda: asyncio.run(asynchronous()),
        "tool": tool_and_back,
        "json_schema": structured,
        "completion": lambda: completion().choices[0].text,
        "completion stream": lambda: "".join(part.choices[0].text or "" for part in completion(stream=True)),
        "another model": lambda: litellm.completion(**fields(model="openai/another")),
        "too long": lambda: litellm.completion(
            **fields(messages=[{"role": "user", "content": QUESTION * 2000}])
        ),
        "bad field": lambda: litellm.completion(**fields(top_p=2.0)),
        "wrong key": lambda: litellm.completion(**fields(api_key="wrong")),
        "limited": until_limited,
        "embeddings": lambda: litellm.embedding(**CONNECTION, input=[QUESTION]),
    }
)
