"""/v1/chat/completions through the official client: messages, streams, log probabilities, formats, tools."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import llguidance
import openai
import pytest

import api_node
import fake_core
import http_calls
import small_tokenizers
from drift_engine import wire

HELLO: Any = [{"role": "user", "content": "hi"}]
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOLS: Any = [
    {"type": "function", "function": {"name": "weather", "description": "now", "parameters": SCHEMA}},
    {"type": "function", "function": {"name": "clock"}},
]
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Zürich 你"}}\n</tool_call>'
TWO_CALLS = CALL + '\n<tool_call>\n{"name": "clock", "arguments": {}}\n</tool_call>'


@pytest.fixture(scope="module")
def node() -> Iterator[api_node.ApiNode]:
    with api_node.node() as running:
        yield running


@pytest.fixture(autouse=True)
def default_answer(node: api_node.ApiNode) -> None:
    node.reply(None)


@pytest.fixture(scope="module")
def client(node: api_node.ApiNode) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{node.url}/v1", api_key="any", max_retries=0, timeout=20) as made:
        yield made


def prompt(node: api_node.ApiNode) -> str:
    text: str = node.core.tokenizer.decode(node.last.token_ids, skip_special_tokens=False)
    return text


def test_messages_become_the_templates_text(node: api_node.ApiNode, client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="small",
        messages=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": "c"},
            {"role": "user", "content": "d", "name": "me"},
        ],
    )
    assert prompt(node) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\na\nb<|im_end|>\n"
        "<|im_start|>assistant\nc<|im_end|>\n<|im_start|>user\nd<|im_end|>\n<|im_start|>assistant\n"
    )
    assert answer.choices[0].message.content == fake_core.ANSWER
    assert answer.choices[0].message.role == "assistant"
    assert answer.object == "chat.completion"


def test_an_answer_may_fill_the_context(node: api_node.ApiNode, client: openai.OpenAI) -> None:
    client.chat.completions.create(model="small", messages=HELLO)
    assert node.last.sampling.max_tokens == fake_core.CONTEXT_TOKENS - len(node.last.token_ids)
    client.chat.completions.create(model="small", messages=HELLO, max_completion_tokens=5, max_tokens=9)
    assert node.last.sampling.max_tokens == 5


def test_stream(node: api_node.ApiNode, client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="small", messages=HELLO, stream=True, stream_options={"include_usage": True}, n=2
        )
    )
    for index in range(2):
        choices = [choice for chunk in chunks for choice in chunk.choices if choice.index == index]
        assert "".join(choice.delta.content or "" for choice in choices) == fake_core.ANSWER
        assert [choice.delta.role for choice in choices] == ["assistant"] + [None] * (len(choices) - 1)
        assert [choice.finish_reason for choice in choices] == [None] * (len(choices) - 1) + ["stop"]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.prompt_tokens == len(node.last.token_ids)
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_stream_helper_of_the_client(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model="small", messages=HELLO) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.content == fake_core.ANSWER


@pytest.mark.parametrize("stream", [False, True])
def test_logprobs(node: api_node.ApiNode, client: openai.OpenAI, stream: bool) -> None:
    node.answer("你 dog")
    if stream:
        entries = [
            entry
            for chunk in client.chat.completions.create(
                model="small", messages=HELLO, logprobs=True, top_logprobs=2, stream=True
            )
            for entry in (chunk.choices[0].logprobs.content or [] if chunk.choices[0].logprobs else [])
        ]
    else:
        found = client.chat.completions.create(model="small", messages=HELLO, logprobs=True, top_logprobs=2)
        logprobs = found.choices[0].logprobs
        assert logprobs is not None
        entries = logprobs.content or []
    assert b"".join(bytes(entry.bytes or []) for entry in entries[:-1]).decode() == "你 dog"
    assert [entry.logprob for entry in entries] == [-0.5] * len(entries)
    assert {len(entry.top_logprobs) for entry in entries} == {2}


def test_logprobs_without_alternatives(node: api_node.ApiNode, client: openai.OpenAI) -> None:
    found = client.chat.completions.create(model="small", messages=HELLO, logprobs=True).choices[0].logprobs
    assert found is not None
    assert found.content
    assert found.content[0].top_logprobs == []
    assert node.last.sampling.logprobs == 0


def test_json_schema_reaches_the_core(node: api_node.ApiNode, client: openai.OpenAI) -> None:
    form: Any = {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA, "strict": True}}
    client.chat.completions.create(model="small", messages=HELLO, response_format=form)
    assert node.last.sampling.grammar is not None
    assert node.last.sampling.grammar.kind is wire.GrammarKind.JSON_SCHEMA
    assert json.loads(node.last.sampling.grammar.text) == SCHEMA
    client.chat.completions.create(model="small", messages=HELLO, response_format={"type": "json_object"})
    assert json.loads(node.last.sampling.grammar.text) == {"type": "object"}
    client.chat.completions.create(model="small", messages=HELLO, response_format={"type": "text"})
    assert node.last.sampling.grammar is None


def test_tool_call(node: api_node.ApiNode, client: openai.OpenAI) -> None:
    node.answer("One moment.\n" + TWO_CALLS)
    choice = client.chat.completions.create(model="small", messages=HELLO, tools=TOOLS).choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == "One moment.\n"
    calls: Any = choice.message.tool_calls
    assert [call.function.name for call in calls] == ["weather", "clock"]
    assert json.loads(calls[0].function.arguments) == {"city": "Zürich 你"}
    assert calls[1].function.arguments == "{}"
    assert len({call.id for call in calls}) == 2
    assert '"name": "weather"' in prompt(node)
    assert node.last.sampling.grammar is None


def test_tool_call_stream(node: api_node.ApiNode, client: openai.OpenAI) -> None:
    node.answer(TWO_CALLS)
    with client.chat.completions.stream(model="small", messages=HELLO, tools=TOOLS) as stream:
        parts = [event for event in stream if event.type == "tool_calls.function.arguments.delta"]
        final = stream.get_final_completion().choices[0]
    calls: Any = final.message.tool_calls
    assert final.finish_reason == "tool_calls"
    assert final.message.content is None
    assert [(call.function.name, call.function.arguments) for call in calls] == [
        ("weather", '{"city": "Zürich 你"}'),
        ("clock", "{}"),
    ]
    assert len(parts) > 2, "arguments are streamed, not sent at the end"


def test_calls_go_back_to_the_model(node: api_node.ApiNode, client: openai.OpenAI) -> None:
    node.answer(CALL)
    message = client.chat.completions.create(model="small", messages=HELLO, tools=TOOLS).choices[0].message
    calls: Any = message.tool_calls
    node.answer("Sunny.")
    result = {"role": "tool", "tool_call_id": calls[0].id, "content": "sun"}
    messages: Any = [*HELLO, message.model_dump(), result]
    answer = client.chat.completions.create(model="small", messages=messages, tools=TOOLS)
    assert answer.choices[0].message.content == "Sunny."
    assert CALL + "<|im_end|>" in prompt(node)
    assert "<tool_response>\nsun\n</tool_response>" in prompt(node)


def test_no_parallel_calls(node: api_node.ApiNode, client: openai.OpenAI) -> None:
    node.answer(TWO_CALLS + " dog" * 600)  # so long that the core is still writing when it is told to stop
    for stream in (False, True):
        found: Any = client.chat.completions.create(
            model="small", messages=HELLO, tools=TOOLS, parallel_tool_calls=False, stream=stream
        )
        if stream:
            chunks = list(found)
            names = [
                call.function.name
                for chunk in chunks
                for call in chunk.choices[0].delta.tool_calls or []
                if call.function.name
            ]
            finish = chunks[-1].choices[0].finish_reason
        else:
            names = [call.function.name for call in found.choices[0].message.tool_calls]
            finish = found.choices[0].finish_reason
        assert (names, finish) == (["weather"], "tool_calls")
        request_id = node.last.request_id
        node.until(lambda request_id=request_id: request_id in node.core.cancelled)  # type: ignore[misc]


def test_tool_choice_none_leaves_markup_alone(node: api_node.ApiNode, client: openai.OpenAI) -> None:
    node.answer(CALL)
    message = client.chat.completions.create(model="small", messages=HELLO, tools=TOOLS, tool_choice="none")
    assert message.choices[0].message.content == CALL
    assert message.choices[0].message.tool_calls is None


def accepts(grammar: wire.Grammar, text: str) -> bool:
    """Whether the grammar takes the whole text, spelled in the tokenizer's own tokens."""
    tokenizer = small_tokenizers.byte_level()
    matcher = llguidance.LLMatcher(
        llguidance.LLTokenizer(tokenizer.to_str(), eos_token=fake_core.EOS),
        llguidance.LLMatcher.grammar_from_lark(grammar.text),
    )
    assert not matcher.is_error(), matcher.get_error()
    ids = tokenizer.encode(text).ids
    return bool(matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting())


