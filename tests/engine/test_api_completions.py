"""/v1/completions through the official client, against a scripted core."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import openai
import pytest

import api_node
import fake_core

TEXT = fake_core.ANSWER


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


def test_text_prompt(node: api_node.ApiNode, client: openai.OpenAI) -> None:
    node.answer(TEXT, cached_tokens=1)
    answer = client.completions.create(model="small", prompt="the lazy", max_tokens=100)
    choice = answer.choices[0]
    assert (choice.text, choice.finish_reason, choice.index) == (TEXT, "stop", 0)
    assert node.last.token_ids == node.core.text("the lazy")
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len(node.last.token_ids)
    assert answer.usage.completion_tokens == len(node.core.text(TEXT)) + 1  # and its end-of-sequence token
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == 1


def test_sixteen_tokens_unless_asked(node: api_node.ApiNode, client: openai.OpenAI) -> None:
    node.answer(TEXT * 4)
    answer = client.completions.create(model="small", prompt="the")
    assert answer.usage is not None
    assert (answer.usage.completion_tokens, answer.choices[0].finish_reason) == (16, "length")


def test_many_prompts_of_each_kind(node: api_node.ApiNode, client: openai.OpenAI) -> None:
    node.reply(lambda submit: fake_core.Script(list(submit.token_ids)))
    texts = ["the lazy", "über 你好 🙂"]
    ids = [node.core.text(text) for text in texts]
    for prompt in (texts, ids):
        answer = client.completions.create(model="small", prompt=prompt, max_tokens=40)
        assert [(choice.index, choice.text) for choice in answer.choices] == list(enumerate(texts))
        assert answer.usage is not None
        assert answer.usage.prompt_tokens == sum(map(len, ids))
    alone = client.completions.create(model="small", prompt=ids[1], max_tokens=40)
    assert [choice.text for choice in alone.choices] == [texts[1]]


def test_choices_share_the_prompt_and_differ_by_seed(node: api_node.ApiNode, client: openai.OpenAI) -> None:
    answer = client.completions.create(model="small", prompt="the", n=3, seed=7, max_tokens=3)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    submits = node.core.submitted[-3:]
    assert [submit.sampling.seed for submit in submits] == [7, 8, 9]
    assert len({tuple(submit.token_ids) for submit in submits}) == 1
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (len(submits[0].token_ids), 9)


def test_a_seed_is_drawn_where_none_is_given(node: api_node.ApiNode, client: openai.OpenAI) -> None:
    for _ in range(2):
        client.completions.create(model="small", prompt="the", max_tokens=1)
    assert node.core.submitted[-1].sampling.seed != node.core.submitted[-2].sampling.seed


def test_stream_is_the_same_text(node: api_node.ApiNode, client: openai.OpenAI) -> None:
    node.answer(TEXT, cached_tokens=1)
    chunks = list(
        client.completions.create(
            model="small",
            prompt="the",
            max_tokens=100,
            stream=True,
            stream_options={"include_usage": True},
            n=2,
        )
    )
    for index in range(2):
        choices = [choice for chunk in chunks for choice in chunk.choices if choice.index == index]
        assert "".join(choice.text for choice in choices) == TEXT
        assert [choice.finish_reason for choice in choices][-1] == "stop"
        assert not any("\ufffd" in choice.text for choice in choices)
    usage = chunks[-1].usage
    assert usage is not None
    assert not chunks[-1].choices
    assert usage.completion_tokens == 2 * (len(node.core.text(TEXT)) + 1)
    assert usage.prompt_tokens_details is not None
    assert usage.prompt_tokens_details.cached_tokens == 1
    assert len({chunk.id for chunk in chunks}) == 1


@pytest.mark.parametrize("stop", ["lazy", ["nothing", " the la", "lazy d"], "t! 你", "🙂"])
@pytest.mark.parametrize("stream", [False, True])
def test_stop_strings_across_tokens(
    node: api_node.ApiNode, client: openai.OpenAI, stop: str | list[str], stream: bool
) -> None:
    node.answer(TEXT)
    found = min(
        TEXT.find(each) + len(each) for each in ([stop] if isinstance(stop, str) else stop) if each in TEXT
    )
    first = max(
        (each for each in ([stop] if isinstance(stop, str) else stop) if TEXT[:found].endswith(each)), key=len
    )
    expected = TEXT[: found - len(first)]
    if stream:
        chunks = client.completions.create(
            model="small", prompt="the", max_tokens=100, stop=stop, stream=True
        )
        choices = [chunk.choices[0] for chunk in chunks]
        text, finish = "".join(choice.text for choice in choices), choices[-1].finish_reason
    else:
        choice = client.completions.create(model="small", prompt="the", max_tokens=100, stop=stop).choices[0]
        text, finish = choice.text, choice.finish_reason
    assert (text, finish) == (expected, "stop")
    request_id = node.last.request_id
    node.until(lambda: request_id in node.core.cancelled or request_id not in node.core.running)


def test_min_tokens_comes_before_stop_strings(node: api_node.ApiNode, client: openai.OpenAI) -> None:
    node.answer("the lazy dog the lazy dog")
    first = len(node.core.text("the lazy dog"))
    answer = client.completions.create(
        model="small", prompt="x", max_tokens=50, stop=["dog"], extra_body={"min_tokens": first + 1}
    )
    assert answer.choices[0].text == "the lazy dog the lazy "
    assert node.last.sampling.min_tokens == first + 1


def test_a_stop_token_is_counted_and_not_shown(node: api_node.ApiNode, client: openai.OpenAI) -> None:
    tokens = node.core.text("the lazy dog")
    node.answer("the lazy dog")
    answer = client.completions.create(
        model="small",
        prompt="x",
        max_tokens=50,
        extra_body={"stop_token_ids": [tokens[-1]], "ignore_eos": True},
    )
    assert answer.usage is not None
    assert answer.usage.completion_tokens == len(tokens)
    assert answer.choices[0].text == "".join(map(node.core.tokenizer.decode, [tokens[:-1]]))
    assert node.last.sampling.stop_token_ids == (tokens[-1],)
    assert node.last.sampling.ignore_eos


def test_logprobs(node: api_node.ApiNode, client: openai.OpenAI) -> None:
    node.answer("the dog")
    answer = client.completions.create(model="small", prompt="x", max_tokens=50, logprobs=2)
    found = answer.choices[0].logprobs
    assert found is not None
    assert found.tokens is not None
    assert "".join(found.tokens[:-1]) == answer.choices[0].text == "the dog"
    assert found.token_logprobs == [-0.5] * len(found.tokens)
    assert found.text_offset is not None
    assert found.text_offset[:2] == [0, len(found.tokens[0])]
    assert found.top_logprobs is not None
    assert all(len(likeliest) >= 2 for likeliest in found.top_logprobs[:-1])
    assert node.last.sampling.logprobs == 2


def test_echo(node: api_node.ApiNode, client: openai.OpenAI) -> None:
    node.answer(" dog")
    answer = client.completions.create(model="small", prompt="the lazy", max_tokens=50, echo=True)
    assert answer.choices[0].text == "the lazy dog"
    chunks = client.completions.create(
        model="small", prompt=node.core.text("the lazy"), max_tokens=50, echo=True, stream=True
    )
    assert "".join(chunk.choices[0].text for chunk in chunks) == "the lazy dog"


@pytest.mark.parametrize(("asked", "meant"), [(0, 0), (1e-9, 0), (1e-5, 1e-5), (2, 2)])
def test_a_temperature_next_to_zero_is_greedy(
    node: api_node.ApiNode, client: openai.OpenAI, asked: float, meant: float
) -> None:
    client.completions.create(model="small", prompt="x", max_tokens=1, temperature=asked)
    assert node.last.sampling.temperature == meant


def test_sampling_fields_reach_the_core(node: api_node.ApiNode, client: openai.OpenAI) -> None:
    client.completions.create(
        model="small",
        prompt="x",
        max_tokens=5,
        temperature=0.5,
        top_p=0.9,
        presence_penalty=0.1,
        frequency_penalty=-0.2,
        seed=-1,
        logit_bias={"5": -100, "7": 3},
        user="somebody",
        extra_body={"top_k": 4, "min_p": 0.05, "repetition_penalty": 1.1},
    )
    sampling = node.last.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p) == (0.5, 0.9, 4, 0.05)
    assert (sampling.presence_penalty, sampling.frequency_penalty) == (0.1, -0.2)
    assert sampling.repetition_penalty == 1.1
    assert sampling.logit_bias == {5: -100.0, 7: 3.0}
    assert 0 <= sampling.seed < 2**63


def test_async_clients_run_side_by_side(node: api_node.ApiNode) -> None:
    node.reply(lambda submit: fake_core.Script(list(submit.token_ids)))

    async def ask(client: openai.AsyncOpenAI, text: str) -> str:
        stream = await client.completions.create(model="small", prompt=text, max_tokens=100, stream=True)
        return "".join([chunk.choices[0].text async for chunk in stream])

    async def ask_all(texts: list[str]) -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{node.url}/v1", api_key="any", max_retries=0) as client:
            return await asyncio.gather(*(ask(client, text) for text in texts))

    texts = [f"the dog {number} 你好" for number in range(20)]
    assert asyncio.run(ask_all(texts)) == texts
