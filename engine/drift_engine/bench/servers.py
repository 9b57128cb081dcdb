"""What a run asks of the server besides answers: its model and limits, token counts, its own counters."""

from __future__ import annotations

import asyncio
import re
from typing import Any, Self

import aiohttp
import msgspec

from drift_engine import wire
from drift_engine.bench.answers import error_message
from drift_engine.errors import EngineError

ASK_TIMEOUT_S = 30.0
"""For these small questions; a loaded server may take a while to count a long text."""
CONNECT_TIMEOUT_S = 10.0
KEEPALIVE_S = 2.0
"""Below the 5 s after which uvicorn closes an idle connection: a request must not meet a closing one."""
FORCING_SERVERS = ("drift", "vllm", "sglang")
"""`owned_by` of servers that understand `ignore_eos`."""
COUNTING_SERVERS = ("vllm", "sglang")
"""Those that can say with every chunk how many tokens there are so far."""


class ServerError(EngineError):
    """The server can't be measured: it does not answer, refuses the key, or serves another model."""


class Model(msgspec.Struct, frozen=True):
    """One entry of `/v1/models`."""

    id: str
    owned_by: str = ""
    max_model_len: int | None = None
    mode: str | None = None
    """How a Drift node shares its device; through a router that of the node which answered."""


class _Models(msgspec.Struct):
    data: list[Model]


class _Tokenized(msgspec.Struct):
    count: int


class Server:
    """An OpenAI-compatible server. Use as an async context manager; it owns the connections."""

    def __init__(self, url: str, api_key: str | None = None, metrics_url: str | None = None) -> None:
        """`url` with or without `/v1`. Raises ValueError for what is no URL."""
        base = url.rstrip("/").removesuffix("/v1")
        if not re.match(r"https?://[^/\s]+", base):
            raise ValueError(f"url: {url!r} does not start with http:// or https:// and a host")
        self.url = base
        self._metrics_url = metrics_url or f"{base}/metrics"
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            headers=self._headers,
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.session.close()

    @property
    def session(self) -> aiohttp.ClientSession:
        assert self._session is not None, "entered"
        return self._session

    async def model(self, name: str | None) -> Model:
        """The model called `name`, or the first one served. Raises ServerError."""
        status, body = await self._ask("GET", f"{self.url}/v1/models")
        if status != 200:
            raise ServerError(f"{self.url}/v1/models: http {status}: {failure_message(body)}")
        try:
            models = msgspec.json.decode(body, type=_Models).data
        except wire.UNREADABLE as error:
            raise ServerError(f"{self.url}/v1/models: is not an OpenAI-compatible answer: {error}") from error
        if not models:
            raise ServerError(f"{self.url}: serves no model")
        for model in models:
            if name in (None, model.id):
                return model
        served = ", ".join(model.id for model in models)
        raise ServerError(f"{self.url}: model {name!r} is not served, only {served}")

    async def count_tokens(self, model: str, text: str) -> int | None:
        """Tokens of a text as a prompt, added special tokens included; None if the server can't tell."""
        return await self._tokenize({"model": model, "prompt": text})

    async def count_chat_tokens(self, model: str, text: str) -> int | None:
        """Tokens of a text as the only message of a chat, template included; None if the server can't tell."""
        return await self._tokenize({"model": model, "messages": [{"role": "user", "content": text}]})

    async def metrics(self) -> str | None:
        """Prometheus text, or None where there is none."""
        try:
            status, body = await self._ask("GET", self._metrics_url)
        except ServerError:
            return None
        return body.decode(errors="replace") if status == 200 else None

    async def _tokenize(self, question: dict[str, Any]) -> int | None:
        try:
            status, body = await self._ask("POST", f"{self.url}/tokenize", question)
            return msgspec.json.decode(body, type=_Tokenized).count if status == 200 else None
        except (ServerError, *wire.UNREADABLE):
            return None

    async def _ask(self, method: str, url: str, question: dict[str, Any] | None = None) -> tuple[int, bytes]:
        try:
            async with asyncio.timeout(ASK_TIMEOUT_S):
                async with self.session.request(method, url, json=question) as answer:
                    return answer.status, await answer.read()
        except TimeoutError as error:
            raise ServerError(f"{url}: no answer within {ASK_TIMEOUT_S:.0f} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise ServerError(f"{url}: {error}") from error


def failure_message(body: bytes) -> str:
    """What an error answer says, on one short line."""
    try:
        parsed = msgspec.json.decode(body)
    except wire.UNREADABLE:
        parsed = body.decode(errors="replace")
    if isinstance(parsed, dict):
        parsed = parsed.get("error", parsed.get("detail", parsed))
    return error_message(parsed)
