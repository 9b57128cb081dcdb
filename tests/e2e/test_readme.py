"""The README's walk, word by word, against the embedded model; only the port and the length of the runs differ."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from drift_operator import manifests

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
URL = "http://127.0.0.1:8000"
WRITTEN = ("result.json", "tokens.jsonl", "result.svg")
DRIFT = [sys.executable, "-m", "drift_cli"]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.M | re.S)


def commands() -> list[list[str]]:
    text = "\n".join(blocks("sh")).replace("\\\n", " ")
    return [shlex.split(line) for line in text.splitlines() if line]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """`make run` on a free port."""
    with subprocess.Popen([*DRIFT, "up", "--port", "0"], stdout=subprocess.PIPE, text=True, cwd=ROOT) as node:
        assert node.stdout is not None
        try:
            welcome = "".join(iter(node.stdout.readline, "Ctrl-C stops it.\n"))
            found = re.search(r"drift-tiny is ready at (\S+)", welcome)
            assert found is not None, welcome
            yield found.group(1)
            node.send_signal(signal.SIGINT)
            node.communicate(timeout=60)
            assert node.returncode == 0
        finally:
            node.kill()


def test_the_service_shown_first_is_the_one_that_runs() -> None:
    shown = yaml.safe_load(blocks("yaml")[0])
    default = manifests.default().model_dump(by_alias=True, exclude_none=True)
    assert {key: shown[key] for key in ("apiVersion", "kind")} == {
        key: default[key] for key in ("apiVersion", "kind")
    }
    assert manifests.parse(shown) == manifests.default()


def test_curl_gets_the_shown_answer(url: str) -> None:
    (curl,) = (command for command in commands() if command[0] == "curl")
    assert curl[1].startswith(URL)
    request = urllib.request.Request(
        curl[1].replace(URL, url),
        curl[curl.index("-d") + 1].encode(),
        dict([curl[curl.index("-H") + 1].split(": ")]),
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        answer = json.load(response)
    assert stable(answer) == stable(json.loads(blocks("json")[0]))


def stable(answer: dict[str, Any]) -> dict[str, Any]:
    """Without what differs from run to run: ids, times, and what the prefix cache had."""
    usage = {key: value for key, value in answer["usage"].items() if key != "prompt_tokens_details"}
    return {**answer, "id": "", "created": 0, "usage": usage}


def test_openai_client_streams_an_answer(url: str) -> None:
    (program,) = blocks("python")
    assert URL in program
    run = subprocess.run(
        [sys.executable, "-c", program.replace(URL, url)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip()


def test_bench_lines_measure_without_a_failure_and_the_plot_line_draws(url: str, tmp_path: Path) -> None:
    lines = [command for command in commands() if command[:2] == [".venv/bin/drift", "bench"]]
    assert len(lines) == 2
    for line in lines:
        arguments = [word.replace(URL, url) for word in line[1:]]
        arguments = [str(tmp_path / word) if word in WRITTEN else word for word in arguments]
        run = subprocess.run(
            [*DRIFT, *arguments, "--requests", "4"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert run.returncode == 0, run.stderr
        assert "requests, failed, skipped" in run.stdout
    (plot,) = (command for command in commands() if command[:2] == [".venv/bin/drift", "plot"])
    arguments = [str(tmp_path / word) if word in WRITTEN else word for word in plot[1:]]
    subprocess.run([*DRIFT, *arguments], cwd=ROOT, check=True, timeout=60)
    assert (tmp_path / "result.svg").stat().st_size


def test_the_simulate_line_says_what_would_be() -> None:
    (line,) = (command for command in commands() if command[:2] == [".venv/bin/drift", "simulate"])
    run = subprocess.run(
        [*DRIFT, *line[1:]], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 0, run.stderr
    assert "simulated nodes of h200" in run.stdout
