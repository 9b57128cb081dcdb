"""A console on a real socket over services that a test makes, and a model API behind it that answers by rule."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

from aiohttp import ClientSession, ClientTimeout, web

import seen_services
from drift_operator.console.seen import ServiceSeen
from drift_operator.console.trails import POINTS, STEP_S
from drift_operator.doors import console
from drift_operator.doors.chatting import MAX_QUESTION_BYTES
from drift_operator.doors.console import Setting
from drift_operator.doors.feed import Feed
from seen_services import START_S, SeenServices

TOKEN = "a-token-of-the-console"
SETTING = Setting(TOKEN, hosts=("drift.example",))


class Bed:
    def __init__(self, *services: ServiceSeen, setting: Setting = SETTING) -> None:
        self.known = SeenServices(*services)
        self.setting = setting
        self.feed: Feed
        self.url = ""
        """Of the door; the page is at /console/."""
        self.session: ClientSession

    @contextlib.asynccontextmanager
    async def served(self, port: int = 0) -> AsyncIterator[None]:
        known = self.known
        self.feed = Feed(known, chat=self.setting.chat, clock=known.clock, wall_clock=known.wall_clock)
        app = web.Application(client_max_size=MAX_QUESTION_BYTES)
        console.mount(app, console.create_app(self.feed, self.setting))
        async with (
            serving(app, port) as self.url,
            ClientSession(timeout=ClientTimeout(total=20)) as self.session,
        ):
            yield

    async def get(self, path: str, **headers: str) -> tuple[int, Any]:
        async with self.session.get(self.url + path, headers=headers, allow_redirects=False) as answer:
            is_json = answer.content_type == "application/json"
            return answer.status, await answer.json() if is_json else await answer.text()

    async def ask(self, token: str = TOKEN, **changes: Any) -> tuple[int, str]:
        """A question of the page. `changes`: other fields of its body, or `headers`."""
        headers = {"authorization": f"Bearer {token}"} | changes.pop("headers", {})
        message = {"role": "user", "content": "What is Drift?"}
        body = {"namespace": "team-a", "name": "chat", "messages": [message]} | changes
        async with self.session.post(f"{self.url}/console/v1/chat", json=body, headers=headers) as answer:
            return answer.status, await answer.text()

    def play(self, *at: Callable[[float], ServiceSeen]) -> None:
        """A whole trail passes in no time."""
        for _ in range(POINTS + 1):
            self.known.services = [made(self.known.now_s) for made in at]
            self.feed.look()
            self.known.now_s += STEP_S
        self.known.now_s -= STEP_S


@contextlib.asynccontextmanager
async def serving(app: web.Application, port: int = 0) -> AsyncIterator[str]:
    """Its URL."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=5)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


class ModelApi:
    """Answers every chat with the same words, as a stream."""

    def __init__(self, *words: str) -> None:
        self.words = words or ("Drift serves ", "large language models ", "under latency promises.")
        self.asked: list[dict[str, Any]] = []
        self.authorization: list[str | None] = []
        self.pause: asyncio.Event | None = None
        """Waited for after the first word."""
        self.refusal: web.Response | None = None
        self.app = web.Application()
        self.app.add_routes([web.post("/v1/chat/completions", self._chat)])

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(await request.json())
        self.authorization.append(request.headers.get("authorization"))
        if self.refusal is not None:
            return self.refusal
        answer = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await answer.prepare(request)
        for place, word in enumerate(self.words):
            part = {"choices": [{"index": 0, "delta": {"content": word}}]}
            await answer.write(f"data: {json.dumps(part)}\n\n".encode())
            if place == 0 and self.pause is not None:
                await self.pause.wait()
        await answer.write(b"data: [DONE]\n\n")
        return answer


@contextlib.asynccontextmanager
async def bed_with_model(api: ModelApi, setting: Setting = SETTING) -> AsyncIterator[Bed]:
    """With one service, whose API it is."""
    async with serving(api.app) as url:
        bed = Bed(replace(seen_services.kept(START_S), chat_url=f"{url}/v1"), setting=setting)
        async with bed.served():
            yield bed
