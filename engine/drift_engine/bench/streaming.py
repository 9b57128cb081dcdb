"""One request over HTTP, streamed. Faults of the server or the network end as a reason, never as an exception."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import aiohttp

from drift_engine.bench.answers import AnswerError
from drift_engine.bench.replaying import Attempt
from drift_engine.bench.servers import Server, failure_message
from drift_engine.bench.sse import EventTooLong, SseParser

MAX_ERROR_BYTES = 64 * 1024


class Sender:
    """Sends bodies to one path of one server, at most `concurrency_limit` at a time (None: no limit)."""

    def __init__(
        self,
        server: Server,
        path: str,
        now_s: Callable[[], float],
        *,
        timeout_s: float,
        concurrency_limit: int | None = None,
    ) -> None:
        self._server = server
        self._url = server.url + path
        self._now_s = now_s
        self._timeout_s = timeout_s
        self._place = (
            contextlib.nullcontext() if concurrency_limit is None else asyncio.Semaphore(concurrency_limit)
        )

    async def __call__(self, body: bytes, attempt: Attempt) -> None:
        """Fills in `attempt`. The deadline covers the wait for a place, too."""
        try:
            async with asyncio.timeout(self._timeout_s), self._place:
                attempt.sent_s = self._now_s()
                await self._exchange(body, attempt)
        except (AnswerError, EventTooLong) as error:
            attempt.reason = str(error)
        except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
            if type(error) is TimeoutError:
                attempt.reason = f"timeout after {self._timeout_s:g} s"
            else:
                attempt.reason = f"connection: {str(error) or type(error).__name__}"

    async def _exchange(self, body: bytes, attempt: Attempt) -> None:
        headers = {"Content-Type": "application/json"}
        async with self._server.session.post(self._url, data=body, headers=headers) as response:
            attempt.first_byte_s = self._now_s()
            if response.status != 200:
                message = failure_message(await response.content.read(MAX_ERROR_BYTES))
                raise AnswerError(f"http {response.status}: {message}")
            if response.content_type != "text/event-stream":
                raise AnswerError(f"the answer is {response.content_type}, not an event stream")
            parser, answer = SseParser(), attempt.answer
            async for received in response.content.iter_any():
                time_s = self._now_s()
                for event in parser.feed(received):
                    answer.feed(event, time_s)
            answer.close()
