"""A real node for end-to-end tests: api and core process, free ports, a small model with random weights.

    with real_node.started(folder, model) as node:
        node.post("/v1/completions", {...})

Whatever a test does to the node, none of its processes is left afterwards.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import select
import signal
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import psutil

import http_calls
import random_checkpoints
import small_tokenizers
from drift_engine.bench import counters

DEADLINE_S = 90.0
"""For whatever a test waits for: a start takes 5 s, and half a minute where every processor is busy."""

CONTEXT_TOKENS = 2048
PAGE_TOKENS = 16
TOKEN = "control-secret"


def until(condition: Callable[[], bool], what: str) -> None:
    """Waits for what another process does."""
    end_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end_s, f"waited {DEADLINE_S:g} s for {what}"
        time.sleep(0.02)


def write_model(folder: Path) -> Path:
    """A Llama of 140,000 random weights, with a tokenizer and a chat template that have tools."""
    vocabulary = small_tokenizers.byte_level().get_vocab_size()
    model = random_checkpoints.build(
        "llama",
        vocab_size=vocabulary,
        eos_token_id=2,
        pad_token_id=0,
        max_position_embeddings=CONTEXT_TOKENS,
    )
    model.save_pretrained(folder)
    return small_tokenizers.write(folder)


class RealNode:
    """A node's process; `name` is in the command line of both its processes and nowhere else."""

    def __init__(self, folder: Path, model: Path, stderr: Path | None = None, **options: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.name = f"test-{secrets.token_hex(8)}"
        self.model = model.name
        self.scratch = folder / "tmp"
        self.scratch.mkdir()
        self.log = stderr or folder / "log"
        asked = {"model": str(model), "node": self.name, "port": 0, "control_token": TOKEN, **options}
        with self.log.open("ab") as log:
            self.process: subprocess.Popen[bytes] = subprocess.Popen(
                [sys.executable, "-m", "drift_engine.node", "--options", json.dumps(asked)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "TMPDIR": str(self.scratch)},
            )
        self._said = b""
        self.url = self.control_url = ""

    # start and end -----------------------------------------------------------------------------------------

    def wait_listening(self) -> None:
        said = self._say()
        assert said["event"] == "listening"
        self.url, self.control_url = said["url"], said["control_url"]

    def wait_ready(self) -> None:
        self.wait_listening()
        assert self._say()["event"] == "ready"
        assert self.get("/readyz").status == 200

    def _say(self) -> dict[str, Any]:
        """The next line of its stdout."""
        assert self.process.stdout is not None
        while b"\n" not in self._said:
            readable, _, _ = select.select([self.process.stdout], [], [], DEADLINE_S)
            assert readable, f"the node said nothing for {DEADLINE_S:g} s"
            chunk = os.read(self.process.stdout.fileno(), 4096)
            assert chunk, f"the node ended: {self.stderr()}"
            self._said += chunk
        line, _, self._said = self._said.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found

    def stderr(self) -> str:
        return self.log.read_text() if self.log.is_file() else ""

    def error(self) -> str:
        """The one line for people, after all log lines."""
        *log_lines, last = self.stderr().splitlines()
        assert "Traceback" not in self.stderr()
        assert not any(line.startswith("error") for line in log_lines), log_lines
        assert last.startswith("error: "), last
        return last.removeprefix("error: ")

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def ended(self) -> int:
        """The exit status, once there is one and no process and no file of the node is left."""
        status = self.process.wait(DEADLINE_S)
        self.gone()
        if status != -signal.SIGKILL:
            assert list(self.scratch.iterdir()) == []
        return status

    def gone(self) -> None:
        until(lambda: not self.processes(), "the node's processes to be gone")

    def processes(self) -> list[int]:
        """Every living process of this node, whoever is its parent."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.status() != psutil.STATUS_ZOMBIE and self.name in " ".join(process.cmdline()):
                    found.append(process.pid)
        return found

    @property
    def core_pid(self) -> int:
        (pid,) = set(self.processes()) - {self.process.pid}
        return pid

    def kill(self) -> None:
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(DEADLINE_S)
        if self.process.stdout is not None:
            self.process.stdout.close()

    # HTTP --------------------------------------------------------------------------------------------------

    def get(self, path: str, **headers: str) -> http_calls.Reply:
        return http_calls.get(self.url, path, headers)

    def post(self, path: str, body: Any = None, **headers: str) -> http_calls.Reply:
        return http_calls.post(self.url, path, body, headers)

    def control(self, method: str, path: str, body: Any = None, token: str = TOKEN) -> http_calls.Reply:
        return http_calls.call(self.control_url, method, path, body, {"x-drift-token": token})

    def completion(
        self, prompt: str | list[int] | list[list[int]] = "the lazy dog", **fields: Any
    ) -> dict[str, Any]:
        """The body of a request whose answer is as long as asked and the same every time."""
        return {
            "model": self.model,
            "prompt": prompt,
            "max_tokens": 8,
            "temperature": 0,
            "ignore_eos": True,
            **fields,
        }

    def tokens(self, prompt: str | list[int] = "the lazy dog", **fields: Any) -> list[tuple[str, float]]:
        """A streamed answer's tokens with their log probabilities, which tell apart what texts may not."""
        with self.stream(self.completion(prompt, logprobs=0, **fields)) as answer:
            return [token for event in answer for token in _tokens(event)]

    @contextlib.contextmanager
    def stream(self, body: dict[str, Any], path: str = "/v1/completions", **headers: str) -> Iterator[Stream]:
        parts = urllib.parse.urlsplit(self.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=DEADLINE_S)
        with contextlib.closing(connection):
            sent = {"content-type": "application/json", **headers}
            connection.request("POST", path, json.dumps({**body, "stream": True}), sent)
            response = connection.getresponse()
            with contextlib.closing(response):
                assert response.status == 200, response.read()
                assert response.getheader("content-type", "").startswith("text/event-stream")
                yield Stream(response)

    # what it holds -----------------------------------------------------------------------------------------

    def report(self) -> dict[str, Any]:
        reply = self.control("GET", "/control/v1/report")
        assert reply.status == 200
        found: dict[str, Any] = reply.json
        return found

    def count(self, name: str) -> float:
        return counters.parse(self.get("/metrics").raw.decode())[name]

    def settled(self) -> bool:
        """No request is anywhere and none holds a page; the prefix cache may keep some."""
        found = self.report()
        return not any(
            found[name] for name in ("in_flight", "running", "waiting", "queued_tokens", "kv_usage")
        )

    def settles(self) -> None:
        until(self.settled, "the node to hold nothing")

    def files(self) -> int:
        """Open descriptors of the api process, sockets among them."""
        return psutil.Process(self.process.pid).num_fds()


class Stream:
    """Server-sent events as they come. Ends at `[DONE]`, which must come, and nothing after it."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self._lines: IO[bytes] = response
        self.done = False

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for line in self._lines:
            if not line.strip():
                continue
            assert not self.done, line
            data = line.removeprefix(b"data: ")
            assert data != line, line
            if data.strip() == b"[DONE]":
                self.done = True
            else:
                yield json.loads(data)
        assert self.done


def _tokens(event: dict[str, Any]) -> Iterator[tuple[str, float]]:
    assert "error" not in event, event
    for choice in event["choices"]:
        yield from zip(choice["logprobs"]["tokens"], choice["logprobs"]["token_logprobs"], strict=True)


@contextlib.contextmanager
def started(folder: Path, model: Path, stderr: Path | None = None, **options: Any) -> Iterator[RealNode]:
    """A node that serves. Kills what is left of it at the end; tests that care end it themselves."""
    node = RealNode(folder, model, stderr, **options)
    try:
        node.wait_ready()
        yield node
    finally:
        node.kill()


def fails(folder: Path, model: Path, **options: Any) -> tuple[int, str]:
    """Exit status and line of a node that can't start."""
    node = RealNode(folder, model, **options)
    try:
        return node.ended(), node.error()
    finally:
        node.kill()
