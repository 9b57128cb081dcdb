"""`python -m drift_operator.smoke`: one service answers one question. `helm test` runs it inside the cluster.

Waits until a DriftService is Ready, asks it for a chat completion the way its clients do, and prints the answer. With
`--spec` it makes the service first and deletes it in the end, whatever happens. Exit status 0 answered, 1 not.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
from kubernetes.aio import config

from drift_engine import logs
from drift_operator import driftservice
from drift_operator.cluster import api, kinds
from drift_operator.cluster.api import Api, ApiError, ConflictError
from drift_operator.errors import ClusterError, OperatorError
from drift_operator.objects import names

KEY_VARIABLE = "DRIFT_API_KEY"
"""Where an API key is found, if the service wants one: every process of a machine can read a command line."""

QUESTION = "What is Drift?"
ANSWER_TOKENS = 32
DEADLINE_S = 300.0
_LOOK_S = 1.0
_ANSWER_S = 30.0
_REFUSALS = frozenset({400, 401, 403, 404, 422})
"""Answers that stay what they are, however often one asks."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Wish:
    """Which service is asked, and where."""

    namespace: str
    service: str
    spec: dict[str, Any] | None = None
    """Of the service to make; None: it is there."""
    url: str | None = None
    """None: its Service, as pods of the cluster know it."""
    api_key: str = ""


async def ask(cluster: Api, wish: Wish, deadline_s: float, say: Say) -> str:
    """The answer. Raises ClusterError or ApiError that says why there is none."""
    place = [f"nothing is known of {wish.namespace}/{wish.service}"]

    def tell(what: str) -> None:
        if place[0] != what:
            place[0] = what
            say(what)

    try:
        async with asyncio.timeout(deadline_s), _made(cluster, wish):
            service = await _ready(cluster, wish, tell)
            return await _answer(wish, service, tell)
    except TimeoutError:
        raise ClusterError(f"no answer after {deadline_s:g} s: {place[0]}") from None


@contextlib.asynccontextmanager
async def _made(cluster: Api, wish: Wish) -> AsyncIterator[None]:
    """The service is there for as long as it is needed; one that an earlier run left behind will do."""
    if wish.spec is None:
        yield
        return
    document = {
        "apiVersion": driftservice.API_VERSION,
        "kind": driftservice.KIND,
        "metadata": {"name": wish.service, "namespace": wish.namespace},
        "spec": wish.spec,
    }
    with contextlib.suppress(ConflictError):
        await cluster.create(kinds.DRIFT_SERVICE, document)
    try:
        yield
    finally:
        await cluster.delete(kinds.DRIFT_SERVICE, wish.namespace, wish.service)


async def _ready(cluster: Api, wish: Wish, tell: Say) -> api.Object:
    while True:
        try:
            service = await cluster.get(kinds.DRIFT_SERVICE, wish.namespace, wish.service)
        except ApiError as error:
            if error.status in _REFUSALS:
                raise
            tell(str(error))
        else:
            reason = unready(service)
            if reason is None:
                return service
            tell(reason)
        await asyncio.sleep(_LOOK_S)


def unready(service: api.Object) -> str | None:
    """Why a DriftService can't be asked yet; None: it can."""
    status = service.get("status") or {}
    if status.get("observedGeneration", 0) < service["metadata"].get("generation", 1):
        return "the operator has not looked at it yet"
    for condition in status.get("conditions") or ():
        if condition["type"] == "Ready":
            if condition["status"] == "True":
                return None
            return f"not ready: {condition.get('reason', '')}: {condition.get('message', '')}"
    return "not ready: the operator has not said so"


def address(service: api.Object) -> str:
    """Where a cluster's pods reach a service."""
    meta, exposed = service["metadata"], service["spec"].get("expose", {}).get("service", {})
    return f"http://{names.client_service(meta['name'])}.{meta['namespace']}.svc:{exposed.get('port', 80)}"


async def _answer(wish: Wish, service: api.Object, tell: Say) -> str:
    """Asks again where the way there is not ready yet: names and addresses take a moment to spread."""
    url = (wish.url or address(service)).rstrip("/") + "/v1/chat/completions"
    question = {
        "model": service["spec"]["model"].get("name") or service["metadata"]["name"],
        "messages": [{"role": "user", "content": QUESTION}],
        "max_tokens": ANSWER_TOKENS,
        "temperature": 0,
    }
    headers = {"Authorization": f"Bearer {wish.api_key}"} if wish.api_key else {}
    async with aiohttp.ClientSession(
        headers=headers, timeout=aiohttp.ClientTimeout(total=_ANSWER_S)
    ) as session:
        while True:
            try:
                async with session.post(url, json=question) as response:
                    text = await response.text()
                if response.status == 200:
                    return _content(text)
                if response.status in _REFUSALS:
                    raise ClusterError(f"{url} refused: {response.status} {text[:500]}")
                tell(f"{url} answers {response.status}: {text[:200]}")
            except (aiohttp.ClientError, TimeoutError) as error:
                tell(f"{url} can't be reached: {error or 'no answer'}")
            await asyncio.sleep(_LOOK_S)


def _content(text: str) -> str:
    try:
        content = json.loads(text)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError):
        content = None
    if not isinstance(content, str) or not content.strip():
        raise ClusterError(f"the answer has no words: {text[:500]}")
    return content


async def _run(wish: Wish, deadline_s: float) -> str:
    cluster = Api(await api.connect())
    try:
        return await ask(cluster, wish, deadline_s, say=lambda what: print(what, flush=True))
    finally:
        await cluster.close()


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="drift_operator.smoke", description="Asks one service one question."
    )
    parser.add_argument("--namespace", required=True)
    parser.add_argument("--service", required=True, metavar="NAME")
    parser.add_argument(
        "--spec", type=json.loads, metavar="JSON", help="make this DriftService, then delete it"
    )
    parser.add_argument("--url", help="where the service answers; default: its Service inside the cluster")
    parser.add_argument("--deadline-s", type=float, default=DEADLINE_S, metavar="S")
    asked = parser.parse_args()
    wish = Wish(asked.namespace, asked.service, asked.spec, asked.url, os.environ.get(KEY_VARIABLE, ""))
    try:
        answer = asyncio.run(_run(wish, asked.deadline_s))
    except (OperatorError, config.ConfigException) as error:
        logs.complain(str(error))
        return 1
    print(f"{QUESTION}\n{answer}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
