"""An OpenAI-compatible server without a model, for tests of what sends it load: scripted answers, honest counters.

Its tokenizer: a BOS token, then one token per word, two per word of more than four letters with their space.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Self

from aiohttp import web

CONTEXT_TOKENS = 4096


def count_tokens(text: str) -> int:
    return 1 + sum(1 if len(word) <= 4 else 2 for word in text.split())


class LogicalClock:
    """Time that moves only when somebody waits for it or moves it."""

    def __init__(self) -> None:
        self.time_s = 1000.0  # not 0: nobody may take its start for granted
        self._looked_at = asyncio.Event()

    def now_s(self) -> float:
        self._looked_at.set()
        return self.time_s

    async def sleep_until(self, time_s: float) -> None:
        await asyncio.sleep(0)  # what is due now starts now
        self.time_s = max(self.time_s, time_s)

    @contextlib.asynccontextmanager
    async def later(self, after_s: float) -> AsyncIterator[None]:
        """What happens inside happens `after_s` later, and has been noticed when the block ends."""
        self.time_s += after_s
        self._looked_at.clear()
        yield
        async with asyncio.timeout(10):
            await self._looked_at.wait()


class Stream:
    """One request being answered."""

    def __init__(self, server: StandInApi, body: dict[str, Any], chat: bool, http: web.Request) -> None:
        self.body = body
        self.chat = chat
        self.prompt: str = body["messages"][0]["content"] if chat else body["prompt"]
        self.max_tokens: int = body["max_completion_tokens" if chat else "max_tokens"]
        self._server = server
        self._http = http
        self.response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        self.sent_tokens = 0

    async def open(self) -> None:
        await self.response.prepare(self._http)

    async def raw(self, data: bytes) -> None:
        await self.response.write(data)

    async def event(self, chunk: dict[str, Any]) -> None:
        await self.raw(b"data: " + json.dumps(chunk).encode() + b"\n\n")

    async def tokens(self, count: int = 1, **fields: Any) -> None:
        """One chunk of `count` tokens."""
        self.sent_tokens += count
        text = " tok" * count
        choice = {
            "index": 0,
            "finish_reason": None,
            **({"delta": {"content": text}} if self.chat else {"text": text}),
        }
        await self.event({"choices": [{**choice, **fields}]})

    async def finish(self, output_tokens: int | None = None) -> None:
        """Last chunk, usage and [DONE]; takes the counters along."""
        produced = self.sent_tokens if output_tokens is None else output_tokens
        prompt_tokens = count_tokens(self.prompt)
        self._server.count(prompt_tokens, produced)
        usage = {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": produced,
            "prompt_tokens_details": {"cached_tokens": 1},
        }
        await self.event({"choices": [{"index": 0, "text": "", "finish_reason": "length"}]})
        await self.event({"choices": [], "usage": usage})
        await self.raw(b"data: [DONE]\n\n")


Script = Callable[[Stream], Awaitable[web.StreamResponse | None]]


async def answer_in_full(stream: Stream) -> None:
    await stream.open()
    for _ in range(stream.max_tokens):
        await stream.tokens()
    await stream.finish()


class StandInApi:
    """Serves on a free port of this machine; `script` answers the generating endpoints."""

    def __init__(
        self,
        script: Script = answer_in_full,
        *,
        owned_by: str = "drift",
        tokenize: bool = True,
        mode: str | None = None,
        context_tokens: int = CONTEXT_TOKENS,
    ) -> None:
        """`mode`: told with the model, as through a router, which has no metrics for its clients."""
        self._script = script
        self._owned_by = owned_by
        self._mode = mode
        self._context_tokens = context_tokens
        self.received: list[Stream] = []
        self.tokenize_questions = 0
        self.requests_total = self.prompt_total = self.generation_total = 0
        self.url = ""
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_get("/v1/models", self._models)
        if mode is None:
            app.router.add_get("/metrics", self._metrics)
        app.router.add_post("/v1/completions", self._complete)
        app.router.add_post("/v1/chat/completions", self._complete)
        if tokenize:
            app.router.add_post("/tokenize", self._tokenize)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    def count(self, prompt_tokens: int, output_tokens: int) -> None:
        self.requests_total += 1
        self.prompt_total += prompt_tokens
        self.generation_total += output_tokens

    async def _models(self, _: web.Request) -> web.Response:
        model: dict[str, Any] = {
            "id": "stand-in",
            "owned_by": self._owned_by,
            "max_model_len": self._context_tokens,
        }
        if self._mode is not None:
            model["mode"] = self._mode
        return web.json_response({"object": "list", "data": [model]})

    async def _tokenize(self, request: web.Request) -> web.Response:
        self.tokenize_questions += 1
        body = await request.json()
        text = body["messages"][0]["content"] if "messages" in body else body["prompt"]
        return web.json_response({"count": count_tokens(text)})

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(
            text="# TYPE vllm:request_success_total counter\n"
            f'vllm:request_success_total{{finished_reason="length"}} {self.requests_total}.0\n'
            'vllm:request_success_total{finished_reason="cancelled"} 7.0\n'
            f'vllm:prompt_tokens_total{{model_name="a b\\"c"}} {self.prompt_total}.0\n'
            f"vllm:generation_tokens_total {self.generation_total}.0 1700000000000\n"
            'drift_node_info{node="node-0",mode="fused"} 1.0\n'
        )

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        stream = Stream(self, await request.json(), "chat" in request.path, request)
        self.received.append(stream)
        return await self._script(stream) or stream.response


@contextlib.contextmanager
def in_thread(api: StandInApi) -> Iterator[StandInApi]:
    """Serves from a thread of its own, for code that runs its own event loop."""
    up = threading.Event()
    ends: list[Callable[[], object]] = []

    async def serve() -> None:
        done = asyncio.Event()
        loop = asyncio.get_running_loop()
        ends.append(lambda: loop.call_soon_threadsafe(done.set))
        async with api:
            up.set()
            await done.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert up.wait(10), "the stand-in did not start"
        yield api
    finally:
        ends[0]()
        thread.join(10)
