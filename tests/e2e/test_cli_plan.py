"""`drift plan`, from a load to a number of nodes."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from drift_cli import main
from drift_cli.capacity import Plan

LOAD = ("--poisson", "24", "--requests", "60", "--prompt-tokens", "4000", "--output-tokens", "8")
PROMISE = ("--slo-ttft-ms", "400", "--slo-tbt-ms", "30", "--attainment", "0.9")


def planned(*arguments: str) -> int:
    try:
        return main.main(["plan", *arguments])
    except SystemExit as end:
        return int(end.code or 0)


def test_a_plan_as_a_user_asks_for_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, page = tmp_path / "plan.json", tmp_path / "plan.html"
    assert planned(*LOAD, *PROMISE, "--json", str(out), "--html", str(page), "--max-nodes", "16") == 0
    found = msgspec.json.decode(out.read_bytes(), type=Plan)
    best = found.best
    assert best is not None
    assert best.bereft is not None
    assert 2 <= (best.whole.nodes or 0) <= (best.bereft.nodes or 0) <= 16
    assert (best.whole.attainment or 0) >= 0.9
    said = capsys.readouterr()
    assert "keep the promise" in said.out
    assert "auto, cache-aware" in said.err
    assert page.read_text().count("<svg") == 3


def test_too_few_nodes_are_said_and_are_no_success(capsys: pytest.CaptureFixture[str]) -> None:
    assert planned(*LOAD, *PROMISE, "--max-nodes", "1", "--no-loss") == 1
    assert "Not even 1 nodes keep the promise" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (LOAD, 2, "a plan needs a promise"),
        ((*LOAD, *PROMISE, "--max-nodes", "0"), 2, "--max-nodes: 0 is not between 1 and 1000"),
        ((*LOAD, *PROMISE, "--modes", "auto,best"), 2, "argument --modes"),
        ((*LOAD, *PROMISE, "--levers", "all"), 2, "argument --levers"),
        ((*LOAD, *PROMISE, "--html", "/nowhere/plan.html"), 1, "/nowhere/plan.html: can't be written"),
    ],
)
def test_bad_options_are_one_line(
    arguments: tuple[str, ...], status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert planned(*arguments) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err.splitlines()[0]
