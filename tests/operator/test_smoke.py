"""The question that `helm test` asks, over real sockets: a stand-in plays the API server and the service."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import test_utils, web
from kubernetes.aio import client

from drift_operator import smoke
from drift_operator.cluster.api import Api, ApiError
from drift_operator.errors import ClusterError

SPEC = {"model": {"uri": "embedded://drift-tiny"}}
READY = {"type": "Ready", "status": "True", "reason": "Serving", "message": ""}
ANSWER = {"choices": [{"message": {"role": "assistant", "content": "A server."}}]}


class StandIn:
    """Keeps services as they were made; `ripen` changes one at every look, `answers` come one after the other."""

    def __init__(self) -> None:
        self.services: dict[str, dict[str, Any]] = {}
        self.ripen: Callable[[dict[str, Any]], None] = ripe
        self.answers: list[tuple[int, Any]] = []
        self.questions: list[tuple[dict[str, Any], str | None]] = []
        self.url = ""

    async def create(self, request: web.Request) -> web.Response:
        made = await request.json()
        name = made["metadata"]["name"]
        if name in self.services:
            return status(409, "AlreadyExists")
        self.services[name] = made
        made["metadata"]["generation"] = 1
        return web.json_response(made, status=201)

    async def get(self, request: web.Request) -> web.Response:
        found = self.services.get(request.match_info["name"])
        if found is None:
            return status(404, "NotFound")
        self.ripen(found)
        return web.json_response(found)

    async def delete(self, request: web.Request) -> web.Response:
        return web.json_response(self.services.pop(request.match_info["name"]))

    async def chat(self, request: web.Request) -> web.Response:
        self.questions.append((await request.json(), request.headers.get("Authorization")))
        code, body = self.answers.pop(0) if self.answers else (200, ANSWER)
        return web.json_response(body, status=code)


def status(code: int, reason: str) -> web.Response:
    return web.json_response({"kind": "Status", "reason": reason, "code": code, "message": "no"}, status=code)


def ripe(service: dict[str, Any]) -> None:
    service["status"] = {"observedGeneration": 1, "conditions": [READY]}


def never(service: dict[str, Any]) -> None:
    service["status"] = {
        "observedGeneration": 1,
        "conditions": [{"type": "Ready", "status": "False", "reason": "Unschedulable", "message": "no GPU"}],
    }


@contextlib.asynccontextmanager
async def running() -> AsyncIterator[tuple[StandIn, Api]]:
    stand_in = StandIn()
    app = web.Application()
    root = "/apis/drift.ai/v1alpha1/namespaces/team/driftservices"
    app.router.add_post(root, stand_in.create)
    app.router.add_get(root + "/{name}", stand_in.get)
    app.router.add_delete(root + "/{name}", stand_in.delete)
    app.router.add_post("/v1/chat/completions", stand_in.chat)
    async with test_utils.TestServer(app) as server:
        stand_in.url = str(server.make_url("")).rstrip("/")
        cluster = Api(client.ApiClient(client.Configuration(host=stand_in.url)))
        try:
            yield stand_in, cluster
        finally:
            await cluster.close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smoke, "_LOOK_S", 0.01)


def asked(
    prepare: Callable[[StandIn], None] = lambda _: None,
    *,
    spec: dict[str, Any] | None = SPEC,
    api_key: str = "",
    deadline_s: float = 20,
) -> tuple[StandIn, str, list[str]]:
    """The stand-in afterwards, the answer or the error's text, and what was said on the way."""
    said: list[str] = []

    async def run() -> tuple[StandIn, str]:
        async with running() as (stand_in, cluster):
            prepare(stand_in)
            wish = smoke.Wish("team", "demo", spec, stand_in.url, api_key)
            try:
                return stand_in, await smoke.ask(cluster, wish, deadline_s, said.append)
            except (ClusterError, ApiError) as error:
                return stand_in, f"{type(error).__name__}: {error}"

    stand_in, outcome = asyncio.run(run())
    return stand_in, outcome, said


def existing(stand_in: StandIn) -> None:
    stand_in.services["demo"] = {
        "metadata": {"name": "demo", "namespace": "team", "generation": 2},
        "spec": {"model": {"uri": "hf://a/b", "name": "b"}},
    }
    stand_in.ripen = lambda service: service.update(status={"observedGeneration": 2, "conditions": [READY]})


def test_service_is_made_asked_and_deleted() -> None:
    stand_in, answer, _ = asked()
    assert answer == "A server."
    assert stand_in.services == {}
    ((question, key),) = stand_in.questions
    assert (question["model"], key) == ("demo", None)


def test_service_that_is_there_is_asked_by_its_model_s_name_and_stays() -> None:
    stand_in, answer, _ = asked(existing, spec=None, api_key="secret")
    assert answer == "A server."
    assert list(stand_in.services) == ["demo"]
    ((question, key),) = stand_in.questions
    assert (question["model"], key) == ("b", "Bearer secret")


def test_service_that_an_earlier_run_left_behind_will_do() -> None:
    stand_in, answer, _ = asked(existing)
    assert answer == "A server."
    assert stand_in.services == {}


def test_service_that_is_not_there_is_told() -> None:
    _, outcome, _ = asked(spec=None)
    assert outcome.startswith("NotFoundError")


def test_deadline_tells_what_was_waited_for_and_cleans_up() -> None:
    stand_in, outcome, said = asked(lambda stand_in: setattr(stand_in, "ripen", never), deadline_s=0.3)
    assert outcome == "ClusterError: no answer after 0.3 s: not ready: Unschedulable: no GPU"
    assert said == ["not ready: Unschedulable: no GPU"]
    assert stand_in.services == {}


def test_busy_service_is_asked_again() -> None:
    busy = [(503, {"error": {"message": "loading"}}), (429, {})]
    stand_in, answer, said = asked(lambda stand_in: stand_in.answers.extend(busy))
    assert answer == "A server."
    assert [line.split(": ")[0].rsplit(" ", 1)[1] for line in said] == ["503", "429"]
    assert len(stand_in.questions) == 3


def test_refusal_is_told_at_once() -> None:
    no_key = {"error": {"message": "no API key"}}
    stand_in, outcome, _ = asked(lambda stand_in: stand_in.answers.append((401, no_key)))
    assert "refused: 401" in outcome
    assert "no API key" in outcome
    assert stand_in.services == {}


@pytest.mark.parametrize("body", [{}, {"choices": []}, {"choices": [{"message": {"content": " "}}]}, [1]])
def test_answer_without_words_is_none(body: Any) -> None:
    _, outcome, _ = asked(lambda stand_in: stand_in.answers.append((200, body)))
    assert outcome == f"ClusterError: the answer has no words: {json.dumps(body)}"


@pytest.mark.parametrize(
    ("state", "why"),
    [
        ({}, "the operator has not looked at it yet"),
        ({"observedGeneration": 1, "conditions": [READY]}, "the operator has not looked at it yet"),
        ({"observedGeneration": 2, "conditions": []}, "not ready: the operator has not said so"),
        ({"observedGeneration": 2, "conditions": [READY]}, None),
    ],
)
def test_ready_is_of_the_present_spec(state: dict[str, Any], why: str | None) -> None:
    assert smoke.unready({"metadata": {"generation": 2}, "status": state}) == why


def test_address_is_that_of_the_client_service() -> None:
    service = {
        "metadata": {"name": "demo", "namespace": "team"},
        "spec": {"expose": {"service": {"port": 8080}}},
    }
    assert smoke.address(service) == "http://demo.team.svc:8080"
