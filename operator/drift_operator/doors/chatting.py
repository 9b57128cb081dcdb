"""A question from the page to a service's own OpenAI API, and the answer back as it comes.

The caller chooses among the services that are known, and nothing of where that is. Everything is bounded: the
question, the answer, its time, and how many are under way.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

import aiohttp
import msgspec
from aiohttp import web

from drift_engine import wire
from drift_operator.console.seen import ServiceSeen

MAX_QUESTION_BYTES = 64 * 1024
MAX_ANSWER_BYTES = 1 << 20
MAX_ANSWER_TOKENS = 512
"""To try a model, not to use it: clients have the service's own address."""

AT_ONCE = 4
"""Questions under way. It is people who ask."""

ANSWER_S = 120.0
"""For a whole answer: 512 tokens at the slowest promise that is usual, with a queue before them."""

CONNECT_S = 5.0
WRITE_S = 10.0
"""For the page to take a piece."""

OK = 200


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    role: Literal["user", "assistant"]
    content: Annotated[str, msgspec.Meta(max_length=16384)]


class Question(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    namespace: Annotated[str, msgspec.Meta(max_length=253)]
    name: Annotated[str, msgspec.Meta(max_length=253)]
    messages: Annotated[tuple[Message, ...], msgspec.Meta(min_length=1, max_length=64)]
    api_key: Annotated[str, msgspec.Meta(max_length=4096, pattern=r"^[\x21-\x7e]*$")] = ""
    """Of the service, where it wants one."""


class Failed(Exception):  # noqa: N818 - an outcome
    """The service did not answer; the text says why."""


class Chatting:
    """Lives in one event loop; whoever made it closes it."""

    def __init__(self) -> None:
        self._session = aiohttp.ClientSession(
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=ANSWER_S, connect=CONNECT_S),
        )
        self._under_way = 0

    @property
    def full(self) -> bool:
        return self._under_way >= AT_ONCE

    async def close(self) -> None:
        await self._session.close()

    async def ask(self, request: web.Request, service: ServiceSeen, question: Question) -> web.StreamResponse:
        """The service's stream, as it is. Raises Failed as long as nothing of it was sent on."""
        assert service.chat_url is not None
        body = {
            "model": service.model,
            "messages": msgspec.to_builtins(question.messages),
            "stream": True,
            "max_tokens": MAX_ANSWER_TOKENS,
        }
        headers = {"authorization": f"Bearer {question.api_key}"} if question.api_key else {}
        self._under_way += 1
        try:
            async with self._session.post(
                f"{service.chat_url}/chat/completions", json=body, headers=headers, allow_redirects=False
            ) as answer:
                if answer.status != OK:
                    raise Failed(await _reason(answer))
                return await _passed_on(request, answer)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Failed(str(error) or f"no answer within {ANSWER_S:g} s") from error
        finally:
            self._under_way -= 1


async def _passed_on(request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
    """What breaks from here on breaks the page's stream, too: that is how it knows."""
    told = web.StreamResponse(headers={"content-type": "text/event-stream", "cache-control": "no-store"})
    await told.prepare(request)
    taken_bytes = 0
    try:
        async for piece in answer.content.iter_any():
            taken_bytes += len(piece)
            if taken_bytes > MAX_ANSWER_BYTES:
                raise TimeoutError
            async with asyncio.timeout(WRITE_S):
                await told.write(piece)
        await told.write_eof()
    except (aiohttp.ClientError, ConnectionError, TimeoutError):
        if request.transport is not None:
            request.transport.abort()
    return told


async def _reason(answer: aiohttp.ClientResponse) -> str:
    """In the service's words, as far as they are OpenAI's shape."""
    raw = await answer.content.read(4096)
    try:
        said = msgspec.json.decode(raw)["error"]["message"]
    except (*wire.UNREADABLE, KeyError, TypeError):
        said = raw[:200].decode(errors="replace")
    return f"the service answered {answer.status}: {said}"
