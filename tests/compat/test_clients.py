"""LangChain, LiteLLM and OpenAI's JavaScript client before a router and two nodes: unchanged, with their own errors.

Each makes all its calls once, in an environment of its own; the tests look at what it says came of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import foreign_clients
import http_calls
import keyed_service
import real_node
from foreign_clients import Told
from keyed_service import Service

# The first one may have to install what it starts.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

QUESTION = "What is Drift?"
ANSWER: dict[str, Any] = {"temperature": 0, "max_tokens": 40, "ignore_eos": True}
LONG_TOKENS = 1900

CLIENTS: dict[str, Callable[[dict[str, Any]], Told]] = {
    "langchain": lambda asked: foreign_clients.python("langchain_calls.py", asked),
    "litellm": lambda asked: foreign_clients.python("litellm_calls.py", asked),
    "openai_js": foreign_clients.javascript,
}


@pytest.fixture(scope="module")
def service(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service") / "whole"
    with keyed_service.started(folder, model, list(CLIENTS)) as running:
        yield running


@pytest.fixture(scope="module", params=CLIENTS)
def client(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def told(client: str, service: Service) -> Told:
    return CLIENTS[client](service.asked(client, long=LONG_TOKENS))


def ask(service: Service, path: str, **fields: Any) -> Any:
    """The same without a client's library."""
    body = {"model": service.nodes[0].model, **ANSWER, **fields}
    reply = http_calls.post(service.router.url, path, body, {"authorization": f"Bearer {keyed_service.KEY}"})
    assert reply.status == 200, reply.raw
    return reply.json


@pytest.fixture(scope="module")
def expected(service: Service) -> dict[str, Any]:
    answer = ask(service, "/v1/chat/completions", messages=[{"role": "user", "content": QUESTION}])
    (choice,), usage = answer["choices"], answer["usage"]
    return {
        "text": choice["message"]["content"],
        "finish_reason": "length",
        "usage": {
            "input_tokens": usage["prompt_tokens"],
            "output_tokens": 40,
            "total_tokens": usage["prompt_tokens"] + 40,
        },
    }


def test_answers_come_whole_and_in_pieces(told: Told, expected: dict[str, Any]) -> None:
    for answers in [told, *([told["async"]] if "async" in told else [])]:
        for found in (answers["whole"], answers["stream"]):
            usage = {name: found["usage"][name] for name in expected["usage"]}  # a library may say more of it
            assert {**{name: found[name] for name in expected}, "usage": usage} == expected
        assert answers["stream"]["pieces"] > 10


def test_answers_that_belong_to_one_client_only(
    client: str, told: Told, service: Service, expected: dict[str, Any]
) -> None:
    text = expected["text"]
    match client:
        case "langchain":
            assert told["batch"] == [text] * 3
        case "openai_js":
            assert told["models"] == [service.nodes[0].model]
            assert told["stream helper"] == {"text": text, "deltas": text}


def test_a_required_tool_is_called_and_its_result_goes_back(told: Told, expected: dict[str, Any]) -> None:
    found = told["tool"]
    assert found["name"] == "weather", found
    assert set(found["args"]) >= {"city", "hourly"}, "LangChain's schema allows others"
    assert found["args"]["city"] in ("Paris", "Rome")
    assert found["after"]["usage"]["input_tokens"] > expected["usage"]["input_tokens"]


def test_structured_output_has_its_schema(told: Told) -> None:
    methods = ["json_schema"] + ["function_calling"] * ("function_calling" in told)  # LangChain has two ways
    for found in (told[method] for method in methods):
        assert set(found) == {"city", "hourly"}, found
        assert found["city"] in ("Paris", "Rome")
        assert isinstance(found["hourly"], bool)


def test_texts_are_completed(told: Told, service: Service) -> None:
    expected = ask(service, "/v1/completions", prompt=QUESTION)["choices"][0]["text"]
    assert told["completion"] == told["completion stream"] == expected


ERRORS = {
    "another model": ("NotFoundError", 404, "another"),
    "too long": ("BadRequestError", 400, "2048"),
    "bad field": ("BadRequestError", 400, "top_p"),
    "wrong key": ("AuthenticationError", 401, "key"),
    "limited": ("RateLimitError", 429, "rate limit"),
    "embeddings": ("NotFoundError", 404, "/v1/embeddings"),
}


@pytest.mark.parametrize("call", ERRORS)
def test_errors_are_the_clients_own(client: str, told: Told, call: str) -> None:
    kind, status, words = ERRORS[call]
    if (client, call) == ("litellm", "embeddings"):
        kind = "BadRequestError"  # what LiteLLM calls any path that is not served, OpenAI's, too
    found = told[call]
    assert kind in found["raised"], found
    assert found["status"] == status
    assert words in found["message"]


TOO_LONG = {
    "langchain": "OpenAIContextOverflowError",
    "litellm": "ContextWindowExceededError",
    "openai_js": "BadRequestError",
}


def test_a_prompt_that_is_too_long_is_known_as_such(client: str, told: Told) -> None:
    """LangChain and LiteLLM have an exception for it, which callers shorten their prompt on."""
    assert TOO_LONG[client] in told["too long"]["raised"], told["too long"]


def test_javascript_is_told_when_to_come_again(service: Service) -> None:
    told = foreign_clients.javascript(service.asked("openai_js", only=["limited"]))
    assert int(told["limited"]["retry_after"]) > 1


def test_an_aborted_stream_stops_its_generation(service: Service) -> None:
    before = service.generated_tokens()
    told = foreign_clients.javascript(service.asked("openai_js", only=["abort"], long=LONG_TOKENS))
    assert 3 <= told["abort"]["pieces"] < LONG_TOKENS
    real_node.until(service.settled, "the nodes to hold nothing")
    assert service.generated_tokens() - before < LONG_TOKENS
