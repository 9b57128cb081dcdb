"""A node as a process: readiness, signals, and what happens when a port is taken or the core dies."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

import http_calls
import small_tokenizers

FAKE_NODE = Path(__file__).parents[1] / "support" / "fake_node.py"
CHAT: Any = {"model": "model", "messages": [{"role": "user", "content": "hi"}]}
DEADLINE_S = 30


class Node:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.listening: dict[str, Any] = json.loads(self.line())

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    @property
    def url(self) -> str:
        return str(self.listening["url"])

    def ready(self) -> None:
        assert json.loads(self.line())["event"] == "ready"

    def core(self) -> psutil.Process:
        (child,) = psutil.Process(self.process.pid).children()
        return child

    def end(self) -> tuple[int, list[str]]:
        """Exit status and the lines on stderr that are not log lines."""
        _, stderr = self.process.communicate(timeout=DEADLINE_S)
        return self.process.returncode, [line for line in stderr.splitlines() if not line.startswith("{")]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return small_tokenizers.write(tmp_path / "model")


def start(model: Path, behaviour: str = "serve", **options: Any) -> subprocess.Popen[str]:
    document = json.dumps({"model": str(model), "port": 0, "log_level": "warning", **options})
    return subprocess.Popen(
        [sys.executable, str(FAKE_NODE), "--options", document],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "FAKE_CORE": behaviour},
    )


@contextmanager
def running(model: Path, behaviour: str = "serve", **options: Any) -> Iterator[Node]:
    process = start(model, behaviour, **options)
    try:
        yield Node(process)
    finally:
        process.kill()
        process.communicate(timeout=DEADLINE_S)


class Asking(threading.Thread):
    """One chat request on its way."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        self.reply: http_calls.Reply | None = None
        self.start()

    def run(self) -> None:
        self.reply = http_calls.post(self._url, "/v1/chat/completions", CHAT)


def wait_in_flight(node: Node, token: str) -> None:
    """Until the node has taken a request; each probe is a round trip, not a sleep."""
    for _ in range(2000):
        report = http_calls.get(
            node.listening["control_url"], "/control/v1/report", {"x-drift-token": token}
        ).json
        if report["in_flight"] == 1:
            return
    raise AssertionError("the request did not arrive")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it(model: Path, number: signal.Signals) -> None:
    with running(model) as node:
        node.ready()
        assert http_calls.post(node.url, "/v1/chat/completions", CHAT).status == 200
        core = node.core()
        folder = next(Path(part.removeprefix("ipc://")).parent for part in core.cmdline() if "ipc://" in part)
        assert folder.stat().st_mode & 0o777 == 0o700
        node.process.send_signal(number)
        assert node.end() == (0, [])
        assert not core.is_running()
        assert not folder.exists()


def test_requests_in_flight_get_an_error_when_the_drain_time_is_up(model: Path) -> None:
    with running(model, "mute", drain_timeout_s=0.2, control_token="t") as node:
        node.ready()
        asking = Asking(node.url)
        wait_in_flight(node, "t")
        node.process.terminate()
        assert node.end() == (0, [])
        asking.join(DEADLINE_S)
        assert asking.reply is not None
        assert (asking.reply.status, asking.reply.headers["retry-after"]) == (503, "1")
        assert "shutting down" in asking.reply.error["message"]


def test_a_second_signal_ends_it_at_once(model: Path) -> None:
    with running(model, "mute", drain_timeout_s=600, control_token="t") as node:
        node.ready()
        core = node.core()
        with socket.create_connection(node.url.removeprefix("http://").split(":")) as connection:  # type: ignore[arg-type]
            body = json.dumps(CHAT).encode()
            connection.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
                b"content-length: %d\r\n\r\n%b" % (len(body), body)
            )
            wait_in_flight(node, "t")
            node.process.terminate()
            for _ in range(2000):
                if http_calls.get(node.url, "/readyz").json["status"] == "draining":
                    break
            node.process.terminate()
            assert node.end() == (128 + signal.SIGTERM, [])
        core.wait(DEADLINE_S)


