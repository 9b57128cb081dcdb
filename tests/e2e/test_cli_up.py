"""`drift up` from the outside, with a stand-in node: what it prints, how it ends, and that nothing outlives it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import documents
import processes
from drift_operator.local import ports

PROGRAM = """
import sys
from drift_operator.local import planning
planning.NODE_MODULE = "stand_in_node"
from drift_cli.main import main
sys.exit(main(sys.argv[1:]))
"""
SUPPORT = str(documents.REPOSITORY / "tests" / "support")


@contextlib.contextmanager
def started(*arguments: str, behaviour: str = "serve", **variables: str) -> Iterator[subprocess.Popen[str]]:
    """`drift up` as its own process, both outputs in one pipe."""
    path = os.pathsep.join([SUPPORT, *filter(None, sys.path)])
    with subprocess.Popen(
        [sys.executable, "-u", "-c", PROGRAM, "up", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "STAND_IN": behaviour, "PYTHONPATH": path, **variables},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def read_until(process: subprocess.Popen[str], words: str) -> str:
    """The output up to the line with `words`; the suite's time-out is the deadline."""
    assert process.stdout is not None
    text = ""
    for line in process.stdout:
        text += line
        if words in line:
            return text
    raise AssertionError(f"ended without {words!r}:\n{text}")


def rest(process: subprocess.Popen[str]) -> str:
    text, _ = process.communicate(timeout=60)
    return text


def node_pid(text: str) -> int:
    found = re.search(r"stand-in (\d+) serves", text)
    assert found is not None, text
    return int(found[1])


def test_up_says_how_to_try_it_and_stops_on_interrupt() -> None:
    with started("--port", "0") as process:
        text = read_until(process, "Ctrl-C stops it.")
        url = re.search(r"drift-tiny is ready at (http://127\.0\.0\.1:\d+)\n", text)
        assert url is not None, text
        assert "first token within 400 ms for 0.99 of requests" in text
        assert "every further token within 80 ms for 0.99 of requests" in text
        assert f"curl {url[1]}/v1/chat/completions" in text
        assert f'OpenAI(base_url="{url[1]}/v1", api_key="none")' in text
        assert " bench --url http" in text
        process.send_signal(signal.SIGINT)
        ending = rest(process)
    assert process.returncode == 0
    assert "Traceback" not in text + ending
    assert ending.rstrip().endswith("stopped")
    assert processes.ends(node_pid(text))


def test_stages_of_the_start_are_lines_without_a_terminal() -> None:
    with started("--port", "0") as process:
        text = read_until(process, "is ready at")
    assert re.findall("^(reading weights|warming up)$", text, re.MULTILINE) == [
        "reading weights",
        "warming up",
    ]


def test_node_that_can_not_start_is_one_clear_line() -> None:
    with started("--port", "0", behaviour="die-loading") as process:
        lines = rest(process).splitlines()
    assert process.returncode == 1
    assert lines == [
        "starting drift-tiny",
        "stand-in: no weights in embedded://drift-tiny",
        "drift: the node ended with exit code 1 before it was ready",
    ]


def test_killed_supervisor_takes_the_node_along() -> None:
    with started("--port", "0") as process:
        text = read_until(process, "is ready at")
        process.kill()
        assert processes.ends(node_pid(text))


def test_killed_node_is_named() -> None:
    with started("--port", "0") as process:
        text = read_until(process, "Ctrl-C stops it.")
        os.kill(node_pid(text), signal.SIGKILL)
        assert (
            rest(process).strip() == "drift: the node was killed by SIGKILL (out of memory?) while it served"
        )
    assert process.returncode == 1


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGHUP])
def test_other_stop_signals_end_it_as_well(stop: signal.Signals) -> None:
    with started("--port", "0") as process:
        text = read_until(process, "is ready at")
        process.send_signal(stop)
        rest(process)
    assert process.returncode == 0
    assert processes.ends(node_pid(text))


def test_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with started("--port", str(port)) as process:
            line = rest(process).strip()
    assert line == f"drift: 127.0.0.1:{port} is in use by another program; choose another with --port"
    assert process.returncode == 1


def test_file_with_a_problem(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_text(yaml.safe_dump(documents.minimal(slo={"tbt": {"targetMs": 0}}), sort_keys=False))
    with started("-f", str(file)) as process:
        assert rest(process) == f"{file}:10: spec.slo.tbt.targetMs: 0 is below the minimum 1\n"
    assert process.returncode == 1


def test_file_with_more_than_a_machine_can_do(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_text(yaml.safe_dump(documents.minimal(replicas=300)))
    with started("-f", str(file)) as process:
        assert rest(process) == "drift: spec.replicas: 300 is above the maximum 16 of a local run\n"
    assert process.returncode == 1


def test_file_with_two_services(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_text(yaml.safe_dump_all([documents.minimal(), documents.minimal()]))
    with started("-f", str(file)) as process:
        assert rest(process) == f"drift: {file}: holds 2 services (demo, demo); a local run takes one\n"


def test_keys_are_asked_for_in_the_printed_call(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_text(yaml.safe_dump(documents.minimal(auth={"apiKeysSecretRef": {"name": "keys"}})))
    port = str(ports.free("127.0.0.1")[0])
    with started("-f", str(file), "--port", port, DRIFT_API_KEYS="secret") as process:
        text = read_until(process, "Ctrl-C stops it.")
    assert '-H "Authorization: Bearer $DRIFT_API_KEY"' in text
    assert "secret" not in text


@pytest.mark.parametrize(("option", "word"), [("mode", "muxwize"), ("slack", "lenient")])
def test_a_way_to_share_that_is_none(option: str, word: str) -> None:
    with started(f"--{option}", word) as process:
        assert rest(process).startswith(f'spec.multiplexing.{option}: "{word}" is not one of ')
    assert process.returncode == 1
