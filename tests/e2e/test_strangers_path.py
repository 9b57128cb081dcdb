"""The first quarter of an hour of somebody who has never seen Drift: make run, the console in a browser, a question,
a replay, a node killed in the middle of it, and reading why nothing failed.

`make stranger` takes the path in a clone of its own, from `make run` on; here it begins with what that runs.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import browser
import console_visits
import documents
import real_node
import running_up
from browser import Stage
from running_up import ClonedFleet, Fleet

CLONE = "DRIFT_STRANGER_CLONES"
"""Set: the path begins with `git clone`. The first `make run` downloads 3 GB, unless uv has them."""
INSTALL_S = 1800

EXAMPLE = Path("examples") / "three-nodes.yaml"
TRACE = documents.REPOSITORY / "tests" / "support" / "traces" / "mooncake_conversation_piece.jsonl"
QUESTION, ANSWER = "What is Drift?", "Drift serves large language models under latency promises."

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(INSTALL_S + 300 if os.environ.get(CLONE) else 500),
]


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with browser.stage() as found:
        yield found


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """`make run` with three nodes."""
    variables = {"XDG_RUNTIME_DIR": str(tmp_path_factory.mktemp("runtime"))}
    if os.environ.get(CLONE):
        clone = tmp_path_factory.mktemp("clone")
        fill(clone)
        begun: Fleet = ClonedFleet(clone, clone / EXAMPLE, **variables)
    else:
        begun = Fleet(documents.REPOSITORY / EXAMPLE, **variables)
    with running_up.ready(begun) as found:
        yield found


def fill(folder: Path) -> None:
    subprocess.run(["git", "clone", "--quiet", documents.REPOSITORY, folder], check=True, timeout=60)
    # It says how it is used, once all that it needs is there.
    said = subprocess.run(
        ["make", "run", "ARGS=--help"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=INSTALL_S,
        check=False,
    )
    assert said.returncode == 0, said.stderr
    assert "usage: drift up" in said.stdout


def console(fleet: Fleet) -> str:
    """The page's address, with its token."""
    found = re.search(r"^ +(http://\S+/console/#token=\S+)$", fleet.said, re.MULTILINE)
    assert found is not None, fleet.said
    return found[1]


def replayed(fleet: Fleet, result: Path) -> subprocess.Popen[str]:
    """`drift bench` with a piece of a recorded trace."""
    command = [*fleet.program, "bench", "--url", fleet.url, "--trace", str(TRACE), "--length-scale", "0.1"]
    return subprocess.Popen(
        [*command, "--requests", "16", "--concurrency-limit", "4", "--json", str(result)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=fleet.environ,
    )


def test_from_make_run_to_why_a_killed_node_failed_nothing(
    stage: Stage, fleet: Fleet, tmp_path: Path
) -> None:
    console_visits.ask(stage, console(fleet), QUESTION, ANSWER)

    result = tmp_path / "result.json"
    with replayed(fleet, result) as bench:
        try:
            victim = working(fleet, bench)
            os.kill(fleet.pid_of(victim), signal.SIGKILL)
            said, _ = bench.communicate(timeout=120)
        finally:
            bench.kill()
    assert bench.returncode == 0, said
    told: dict[str, Any] = json.loads(result.read_text())
    assert (told["requests"], told["failed"]) == (16, 0)

    fleet.wait_for(f"node {victim} was killed by SIGKILL (out of memory?); starting it again")
    fleet.wait_for(f"node {victim} serves again")
    assert re.search(rf"node {victim} lost a request: ", fleet.said)
    shown = console_visits.read(stage, console(fleet), node=victim, says="ready")
    assert "three-nodes" in shown
    assert "what would move each lever next" in explained(fleet)


def explained(fleet: Fleet) -> str:
    """It ends with 1 where the promise was not kept, which a busy machine is free to do."""
    command = [*fleet.program, "explain", "--local", "three-nodes"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=fleet.environ, check=False)
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


def working(fleet: Fleet, bench: subprocess.Popen[str]) -> str:
    """A node that has requests of the replay."""
    busy: list[str] = []

    def somebody_works() -> bool:
        busy[:] = [name for name, node in fleet.nodes().items() if node["in_flight"]]
        return bool(busy) or bench.poll() is not None

    real_node.until(somebody_works, "a node to have requests")
    assert busy, "all was over before a node could be killed"
    return busy[0]
