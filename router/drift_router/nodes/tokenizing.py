"""Asks vLLM nodes how prompts are spelled in tokens (`POST /tokenize`): the model's own tokenizer and chat template.

No request waits for it: a prompt is asked about when its answer has begun, and what is learned of it is for those
that begin alike. A question too many, or one that fails, is left out; that costs a guess.
"""

from __future__ import annotations

import asyncio
import http
import logging
from typing import Annotated

import aiohttp
import msgspec

from drift_engine import wire
from drift_router.lessons import Question

log = logging.getLogger(__name__)

MAX_OPEN = 16
"""Questions at a time. A prompt of 100,000 tokens takes some 0.1 s: hundreds of such in a second. Estimate."""

DEADLINE_S = 5.0
MAX_ANSWER_BYTES = 32 << 20
"""Two million tokens of 10 digits, with room."""

REFUSED_S = 60.0
"""For so long a node is not asked again where it has no such path."""

_UNKNOWN = (http.HTTPStatus.NOT_FOUND, http.HTTPStatus.METHOD_NOT_ALLOWED, http.HTTPStatus.NOT_IMPLEMENTED)


class _Answer(msgspec.Struct):
    tokens: list[Annotated[int, msgspec.Meta(ge=0, lt=1 << 31)]]


_decoder = msgspec.json.Decoder(_Answer)


class Tokenizing:
    """Lives in one event loop; `close` ends what is open."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._refused_s: dict[str, float] = {}

    def ask(self, question: Question) -> None:
        loop = asyncio.get_running_loop()
        if len(self._tasks) >= MAX_OPEN or loop.time() < self._refused_s.get(question.url, 0.0):
            return
        task = loop.create_task(self._answer(question))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _answer(self, question: Question) -> None:
        try:
            status, body = await self._post(question)
            if status == http.HTTPStatus.OK:
                question.learned(_decoder.decode(body).tokens)
                return
            reason = f"answered {status}"
            if status in _UNKNOWN:
                self._refused_s[question.url] = asyncio.get_running_loop().time() + REFUSED_S
        except (aiohttp.ClientError, OSError, *wire.UNREADABLE, _TooLong) as error:
            reason = str(error) or type(error).__name__
        except Exception:
            log.exception("learning a prompt's tokens failed", extra={"url": question.url})
            return
        log.debug("a prompt was not tokenized", extra={"url": question.url, "reason": reason})

    async def _post(self, question: Question) -> tuple[int, bytes]:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=DEADLINE_S),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                headers={"accept-encoding": "identity", "content-type": "application/json"},
            )
        headers = {"authorization": question.authorization} if question.authorization else {}
        async with self._session.post(
            question.url.rstrip("/") + "/tokenize",
            data=question.document,
            headers=headers,
            allow_redirects=False,
        ) as answer:
            body = bytearray()
            async for piece in answer.content.iter_any():
                body += piece
                if len(body) > MAX_ANSWER_BYTES:
                    raise _TooLong(f"the answer is longer than {MAX_ANSWER_BYTES} bytes")
            return answer.status, bytes(body)


class _TooLong(Exception):  # noqa: N818 - a fact about the answer
    pass
