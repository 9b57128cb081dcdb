"""A node process for benchmarks: started, awaited, stopped; and a lean streaming client."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import psutil

from drift_engine import options
from drift_engine.options import NodeOptions
from drift_operator.local import ports

START_TIMEOUT_S = 300.0
REQUEST_TIMEOUT = aiohttp.ClientTimeout(total=600)


@dataclass
class Node:
    process: subprocess.Popen[bytes]
    url: str

    def resident_bytes(self) -> int:
        """Of the node's processes together; pages that they share count once per process."""
        api = psutil.Process(self.process.pid)
        return sum(p.memory_info().rss for p in [api, *api.children(recursive=True)])


@contextlib.contextmanager
def node(**settings: Any) -> Iterator[Node]:
    """A node with these options on a free port, ready to answer."""
    port = ports.free("127.0.0.1")[0]
    arguments = options.dump(NodeOptions(port=port, log_level="warning", **settings))
    process = subprocess.Popen([sys.executable, "-m", "drift_engine.node", "--options", arguments])
    try:
        url = f"http://127.0.0.1:{port}"
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not _ready(url):
            if process.poll() is not None or time.monotonic() > deadline_s:
                raise RuntimeError("the node did not become ready")
            time.sleep(0.05)
        yield Node(process, url)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


def _ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url + "/readyz", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@dataclass
class Answer:
    sent_s: float
    chunk_times_s: list[float] = field(default_factory=list)
    completion_tokens: int = 0
    cached_tokens: int = 0

    @property
    def ttft_s(self) -> float:
        return self.chunk_times_s[0] - self.sent_s


async def stream(
    session: aiohttp.ClientSession, url: str, prompt: list[int], max_tokens: int, *, every_token: bool = False
) -> Answer:
    """One greedy completion of exactly `max_tokens` tokens.

    `every_token` asks for log probabilities, because then each token is an event: random weights make bytes that are
    no text for many tokens, and without text there is no event.
    """
    body: dict[str, Any] = {
        "model": "",
        "prompt": prompt,
        "max_tokens": max_tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
        **({"logprobs": 0} if every_token else {}),
    }
    async with session.get(url + "/v1/models") as models:
        body["model"] = (await models.json())["data"][0]["id"]
    answer = Answer(time.perf_counter())
    async with session.post(url + "/v1/completions", json=body) as response:
        if response.status != 200:
            raise RuntimeError(await response.text())
        async for line in response.content:
            if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
                continue
            now_s = time.perf_counter()
            event = json.loads(line[6:])
            if event.get("choices"):
                answer.chunk_times_s.append(now_s)
            if event.get("usage"):
                answer.completion_tokens = event["usage"]["completion_tokens"]
                answer.cached_tokens = (event["usage"].get("prompt_tokens_details") or {}).get(
                    "cached_tokens", 0
                )
    return answer


async def together(
    url: str, prompts: list[list[int]], max_tokens: int, *, every_token: bool = False
) -> tuple[float, list[Answer]]:
    """All prompts at once; returns the wall time and the answers."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=REQUEST_TIMEOUT) as session:
        start_s = time.perf_counter()
        answers = await asyncio.gather(
            *(stream(session, url, prompt, max_tokens, every_token=every_token) for prompt in prompts)
        )
        return time.perf_counter() - start_s, list(answers)
