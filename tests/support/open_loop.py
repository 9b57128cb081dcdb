"""Requests at a rate that may change, whatever becomes of them: prompts that nobody has cached, streamed answers."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import random
from collections import Counter
from collections.abc import Iterator

import aiohttp

from background_loop import BackgroundLoop

MOST_OPEN = 400
"""Beyond it a request counts as failed: so many were never meant."""
ANSWER_S = 300.0
LONGEST_PAUSE_S = 0.25
"""Before another look at the rate."""
WORDS = 2000
"""Of token numbers."""


class OpenLoop:
    """Its attributes may be asked and set by any thread."""

    def __init__(self, url: str, model: str, *, prompt_tokens: int, output_tokens: int) -> None:
        self.rate_per_s = 0.0
        self.answered = 0
        self.failures: Counter[str] = Counter()
        self.open = 0
        self.ended = asyncio.Event()
        self._url = f"{url}/v1/completions"
        self._body = {"model": model, "max_tokens": output_tokens, "stream": True, "temperature": 0}
        self._prompt_tokens = prompt_tokens
        self._random = random.Random(0)
        self._asking: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Until it is cancelled; then what is under way is given up."""
        try:
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_S)) as session:
                try:
                    await self._begin(session)
                finally:  # before the session: a connection that it closes is no failure of who answers
                    for task in [*self._asking]:
                        task.cancel()
                    await asyncio.gather(*self._asking, return_exceptions=True)
        finally:
            self.ended.set()

    async def _begin(self, session: aiohttp.ClientSession) -> None:
        loop = asyncio.get_running_loop()
        owed, last_s = 0.0, loop.time()
        while True:
            now_s = loop.time()
            owed, last_s = owed + self.rate_per_s * (now_s - last_s), now_s
            while owed >= 1.0:
                owed -= 1.0
                task = asyncio.create_task(self._ask(session))
                self._asking.add(task)
                task.add_done_callback(self._asking.discard)
            await asyncio.sleep(min(LONGEST_PAUSE_S, (1.0 - owed) / max(self.rate_per_s, 0.1)))

    async def _ask(self, session: aiohttp.ClientSession) -> None:
        if self.open >= MOST_OPEN:
            self.failures["more were open than ever meant"] += 1
            return
        self.open += 1
        prompt = [self._random.randrange(100, WORDS) for _ in range(self._prompt_tokens)]
        try:
            async with session.post(self._url, json={**self._body, "prompt": prompt}) as got:
                said = await got.text()
                if got.status == 200 and said.rstrip().endswith("[DONE]") and '"error"' not in said:
                    self.answered += 1
                else:
                    self.failures[f"{got.status}: {said[-300:]}"] += 1
        except (aiohttp.ClientError, TimeoutError) as error:
            self.failures[repr(error)] += 1
        finally:
            self.open -= 1


@contextlib.contextmanager
def running(url: str, model: str, *, prompt_tokens: int, output_tokens: int) -> Iterator[OpenLoop]:
    with BackgroundLoop("clients") as background:
        clients = OpenLoop(url, model, prompt_tokens=prompt_tokens, output_tokens=output_tokens)
        task = asyncio.run_coroutine_threadsafe(clients.run(), background.loop)
        try:
            yield clients
            assert not task.done(), task.exception()
        finally:
            task.cancel()
            with contextlib.suppress(concurrent.futures.CancelledError):
                background.run(clients.ended.wait())
