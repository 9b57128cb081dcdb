"""What only a router that shows the control token gets: streams that can go on elsewhere, and pages of prompts."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import api_node
import fake_core
import http_calls
import resumable_streams
import small_tokenizers
from drift_engine import hashing, wire
from drift_engine.api import page_hints
from drift_engine.api.choices import Choice
from drift_engine.text.detokenizer import detokenizer
from drift_engine.text.tokenizer import Tokenizer
from resumable_streams import Router

CHAT_PATH, PATH = "/v1/chat/completions", "/v1/completions"
TOKEN = {"x-drift-token": api_node.CONTROL_TOKEN}
CHAT: Any = {"model": "small", "messages": [{"role": "user", "content": "hi"}]}
COMPLETION: Any = {"model": "small", "prompt": "the lazy dog", "max_tokens": 200}
USAGE: Any = {"stream_options": {"include_usage": True}}
TOOLS: Any = {"tools": [{"type": "function", "function": {"name": name}} for name in ("weather", "clock")]}
ANSWER = "Hello 你好 🙂, the lazy dog."
CALLS = (
    'One moment.\n<tool_call>\n{"name": "weather", "arguments": {"city": "Zürich 你"}}\n</tool_call>\n'
    '<tool_call>\n{"name": "clock", "arguments": {}}\n</tool_call>'
)
RESUME: Any = {"id": "chatcmpl-1", "created": 5, "seed": 7, "token_ids": [10, 11]}


@pytest.fixture(scope="module")
def node() -> Iterator[api_node.ApiNode]:
    with api_node.node() as running:
        yield running


@pytest.fixture(autouse=True)
def default_answer(node: api_node.ApiNode) -> None:
    node.answer(ANSWER)


def router(body: dict[str, Any], path: str = CHAT_PATH) -> Router:
    return Router(api_node.CONTROL_TOKEN, path, body)


@pytest.mark.parametrize("per_step", [1, 3])
@pytest.mark.parametrize(
    ("path", "body", "answer"),
    [
        (CHAT_PATH, {**CHAT, **USAGE}, ANSWER),
        (CHAT_PATH, {**CHAT, **USAGE, "stop": ["lazy d", "zzz"], "seed": 5}, ANSWER),
        (
            CHAT_PATH,
            {**CHAT, "stop": "Hello 你", "min_tokens": 6, "logprobs": True, "top_logprobs": 2},
            ANSWER * 2,
        ),
        (CHAT_PATH, {**CHAT, "max_tokens": 9, **USAGE}, ANSWER),
        (CHAT_PATH, {**CHAT, **TOOLS, **USAGE}, CALLS),
        (CHAT_PATH, {**CHAT, **TOOLS}, "  <tool_call> no call"),
        (PATH, {**COMPLETION, "echo": True, **USAGE}, "🙂🙂" + ANSWER),
        (PATH, {**COMPLETION, "logprobs": 1, "stop": "dog"}, ANSWER),
    ],
)
def test_a_cut_anywhere_is_not_seen(
    node: api_node.ApiNode, path: str, body: dict[str, Any], answer: str, per_step: int
) -> None:
    node.answer(answer, per_step=per_step)
    asking = router(body, path)
    whole, seed = asking.first(node.url)
    expected = resumable_streams.said(whole)
    assert expected["done"] == [True]
    assert seed == node.last.sampling.seed
    shown = next(index for index, part in enumerate(whole) if part.events)
    node.answer(answer, per_step=4 - per_step)
    for cut in range(shown + 1, len(whole)):
        rest = asking.rest(node.url, whole[:cut], seed)
        assert resumable_streams.said(whole[:cut] + rest) == expected
        assert (
            node.last.drawn_token_ids + [i for part in rest for i in part.token_ids] == expected["token_ids"]
        )
        assert node.last.sampling.seed == seed


@contextlib.contextmanager
def begun(
    node: api_node.ApiNode, body: dict[str, Any], headers: dict[str, str]
) -> Iterator[http.client.HTTPResponse]:
    """A stream of which the first token was drawn, and no more are but by `FakeCore.step`."""
    connection = http.client.HTTPConnection(node.url.removeprefix("http://"), timeout=20)
    with contextlib.closing(connection), node.stalled():
        connection.request(
            "POST", CHAT_PATH, json.dumps(body), {"content-type": "application/json", **TOKEN, **headers}
        )
        node.until(lambda: bool(node.core.running))
        node.call(node.core.step)
        response = connection.getresponse()
        with contextlib.closing(response):
            yield response


def test_every_token_is_named_at_once(node: api_node.ApiNode) -> None:
    """Also where its text is incomplete or held back, and where it ends the answer without a text."""
    node.answer("你 lazy")
    token_ids = [*node.core.text("你 lazy"), fake_core.EOS]
    with begun(node, {**CHAT, "stream": True, "stop": "你 lazy dog"}, {"x-drift-resumable": "1"}) as stream:
        for token_id in token_ids[:-1]:
            assert [stream.readline(), stream.readline()] == [b": tokens %d\n" % token_id, b"\n"]
            node.call(node.core.step)
        (last,) = resumable_streams.read(stream.read())
    assert (last.token_ids, last.done) == ([fake_core.EOS], True)
    assert resumable_streams.said([last])["content"] == "你 lazy"


def test_before_the_first_token_nothing_was_said(node: api_node.ApiNode) -> None:
    reply = router(CHAT).ask(node.url, drift_resume={**RESUME, "token_ids": []})
    found = resumable_streams.said(resumable_streams.read(reply.raw))
    assert (found["content"], found["roles"], found["finish"]) == (ANSWER, ["assistant"], ["stop"])
    assert (found["heads"], reply.headers["x-drift-seed"]) == (
        {("chatcmpl-1", 5, "small", "chat.completion.chunk")},
        "7",
    )


@pytest.mark.parametrize(
    ("path", "body", "text", "finish"),
    [
        (CHAT_PATH, {**CHAT, "stop": "lazy"}, "the lazy dog", "stop"),
        (CHAT_PATH, {**CHAT, **TOOLS, "parallel_tool_calls": False}, CALLS, "tool_calls"),
        (CHAT_PATH, CHAT, ANSWER, "stop"),
        (PATH, COMPLETION, ANSWER, "stop"),
        (PATH, {**COMPLETION, "stop": "lazy"}, "the lazy dog", "stop"),
    ],
)
def test_what_was_complete_ends_properly(
    node: api_node.ApiNode, path: str, body: dict[str, Any], text: str, finish: str
) -> None:
    """Whether the api process knows it (a stop string) or the core (a stop token)."""
    token_ids = [*node.core.text(text), fake_core.EOS]
    node.answer(text)
    reply = router({**body, **USAGE}, path).ask(node.url, drift_resume={**RESUME, "token_ids": token_ids})
    found = resumable_streams.said(resumable_streams.read(reply.raw))
    assert (found["finish"], found["done"], found["token_ids"]) == ([finish], [True], [])
    assert (found["text"], found["content"], found["roles"], found["calls"]) == ("", "", [], [])
    assert found["usage"][0]["completion_tokens"] <= len(token_ids)
    node.until(lambda: not node.core.running)


@pytest.mark.parametrize("fields", [{"n": 2, "stream": True}, {"stream": False}])
def test_other_answers_are_as_ever(node: api_node.ApiNode, fields: dict[str, Any]) -> None:
    reply = router({**CHAT, **fields}).ask(node.url, **fields)
    assert reply.status == 200
    assert "x-drift-seed" not in reply.headers
    assert b": tokens" not in reply.raw
    assert reply.headers["x-drift-node"] == "node-0"


def test_clients_get_nothing_of_it(node: api_node.ApiNode) -> None:
    wishes = {"x-drift-resumable": "1", "x-drift-want": "pages", "x-drift-token": "wrong"}
    reply = http_calls.post(node.url, CHAT_PATH, {**CHAT, "stream": True}, wishes)
    assert not [name for name in reply.headers if name.startswith("x-drift-")]
    assert b": tokens" not in reply.raw
    refused = http_calls.post(node.url, CHAT_PATH, {**CHAT, "stream": True, "drift_resume": RESUME}, wishes)
    assert (refused.status, refused.error["param"]) == (400, "drift_resume")
    assert "control token" in refused.error["message"]


@pytest.mark.parametrize(
    ("body", "resume", "param"),
    [
        ({"stream": False}, {}, "drift_resume"),
        ({"n": 2}, {}, "drift_resume"),
        ({"max_tokens": 1}, {}, "drift_resume.token_ids"),
        ({}, {"token_ids": [10**6]}, "drift_resume.token_ids"),
        ({}, {"token_ids": [-1]}, "drift_resume.token_ids[0]"),
        ({}, {"seed": -1}, "drift_resume.seed"),
        ({}, {"id": "a\nb"}, "drift_resume.id"),
        ({}, {"more": 1}, "drift_resume.more"),
    ],
)
def test_what_cannot_go_on_is_refused(
    node: api_node.ApiNode, body: dict[str, Any], resume: dict[str, Any], param: str
) -> None:
    reply = router({}).ask(node.url, **{**CHAT, **body, "drift_resume": {**RESUME, **resume}})
    assert (reply.status, reply.error["param"]) == (400, param)


def test_several_prompts_cannot_go_on(node: api_node.ApiNode) -> None:
    reply = router({**COMPLETION, "prompt": ["a", "b"]}, PATH).ask(node.url, drift_resume=RESUME)
    assert (reply.status, reply.error["param"]) == (400, "drift_resume")


@pytest.mark.parametrize("resumable", [True, False])
def test_a_node_that_leaves_breaks_the_stream_off(resumable: bool) -> None:
    """Not as an answer ends, so that the router asks another node; a client is told of the error."""
    with api_node.node() as leaving:
        leaving.answer("the lazy dog")
        wishes = {"x-drift-resumable": str(int(resumable))}
        with begun(leaving, {**CHAT, "stream": True}, wishes) as stream:
            leaving.call(leaving.context.health.drain)
            leaving.call(lambda: leaving.context.link.abort("its drain time is up"))
            if not resumable:
                parts = resumable_streams.read(stream.read())
                assert parts[-1].events[-1]["error"]["message"] == "its drain time is up"
                assert parts[-1].done
                return
            with pytest.raises(http.client.IncompleteRead) as raised:
                stream.read()
        (only,) = resumable_streams.read(raised.value.partial)
        assert (only.token_ids, only.done) == (leaving.core.text("the lazy dog")[:1], False)
        assert resumable_streams.said([only])["content"] == "the"
        assert leaving.call(lambda: leaving.context.admission.idle(10))


def test_an_error_of_the_request_is_told(node: api_node.ApiNode) -> None:
    """Another node would not do better."""
    node.answer("the lazy dog", error_after=2)
    with begun(node, {**CHAT, "stream": True}, {"x-drift-resumable": "1"}) as stream:
        node.call(node.core.step)
        parts = resumable_streams.read(stream.read())
    assert parts[-1].events[-1]["error"]["message"] == "the page store is damaged"
    assert parts[-1].done


def pages(header: str) -> tuple[list[int], dict[int, int]]:
    *numbers, listed = header.split(";")
    entries = [entry.split(":") for entry in listed.split(",") if entry]
    return [int(number) for number in numbers], {int(index): int(name, 16) for index, name in entries}


def chain(token_ids: list[int], salt: str = "") -> list[int]:
    """By the definition."""
    name, found = hashing.root_hash(salt), []
    for start in range(0, len(token_ids) - fake_core.PAGE_TOKENS + 1, fake_core.PAGE_TOKENS):
        block = token_ids[start : start + fake_core.PAGE_TOKENS]
        name = hashing.block_hash(name, b"".join(i.to_bytes(4, "little") for i in block))
        found.append(name)
    return found


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("tenant", ["", "acme"])
def test_the_prompts_pages_are_told(node: api_node.ApiNode, stream: bool, tenant: str) -> None:
    node.answer("the lazy dog", cached_tokens=32)
    prompt = [3 + index % 250 for index in range(50 * fake_core.PAGE_TOKENS + 5)]
    body = {**COMPLETION, "prompt": [prompt, [1, 2, 3]], "stream": stream}
    headers = {**TOKEN, "x-drift-want": "pages", "x-drift-tenant": tenant}
    reply = http_calls.post(node.url, PATH, body, headers)
    numbers, found = pages(reply.headers["x-drift-pages"])
    assert numbers == [fake_core.PAGE_TOKENS, len(prompt), 32]
    names = chain(prompt, node.core.submitted[-2].salt)
    assert found == {index: name for index, name in enumerate(names) if name % hashing.SAMPLE == 0}
    assert bool(node.last.salt) == bool(tenant)
    del headers["x-drift-want"]
    assert "x-drift-pages" not in http_calls.post(node.url, PATH, body, headers).headers


def test_a_prompt_of_less_than_a_page_has_none(node: api_node.ApiNode) -> None:
    reply = router({**COMPLETION, "prompt": [5] * 15}, PATH).ask(node.url)
    assert pages(reply.headers["x-drift-pages"]) == ([16, 15, 0], {})


def test_a_resumed_prompts_pages_are_the_prompts(node: api_node.ApiNode) -> None:
    body = {**COMPLETION, "prompt": list(range(3, 203))}
    first = router(body, PATH).ask(node.url)
    again = router(body, PATH).ask(node.url, drift_resume={**RESUME, "token_ids": [10, 11]})
    assert again.headers["x-drift-pages"] == first.headers["x-drift-pages"]


@given(st.integers(0, 20_000), st.integers(1, 64))
def test_long_prompts_have_some_of_their_pages_told(tokens: int, page_tokens: int) -> None:
    prompt = list(range(tokens))
    numbers, found = pages(page_hints.header(prompt, "s", page_tokens, 0).decode())
    sampled = [
        index
        for index, name in enumerate(hashing.names(prompt, "s", page_tokens))
        if name % hashing.SAMPLE == 0
    ]
    assert numbers == [page_tokens, tokens, 0]
    assert len(found) == min(len(sampled), page_hints.MAX_PAGES)
    assert list(found) == sorted(found)
    assert found.keys() <= set(sampled)
    assert list(found)[-1:] == sampled[-1:]
    if len(sampled) > page_hints.MAX_PAGES:
        steps = [sampled.index(index) for index in found]
        gaps = [after - before for before, after in itertools.pairwise(steps)]
        assert max(gaps) - min(gaps) <= 1


BYTE_LEVEL, PIECES = Tokenizer(small_tokenizers.byte_level()), Tokenizer(small_tokenizers.sentence_piece())


@given(
    data=st.data(),
    tokenizer=st.sampled_from([BYTE_LEVEL, PIECES]),
    stops=st.lists(st.text("the lo", min_size=1, max_size=3), max_size=2),
    min_tokens=st.sampled_from([0, 4]),
)
def test_what_follows_some_tokens_depends_on_no_border_between_them(
    data: st.DataObject, tokenizer: Tokenizer, stops: list[str], min_tokens: int
) -> None:
    """The text shown after any number of tokens is the same one by one and all at once."""
    token_ids = data.draw(st.lists(st.integers(0, tokenizer.size - 1), min_size=1, max_size=30))
    one_by_one = Choice(detokenizer(tokenizer), stops, min_tokens)
    shown = ""
    for count, token_id in enumerate(token_ids, 1):
        delta = one_by_one.feed(wire.Output("r", [token_id]))
        shown += delta.text
        at_once = Choice(detokenizer(tokenizer), stops, min_tokens).feed(wire.Output("r", token_ids[:count]))
        assert (at_once.text, at_once.finish) == (shown, delta.finish)
        if delta.finish:
            break


def test_events_without_tokens(node: api_node.ApiNode) -> None:
    sent = wire.KvEvents(1, [wire.Stored([11], None, list(range(16)), 16), wire.Removed([11])])
    node.call(lambda: node.core.send(sent))
    host, port = node.control_url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=20)
    connection.request("GET", "/kv/v1/events?after=0&tokens=false", headers=TOKEN)
    response = connection.getresponse()
    assert [json.loads(response.readline()) for _ in range(2)] == [
        {"sequence": 1, "type": "Stored", "block_hashes": [11], "parent_hash": None, "page_tokens": 16},
        {"sequence": 2, "type": "Removed", "block_hashes": [11]},
    ]
    connection.close()


def test_the_report_says_how_many_it_takes(node: api_node.ApiNode) -> None:
    raw = http_calls.get(node.control_url, "/control/v1/report", TOKEN).raw
    report = msgspec.json.decode(raw, type=wire.Report)
    options = node.context.options
    assert report.max_in_flight == options.max_running + options.max_waiting
    assert report.tbt_per_request_ms == 0.0
