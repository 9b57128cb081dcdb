"""What `drift top` shows, and how it finds whom to look at."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

import node_reports
import router_pictures
from drift_cli import looking, main, runs, top
from drift_cli.looking import NodeSeen, RouterSeen
from drift_engine import wire
from drift_router.counters import Counters
from drift_router.nodes.breaker import Circuit
from drift_router.pictures import Recent

REPORT = node_reports.report(
    node="a",
    model="m",
    mode=wire.Mode.MUX,
    in_flight=3,
    max_in_flight=96,
    running=2,
    waiting=1,
    queued_tokens=900,
    kv_usage=0.25,
    kv_pages_total=100,
    max_model_len_tokens=2048,
    split=wire.Split(48, 84),
    prefill_tokens_per_s=12345.6,
    tbt_p50_ms=11.0,
    tbt_p99_ms=23.4,
    tbt_per_request_ms=0.1,
    kv_events_sequence=1,
    uptime_s=5.0,
    prompt_tokens_total=200,
    cached_tokens_total=50,
)


def shown(seen: looking.Seen, width: int = top.WIDTH) -> list[list[str]]:
    """Words of each line."""
    console = Console(width=width)
    with console.capture() as captured:
        console.print(top.picture("demo", seen))
    return [line.split() for line in captured.get().splitlines()]


def test_a_router_with_a_node_that_does_well_and_one_that_does_not() -> None:
    nodes = [
        router_pictures.status_of("a", report=REPORT, in_flight=4, queued_tokens=1000),
        router_pictures.status_of("b", circuit=Circuit.OPEN, eligible=False, draining=True),
    ]
    counters = Counters.fresh(0.4, 0.08)
    recent = Recent()
    recent.sample(counters, 0.0)
    report = recent.report(router_pictures.picture_of(counters, nodes), 10.0)
    lines = shown(RouterSeen(msgspec.structs.replace(report, attainment={"ttft": 0.995, "tbt": 1.0}), nodes))
    assert lines[0] == ["demo"]
    assert lines[1][:7] == ["1", "of", "2", "nodes", "take", "requests;", "0"]
    assert " ".join(lines[3]).endswith("promise kept: tbt 100.0%, ttft 99.5%")
    a, b = lines[-2:]
    assert a == ["a", "healthy", "exact", "mux", "48/84", "4", "1000", "25%", "25%", "12346", "23"]
    assert b[:4] == ["b", "draining,", "circuit", "open"]
    assert b[-1] == "-"


def test_an_ordinary_terminal_is_wide_enough() -> None:
    nodes = [router_pictures.status_of(f"three-nodes-{place}", report=REPORT) for place in range(3)]
    recent = Recent()
    counters = Counters.fresh(0.4, 0.08)
    recent.sample(counters, 0.0)
    seen = RouterSeen(recent.report(router_pictures.picture_of(counters, nodes), 10.0), nodes)
    assert shown(seen, 80)[-5:] == shown(seen)[-5:]


def test_a_node_without_a_router() -> None:
    lines = shown(NodeSeen(msgspec.structs.replace(REPORT, prompt_tokens_total=0, split=None)))
    assert lines[-1] == ["a", "ready", "mux", "-", "3", "900", "25%", "-", "12346", "23"]


def run(name: str) -> runs.Run:
    return runs.Run(name, f"http://127.0.0.1/{name}", "http://127.0.0.1:1", "token", {})


def test_the_newest_run_that_lives_is_found(tmp_path: Path) -> None:
    environ = {"XDG_RUNTIME_DIR": str(tmp_path)}
    assert runs.newest(environ) is None
    with runs.published(run("mine"), environ):
        assert runs.newest(environ) == run("mine")
        (file,) = (tmp_path / "drift").iterdir()
        left = file.with_name("1.json")  # of one that was killed: nobody locks it
        left.write_bytes(msgspec.json.encode(run("killed")))
        os.utime(left, (2**33, 2**33))
        assert runs.newest(environ) == run("mine")
        assert not left.exists()
    assert runs.newest(environ) is None


def test_a_run_is_private_and_known_without_a_runtime_folder_too(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path)}
    with runs.published(run("mine"), environ):
        (file,) = (tmp_path / ".cache" / "drift" / "runs").iterdir()
        assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
        assert runs.newest(environ) == run("mine")


@pytest.mark.parametrize("environ", [{}, {"XDG_RUNTIME_DIR": "/dev/null"}])
def test_a_machine_without_a_folder_for_it_serves_all_the_same(environ: dict[str, str]) -> None:
    with runs.published(run("mine"), environ):
        assert runs.newest(environ) is None


def test_nothing_to_look_at_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert main.main(["top"]) == 1
    assert capsys.readouterr().err.startswith("drift: no `drift up` of yours runs on this machine")
