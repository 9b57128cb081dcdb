"""LangChain's classes for OpenAI's API, as their documentation uses them."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any, Literal

import pydantic
from langchain_core.messages import AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings

import client_calls

ASKED = json.loads(sys.argv[1])
QUESTION = "What is Drift?"
CONNECTION: dict[str, Any] = {"base_url": ASKED["url"], "api_key": ASKED["key"], "max_retries": 0}
ANSWER: dict[str, Any] = {
    "model": ASKED["model"],
    "temperature": 0,
    "max_tokens": 40,
    "extra_body": {"ignore_eos": True},
}


class Weather(pydantic.BaseModel):
    """Ahead."""

    city: Literal["Paris", "Rome"]
    hourly: bool


def weather(city: Literal["Paris", "Rome"], hourly: bool) -> str:
    """The weather ahead."""
    return f"21 degrees in {city}, {hourly}"


WEATHER = tool(weather)


def chat(**fields: Any) -> ChatOpenAI:
    return ChatOpenAI(**{**CONNECTION, **ANSWER, "stream_usage": True, **fields})


def answered(message: Any) -> dict[str, Any]:
    return {
        "text": message.content,
        "finish_reason": message.response_metadata["finish_reason"],
        "usage": message.usage_metadata,
    }


def streamed(chunks: list[AIMessageChunk]) -> dict[str, Any]:
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    return {**answered(whole), "pieces": sum(bool(chunk.content) for chunk in chunks)}


async def asynchronous() -> dict[str, Any]:
    """In one loop: LangChain keeps its connections for the next call."""
    whole = answered(await chat().ainvoke(QUESTION))
    return {"whole": whole, "stream": streamed([chunk async for chunk in chat().astream(QUESTION)])}


def tool_and_back() -> dict[str, Any]:
    """A call, its result, and what the model says then."""
    asking = chat(max_tokens=120, extra_body={}).bind_tools(
        [WEATHER], tool_choice="any", parallel_tool_calls=False
    )
    call = asking.invoke(QUESTION)
    (wanted,) = call.tool_calls
    result: ToolMessage = WEATHER.invoke(wanted)
    said = chat(max_tokens=8).bind_tools([WEATHER]).invoke([HumanMessage(QUESTION), call, result])
    return {"name": wanted["name"], "args": wanted["args"], "result": result.content, "after": answered(said)}


def structured(method: Literal["json_schema", "function_calling"]) -> dict[str, Any]:
    found = chat(max_tokens=60, extra_body={}).with_structured_output(Weather, method=method).invoke(QUESTION)
    assert isinstance(found, Weather)
    return found.model_dump()


def embed() -> list[float]:
    """Not the tokens of a text, which would need a vocabulary from elsewhere."""
    embeddings = OpenAIEmbeddings(**CONNECTION, model=ASKED["model"], check_embedding_ctx_length=False)
    found: list[float] = embeddings.embed_query(QUESTION)
    return found


def until_limited() -> None:
    limited = chat(api_key=ASKED["limited_key"], max_tokens=1)
    for _ in range(3):
        limited.invoke(QUESTION)


client_calls.tell(
    {
        "whole": lambda: answered(chat().invoke(QUESTION)),
        "stream": lambda: streamed(list(chat().stream(QUESTION))),
        "async": lambda: asyncio.run(asynchronous()),
        "batch": lambda: [answered(one)["text"] for one in chat().batch([QUESTION] * 3)],
        "tool": tool_and_back,
        "json_schema": lambda: structured("json_schema"),
        "function_calling": lambda: structured("function_calling"),
        "completion": lambda: OpenAI(**CONNECTION, **ANSWER).invoke(QUESTION),
        "completion stream": lambda: "".join(OpenAI(**CONNECTION, **ANSWER).stream(QUESTION)),
        "another model": lambda: chat(model="another").invoke(QUESTION),
        "too long": lambda: chat().invoke(QUESTION * 2000),
        "bad field": lambda: chat(top_p=2.0).invoke(QUESTION),
        "wrong key": lambda: chat(api_key="wrong").invoke(QUESTION),
        "limited": until_limited,
        "embeddings": embed,
    }
)
