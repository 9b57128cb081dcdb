"""A client of the service, as patient as the official ones: what it asked, what came of it, in how many attempts."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp

from drift_engine.bench.sse import EventTooLong, SseParser

ATTEMPTS = 3
"""As the official clients: the first, and two more where nobody answered or the server said that it could not."""
PAUSE_S = 0.5
"""Before the second attempt, twice before the third; more where the server says so."""
MOST_PAUSE_S = 8.0
SILENCE_S = 60.0
"""Without a byte: given up, and asked again."""
TRY_AGAIN = (408, 409, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Answer:
    text: str
    finish_reason: str | None
    tokens: int | None


@dataclass(frozen=True)
class Asked:
    """`troubles` has one entry for each attempt that failed: "refused: ..." before the first byte of an answer,
    "broken: ..." after it."""

    answer: Answer | None
    troubles: tuple[str, ...]
    ttft_s: float | None
    """Of the attempt that succeeded."""
    seconds: float


class RefusedError(Exception):
    def __init__(self, why: str, after_s: float | None = None, *, final: bool = False) -> None:
        super().__init__(why)
        self.after_s = after_s
        self.final = final


class BrokenError(Exception):
    """An answer that began and did not end."""


class Client:
    def __init__(self, session: aiohttp.ClientSession, url: str, headers: Mapping[str, str]) -> None:
        self._session = session
        self._url = f"{url}/v1/completions"
        self._headers = {**headers, "content-type": "application/json"}

    async def ask(self, body: bytes) -> Asked:
        troubles: list[str] = []
        began_s = time.monotonic()
        for attempt in range(ATTEMPTS):
            pause_s = PAUSE_S * 2**attempt
            try:
                answer, ttft_s = await self._attempt(body)
                return Asked(answer, tuple(troubles), ttft_s, time.monotonic() - began_s)
            except BrokenError as error:
                troubles.append(f"broken: {error}")
            except RefusedError as error:
                troubles.append(f"refused: {error}")
                if error.final:
                    break
                pause_s = min(max(pause_s, error.after_s or 0.0), MOST_PAUSE_S)
            if attempt + 1 < ATTEMPTS:
                await asyncio.sleep(pause_s)
        return Asked(None, tuple(troubles), None, time.monotonic() - began_s)

    async def _attempt(self, body: bytes) -> tuple[Answer, float]:
        began_s = time.monotonic()
        reading = Reading()
        try:
            async with self._session.post(self._url, data=body, headers=self._headers) as response:
                if response.status != 200:
                    said = (await response.text())[:200]
                    wait = response.headers.get("retry-after", "")
                    raise RefusedError(
                        f"{response.status}: {said}",
                        float(wait) if wait.isdigit() else None,
                        final=response.status not in TRY_AGAIN,
                    )
                async for received in response.content.iter_any():
                    reading.feed(received, time.monotonic() - began_s)
        except (aiohttp.ClientError, OSError, EventTooLong) as error:  # TimeoutError is an OSError
            why = f"{type(error).__name__} {error}".strip()
            if reading.ttft_s is None:
                raise RefusedError(why) from error
            raise BrokenError(why) from error
        return reading.whole(), reading.ttft_s or 0.0


class Reading:
    """A streamed answer as it comes."""

    def __init__(self) -> None:
        self.ttft_s: float | None = None
        self._parser = SseParser()
        self._parts: list[str] = []
        self._finish_reason: str | None = None
        self._tokens: int | None = None
        self._done = False

    def feed(self, received: bytes, at_s: float) -> None:
        """Raises BrokenError for an error that comes in place of the rest."""
        for event in self._parser.feed(received):
            if event == b"[DONE]":
                self._done = True
                continue
            chunk = json.loads(event)
            if chunk.get("error"):
                raise BrokenError(str(chunk["error"])[:200])
            for choice in chunk.get("choices", ()):
                if self.ttft_s is None:
                    self.ttft_s = at_s
                self._parts.append(choice.get("text") or "")
                self._finish_reason = choice.get("finish_reason") or self._finish_reason
            if usage := chunk.get("usage"):
                self._tokens = usage["completion_tokens"]

    def whole(self) -> Answer:
        """Raises BrokenError, or RefusedError where nothing came."""
        if self._done and self._finish_reason is not None:
            return Answer("".join(self._parts), self._finish_reason, self._tokens)
        if self.ttft_s is None:
            raise RefusedError("the answer is empty")
        raise BrokenError("the stream ended before the answer did")


def session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, force_close=True),
        timeout=aiohttp.ClientTimeout(total=None, sock_read=SILENCE_S, sock_connect=10.0),
    )
