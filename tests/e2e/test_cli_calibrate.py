"""`drift calibrate`: what it prints, what it writes, and that it starts nothing in vain."""

from __future__ import annotations

import subprocess
from pathlib import Path

import msgspec
import pytest
import yaml

import documents
from drift_cli import main
from drift_engine.core import surveying
from drift_engine.hardware import profiles


def calibrate(*arguments: str | Path) -> int:
    return main.main(["calibrate", *map(str, arguments)])


def simulated(folder: Path, hardware: str = "h200") -> Path:
    """A DriftService whose device is a simulated GPU."""
    engine = {"device": "sim", "args": [f"--sim-hardware={hardware}", "--sim-model=llama-8b"]}
    path = folder / "service.yaml"
    path.write_text(yaml.safe_dump(documents.minimal(engine=engine)))
    return path


def rows(text: str) -> list[list[str]]:
    """The table's, without headings."""
    cells = [line.split() for line in text.splitlines()]
    return [row for row in cells if len(row) == 9 and row[0].isdecimal()]


@pytest.fixture
def unstarted(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a process is started")

    monkeypatch.setattr(subprocess, "Popen", refuse)


def test_this_machine_with_a_grid(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    grid = tmp_path / "grid.jsonl"
    assert calibrate("--budget", "0.5", "--grid", grid) == 0
    out, err = capfd.readouterr()
    assert err == ""
    timed = [msgspec.json.decode(line, type=surveying.Timed) for line in grid.read_bytes().splitlines()]
    assert timed
    for one in timed:
        assert one.seconds > 0
        assert one.predicted_s > 0
        assert bool(one.context_tokens) != bool(one.new_tokens)
    table = rows(out)
    assert {one.sms for one in timed} <= {int(row[0]) for row in table}
    assert f"{len(timed)} passes of the grid: the curves are off by" in out
    assert "cores" in out


def test_a_simulated_gpu_has_curves_for_all_its_parts_and_no_grid(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """There is nothing to time."""
    grid = tmp_path / "grid.jsonl"
    assert calibrate("-f", simulated(tmp_path), "--grid", grid) == 0
    out, err = capfd.readouterr()
    assert (err, grid.read_bytes()) == ("", b"")
    h200 = profiles.named("h200")
    parts = {part for split in profiles.splits(h200) for part in (split.decode_sms, split.prefill_sms)}
    table = rows(out)
    assert [int(row[0]) for row in table] == sorted({*parts, h200.sms})
    assert "simulated h200 with llama-8b" in out
    assert "SMs" in out
    assert "…" not in out
    assert "grid" not in out
    prefill_512_ms = [float(row[2]) for row in table]
    assert prefill_512_ms == sorted(prefill_512_ms, reverse=True)
    assert all(float(row[7]) >= float(row[5]) for row in table)  # beside a prefill nothing is quicker


@pytest.mark.usefixtures("unstarted")
def test_a_grid_that_can_not_be_written_is_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    grid = tmp_path / "nowhere" / "grid.jsonl"
    assert calibrate("--grid", grid) == 1
    out, err = capfd.readouterr()
    assert (out, err) == ("", f"drift: --grid: {grid}: can't be written: No such file or directory\n")


@pytest.mark.usefixtures("unstarted")
@pytest.mark.parametrize("budget", ["-1", "nan", "soon"])
def test_a_budget_that_is_no_time_is_refused(budget: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        calibrate(f"--budget={budget}")
    assert end.value.code == main.MISUSED
    assert f"'{budget}' is not a number of seconds, at least 0" in capfd.readouterr().err


def test_a_core_that_can_not_start_says_why(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert calibrate("-f", simulated(tmp_path, "tpu")) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert "tpu" in err
    assert "Traceback" not in err
