"""`drift up` with the real engine, tried as it tells people to try it, and measured by `drift bench`."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import http_calls
import real_node

DRIFT = (sys.executable, "-u", "-m", "drift_cli")


class Up:
    """`drift up` that has said how to try it; `said` is all of that."""

    def __init__(self, *arguments: str) -> None:
        self.process: subprocess.Popen[str] = subprocess.Popen(
            [*DRIFT, "up", "--port", "0", "--log-level", "warning", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        self.said = ""
        for line in self.process.stdout:
            self.said += line
            if "Ctrl-C stops it." in line:
                break
        found = re.search(r"is ready at (\S+)\n", self.said)
        assert found is not None, self.said
        self.url = found[1]
        children = psutil.Process(self.process.pid).children(recursive=True)
        assert len(children) == 2, "an api and a core process"
        self.children = children

    def block(self, heading: str) -> str:
        """What is printed under a heading."""
        found = re.search(rf"^{heading}.*:\n((?:    .*\n)+)", self.said, re.MULTILINE)
        assert found is not None, self.said
        return textwrap.dedent(found[1])

    def rest(self) -> str:
        text, _ = self.process.communicate(timeout=real_node.DEADLINE_S)
        _, alive = psutil.wait_procs(self.children, timeout=real_node.DEADLINE_S)
        assert not alive
        return text

    def kill(self) -> None:
        for process in self.children:
            if process.is_running():
                process.kill()
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


@pytest.fixture(scope="module")
def up() -> Iterator[Up]:
    started = Up()
    try:
        yield started
        started.process.send_signal(signal.SIGINT)
        assert started.rest().strip().splitlines() == [
            "stopping: requests may finish; once more stops at once",
            "stopped",
        ]
        assert started.process.returncode == 0
    finally:
        started.kill()


def test_printed_curl_is_answered(up: Up) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    command = up.block("Try it")
    done = subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, timeout=real_node.DEADLINE_S, check=True
    )
    answer = json.loads(done.stdout)
    assert answer["model"] == "drift-tiny"
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert "Drift" in answer["choices"][0]["message"]["content"]


def test_printed_python_is_answered(up: Up) -> None:
    program = up.block("From Python")
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=real_node.DEADLINE_S,
        check=True,
    )
    assert "Drift" in done.stdout
    assert done.stderr == ""


def test_bench_counts_what_the_server_counts(up: Up, tmp_path: Path) -> None:
    command = up.block("Measure the promise").replace("\\\n", " ").split()
    arguments = command[command.index("bench") + 1 :]
    assert arguments[:2] == ["--url", up.url]
    asked = dict(zip(arguments[::2], arguments[1::2], strict=True))
    asked |= {
        "--poisson": "8",
        "--duration": "3",
        "--output-tokens": "20",
        "--json": str(tmp_path / "r.json"),
    }
    done = subprocess.run(
        [*DRIFT, "bench", *(word for pair in asked.items() for word in pair)],
        capture_output=True,
        text=True,
        timeout=real_node.DEADLINE_S,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "r.json").read_text())
    assert (result["requests"], result["failed"]) == (24, 0)
    assert result["output_tokens"] == 24 * 20
    counts = result["server_counts"]
    assert counts["agree"]
    assert counts["requests"] == {"client": 24, "server": 24}
    assert counts["generation_tokens"] == {"client": 480, "server": 480}
    assert re.search(r"server's counters\s+agree", done.stdout)


def test_what_the_lanes_did_and_what_was_learned_is_left_behind(tmp_path: Path, cache_folder: Path) -> None:
    timeline = tmp_path / "lanes.json"
    started = Up("--timeline", str(timeline))
    try:
        body = {"model": "drift-tiny", "prompt": "What is Drift?", "max_tokens": 5, "ignore_eos": True}
        assert http_calls.post(started.url, "/v1/completions", body).status == 200
        started.process.send_signal(signal.SIGINT)
        started.rest()
    finally:
        started.kill()
    spans = [event for event in json.loads(timeline.read_text())["traceEvents"] if event["ph"] == "X"]
    kinds = [span["name"] for span in spans]
    assert kinds[0] == "prefill"  # in one piece or, on a busy machine, in several
    assert kinds.count("decode") == 4
    learned = json.loads((cache_folder / "drift" / "latency" / "drift-tiny.json").read_text())
    assert learned["identity"]["dtype"] == "float32"


def test_who_no_longer_listens_keeps_it_from_nothing() -> None:
    started = Up()
    try:
        assert started.process.stdout is not None
        started.process.stdout.close()  # as of a terminal that is closed
        started.process.send_signal(signal.SIGHUP)
        assert started.process.wait(real_node.DEADLINE_S) == 0
        _, alive = psutil.wait_procs(started.children, timeout=real_node.DEADLINE_S)
        assert not alive
    finally:
        started.kill()


def test_killed_core_is_said_and_ends_it(model: Path) -> None:
    started = Up("--model", str(model))
    try:
        (core,) = [child for child in started.children if "drift_engine.core" in child.cmdline()]
        os.kill(core.pid, signal.SIGKILL)
        *_, why, what = started.rest().splitlines()
        assert why == "error: the core process was ended by SIGKILL; the machine may have run out of memory"
        assert what == "drift: the node ended with exit code 1 while it served"
        assert started.process.returncode == 1
    finally:
        started.kill()
