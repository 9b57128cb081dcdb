"""What a person sees of a node that starts, on a terminal and elsewhere."""

from __future__ import annotations

import json

import pytest

from drift_cli import progress
from drift_operator.local.children import Loading


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("Traceback (most recent call last):", "Traceback (most recent call last):"),
        ('{"level": "info"}', '{"level": "info"}'),
        ("[1]", "[1]"),
        ("5", "5"),
        (
            json.dumps({"time": "T", "level": "info", "logger": "x", "event": "ready", "pages": 3}),
            "T info    ready pages=3",
        ),
        (
            json.dumps({"time": "T", "level": "error", "event": "failed", "exception": "Traceback\n  x"}),
            "T error   failed\nTraceback\n  x",
        ),
    ],
)
def test_log_lines_as_a_person_reads_them(line: str, shown: str) -> None:
    assert progress.readable(line) == shown


def test_results_and_reports_go_to_their_own_streams(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.StartUp("demo", "welcome") as audience:
        audience.loading("", Loading("reading", 1, 2))
        audience.loading("", Loading("reading", 2, 2))
        audience.log("", "[bold] a line")
        audience.ready()
        audience.stopping()
    out, err = capsys.readouterr()
    assert out == "welcome\n"
    assert err.splitlines() == [
        "starting demo",
        "reading",
        "[bold] a line",
        "stopping: requests may finish; once more stops at once",
    ]


def test_terminal_gets_a_bar_and_keeps_the_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with progress.StartUp("demo", "welcome") as audience:
        audience.loading("", Loading("reading", 1, 2))
        audience.log("", "[bold] a line")
        audience.ready()
    out, err = capsys.readouterr()
    assert out == "welcome\n"
    assert "reading" in err
    assert "50%" in err
    assert "[bold] a line" in err


def test_several_processes_are_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.StartUp("demo", "welcome", 2) as audience:
        for stage in ("reading", "warming up"):
            for label in ("demo-0", "demo-1"):
                audience.loading(label, Loading(stage))
        audience.log("router", json.dumps({"time": "T", "level": "info", "event": "ready"}))
    assert capsys.readouterr().err.splitlines() == [
        "starting demo: 2 nodes",
        "demo-0: reading",
        "demo-1: reading",
        "demo-0: warming up",
        "demo-1: warming up",
        "router: T info    ready",
    ]


def test_each_of_several_has_a_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with progress.StartUp("demo", "welcome", 2) as audience:
        audience.loading("demo-0", Loading("reading", 1, 2))
        audience.loading("demo-1", Loading("reading", 3, 4))
        audience.ready()
    _, err = capsys.readouterr()
    assert "demo-0: reading" in err
    assert "75%" in err