@pytest.mark.parametrize(
    ("choice", "parallel", "good", "bad"),
    [
        ("required", True, [CALL, TWO_CALLS], ["hello", CALL.replace("weather", "nobody")]),
        ("required", False, [CALL], [TWO_CALLS]),
        (
            {"type": "function", "function": {"name": "weather"}},
            True,
            [CALL],
            [TWO_CALLS, CALL.replace("weather", "clock"), CALL.replace("city", "town")],
        ),
    ],
)
def test_forced_calls(
    node: api_node.ApiNode,
    client: openai.OpenAI,
    choice: Any,
    parallel: bool,
    good: list[str],
    bad: list[str],
) -> None:
    node.answer(CALL)
    found = client.chat.completions.create(
        model="small", messages=HELLO, tools=TOOLS, tool_choice=choice, parallel_tool_calls=parallel
    )
    assert found.choices[0].finish_reason == "tool_calls"
    grammar = node.last.sampling.grammar
    assert grammar is not None
    assert [accepts(grammar, text) for text in good] == [True] * len(good)
    assert [accepts(grammar, text) for text in bad] == [False] * len(bad)


def test_a_format_beside_tools(node: api_node.ApiNode, client: openai.OpenAI) -> None:
    node.answer('{"city": "Paris"}')
    form: Any = {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA}}
    found = client.chat.completions.create(model="small", messages=HELLO, tools=TOOLS, response_format=form)
    assert found.choices[0].message.content == '{"city": "Paris"}'
    grammar = node.last.sampling.grammar
    assert grammar is not None
    assert accepts(grammar, '{"city": "Paris"}')
    assert accepts(grammar, CALL)
    assert not accepts(grammar, "hello")


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"tool_choice": "auto"}, "tool_choice", "only allowed when tools are given"),
        ({"tools": [*TOOLS, TOOLS[0]]}, "tools", "same name"),
        (
            {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "x"}}},
            "tool_choice",
            "none of",
        ),
        ({"tools": TOOLS, "tool_choice": "sometimes"}, "tool_choice", "must be"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema", "is required"),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "schema": {"type": "objec"}},
                }
            },
            "response_format",
            "can't be used: Invalid type: objec",
        ),
        (
            {
                "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "objec"}}}],
                "tool_choice": "required",
            },
            "tools",
            "can't be used",
        ),
        ({"top_logprobs": 2}, "top_logprobs", "only allowed when logprobs is true"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "only allowed when stream is true"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "is required"),
    ],
)
def test_refusals(node: api_node.ApiNode, fields: dict[str, Any], param: str, words: str) -> None:
    reply = http_calls.post(node.url, "/v1/chat/completions", {"model": "small", "messages": HELLO, **fields})
    assert reply.status == 400
    assert reply.error["param"] == param
    assert words in reply.error["message"]


