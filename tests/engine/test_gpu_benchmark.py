"""`benchmarks/gpu/run` on a machine without a GPU: its plumbing, and that no step stops the others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.gpu import session  # noqa: E402
from benchmarks.gpu.session import Step  # noqa: E402

SCRIPT = ROOT / "benchmarks" / "gpu" / "run"


def read(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(path.read_text())
    return value


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_a_dry_run_goes_through_every_step(tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    done = subprocess.run(
        [sys.executable, SCRIPT, "--dry-run", "--json", path, "--minutes", "8"],
        capture_output=True,
        text=True,
        timeout=480,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    steps = read(path)["steps"]
    assert list(steps) == [step.name for step in session.STEPS]
    assert {step["status"] for step in steps.values()} == {"ok"}
    assert all(row["ok"] for row in steps["tokens"]["results"]["float32"])
    for case in steps["decode"]["results"]["decode"]:
        assert case["bytes"] > 0
        for way in ("eager", "graph"):
            assert 0 < case[way]["forward_ms"] <= case[way]["pass_ms"]
    assert steps["serving"]["results"]["serving"][0]["decode_steps"] > 0
    assert {row["sms"] for row in steps["splits"]["results"]["rates"]} == {1, 2, 3, 4}
    assert all("refused" not in row for row in steps["splits"]["results"]["creation"])
    beside = steps["contention"]["results"]["contention"]
    assert {row["decode_sms"] for row in beside if row["device"] == "split"} == {1, 2, 3}
    assert {row["device"] for row in beside} == {"split", "overlap"}
    assert {row["sms"] for row in steps["grid"]["results"]["grid"]} == {1, 2, 3, 4}
    cells = steps["modes"]["results"]["modes"]
    assert [cell["mode"] for cell in cells] == [
        "fused",
        "mux",
        "auto",
        "muxwise",
        "batch-table",
        "overlap",
    ]
    for cell in cells:
        assert cell["ended"] == cell["turns"] == cells[0]["turns"] > 1
        assert 0 <= cell["kept_share"] <= cell["kept_mean_share"] <= cell["ttft_kept_share"] <= 1
        assert cell["cached_share"] > 0


def test_the_script_can_be_run_as_it_is() -> None:
    assert os.access(SCRIPT, os.X_OK)
    assert SCRIPT.read_text().startswith("#!/usr/bin/env python3\n")


def test_an_unknown_step_is_named(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, "--json", tmp_path / "x", "--steps", "parity,pariti"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "--steps: pariti: no such step; there are machine, parity" in done.stderr


CHILDREN = {
    "fine": "import json; open(path, 'w').write(json.dumps({'results': {'rows': [{'ok': True}]}}))",
    "broken": "raise ValueError('boom')",
    "hung": "import json, time; open(path, 'w').write(json.dumps({'results': {'first': 1}})); time.sleep(60)",
    "wrong": "import json; open(path, 'w').write(json.dumps({'results': {'rows': [{'ok': False, 'n': 3}]}}))",
}


def children(step: Step, path: Path, limit_s: float) -> Sequence[str]:
    return [sys.executable, "-c", f"path = {str(path)!r}; {CHILDREN[step.name]}"]


def test_a_failed_or_hung_step_leaves_what_it_had_and_the_next_one_runs(tmp_path: Path) -> None:
    result: dict[str, Any] = {"steps": {}}
    steps = [Step(name, 2.0 if name == "hung" else 30.0, "") for name in ("broken", "hung", "wrong", "fine")]
    session.run_steps(steps, children, result, tmp_path / "out.json", minutes=2)
    assert read(tmp_path / "out.json") == result
    assert {name: outcome["status"] for name, outcome in result["steps"].items()} == {
        "broken": "failed",
        "hung": "timed out",
        "wrong": "ok",
        "fine": "ok",
    }
    assert "ValueError: boom" in result["steps"]["broken"]["log"]
    assert result["steps"]["hung"]["results"] == {"first": 1}
    assert session.failures(result) == [
        "broken: failed: ValueError: boom",
        "hung: timed out: ",
        'wrong: rows: {"ok": false, "n": 3}',
    ]


def test_without_time_left_steps_are_skipped(tmp_path: Path) -> None:
    result: dict[str, Any] = {"steps": {}}
    start_s = time.monotonic()
    session.run_steps([Step("hung", 60.0, "")], children, result, tmp_path / "out.json", minutes=0.01)
    assert time.monotonic() - start_s < 30
    assert result["steps"]["hung"]["status"] == "skipped"


def test_a_steps_traceback_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "STEPS", (Step("missing", 1.0, "benchmarks.gpu.missing"),))
    assert session.run_step("missing", tmp_path / "step.json", 1.0, dry_run=False) == 1
    assert (
        "ModuleNotFoundError: No module named 'benchmarks.gpu.missing'"
        in read(tmp_path / "step.json")["error"]
    )