def test_a_killed_core_ends_the_node_with_one_line(model: Path) -> None:
    with running(model, "mute", control_token="t") as node:
        node.ready()
        asking = Asking(node.url)
        wait_in_flight(node, "t")
        node.core().kill()
        status, lines = node.end()
        asking.join(DEADLINE_S)
    assert status == 1
    assert lines == ["error: the core process was ended by SIGKILL; the machine may have run out of memory"]
    assert asking.reply is not None
    assert (asking.reply.status, asking.reply.error["type"]) == (503, "server_error")
    assert "SIGKILL" in asking.reply.error["message"]


def test_a_core_that_hangs_ends_the_node_with_one_line(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SILENCE_S", "0.2")
    with running(model, "mute", control_token="t") as node:
        node.ready()
        core = node.core()
        status, lines = node.end()
        core.wait(DEADLINE_S)
    assert (status, len(lines)) == (1, 1)
    assert "the core process has said nothing for" in lines[0]


def test_a_core_that_can_not_start_says_why(model: Path) -> None:
    with running(model, "fault") as node:
        assert node.end() == (1, ["error: the file model.safetensors is truncated: 10 of 20 bytes"])


def test_a_core_that_dies_while_it_loads(model: Path) -> None:
    with running(model, "die") as node:
        status, lines = node.end()
        assert (status, len(lines)) == (1, 1)
        assert "SIGKILL" in lines[0]


def test_a_signal_while_it_loads(model: Path) -> None:
    with running(model, "loading") as node:
        for _ in range(5000):
            state = http_calls.get(node.url, "/readyz")
            if state.json.get("stage") == "weights":
                break
        assert (state.status, state.json) == (
            503,
            {"status": "loading", "stage": "weights", "done": 1, "total": 2},
        )
        assert http_calls.get(node.url, "/healthz").status == 200
        refused = http_calls.post(node.url, "/v1/chat/completions", CHAT)
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        node.process.terminate()
        assert node.end() == (0, [])


def test_a_missing_model_is_one_line(tmp_path: Path) -> None:
    with running(tmp_path / "nowhere") as node:
        status, lines = node.end()
        assert (status, len(lines)) == (1, 1)
        assert "nowhere" in lines[0]


@pytest.mark.parametrize("option", ["port", "control_port"])
def test_a_port_in_use_is_one_line_that_says_what_to_do(
    model: Path, option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, tempfile.TemporaryDirectory() as scratch:
        port = taken.getsockname()[1]
        monkeypatch.setenv("TMPDIR", scratch)
        process = start(model, **{option: port})
        _, stderr = process.communicate(timeout=DEADLINE_S)
        assert not list(Path(scratch).iterdir())
    assert process.returncode == 2
    assert stderr.splitlines() == [
        f"error: {option}: {port} on 127.0.0.1 is in use: stop the program that uses it or choose another port "
        "(0 takes a free one)"
    ]


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ("{", "error: node options: "),
        ('{"model": "x", "port": 70000}', "$.port"),
        ('{"modle": "x"}', "modle"),
    ],
)
def test_unusable_options(document: str, words: str) -> None:
    command = [sys.executable, "-m", "drift_engine.node", "--options", document]
    found = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert found.returncode == 2
    assert len(found.stderr.splitlines()) == 1
    assert words in found.stderr


def test_a_full_disk_for_logs_costs_nothing(model: Path) -> None:
    document = json.dumps({"model": str(model), "port": 0, "log_level": "debug"})
    with Path("/dev/full").open("w") as full:
        process = subprocess.Popen(
            [sys.executable, str(FAKE_NODE), "--options", document],
            stdout=subprocess.PIPE,
            stderr=full,
            text=True,
        )
        try:
            node = Node(process)
            node.ready()
            for _ in range(3):
                assert http_calls.post(node.url, "/v1/chat/completions", CHAT).status == 200
            process.terminate()
            process.communicate(timeout=DEADLINE_S)
        finally:
            process.kill()
    assert process.returncode == 0


def test_the_api_process_never_loads_torch() -> None:
    program = (
        "import sys, drift_engine.node.__main__; "
        "print([name for name in sys.modules if name.split('.')[0] in ('torch', 'triton', 'transformers')])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