def test_a_template_without_tools_says_so() -> None:
    template = (
        "{% for m in messages %}{{ m.content }}{% endfor %}"
        "{% if not messages[0].content %}{{ raise_exception('say something') }}{% endif %}"
    )
    with api_node.node(template) as node:
        body = {"model": "small", "messages": HELLO, "tools": TOOLS}
        reply = http_calls.post(node.url, "/v1/chat/completions", body)
        assert (reply.status, reply.error["param"]) == (400, "tools")
        assert "has no tools" in reply.error["message"]
        silent = {"model": "small", "messages": [{"role": "user", "content": ""}]}
        reply = http_calls.post(node.url, "/v1/chat/completions", silent)
        assert (reply.status, reply.error["message"]) == (400, "messages: say something")


ROUTED = {
    "no_stop_trim": False,
    "ignore_eos": False,
    "continue_final_message": False,
    "skip_special_tokens": True,
    "separate_reasoning": True,
    "stream_reasoning": True,
    "return_hidden_states": False,
    "include_reasoning": True,
    "logprobs": False,
}
"""As SGLang's and vLLM's routers send it, whatever the client sent."""


def test_what_routers_write_into_every_request_changes_nothing(node: api_node.ApiNode) -> None:
    body = {"model": "small", "messages": HELLO, "max_tokens": 4}
    plain, routed = (
        http_calls.post(node.url, "/v1/chat/completions", {**body, **fields}).json for fields in ({}, ROUTED)
    )
    assert routed["choices"] == plain["choices"]


@pytest.mark.parametrize(
    "field", ["no_stop_trim", "continue_final_message", "skip_special_tokens", "return_hidden_states"]
)
def test_what_we_can_not_do_otherwise_is_refused(node: api_node.ApiNode, field: str) -> None:
    body = {"model": "small", "messages": HELLO, field: not ROUTED[field]}
    reply = http_calls.post(node.url, "/v1/chat/completions", body)
    assert (reply.status, reply.error["param"]) == (400, field)


def test_litellms_own_field_of_a_message_may_come_back(node: api_node.ApiNode) -> None:
    said = {"role": "assistant", "content": "Yes.", "provider_specific_fields": {"refusal": None}}
    body = {"model": "small", "messages": [*HELLO, said, *HELLO], "max_tokens": 4}
    assert http_calls.post(node.url, "/v1/chat/completions", body).status == 200
    assert "refusal" not in prompt(node)
