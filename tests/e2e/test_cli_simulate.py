"""`drift simulate`, from a recorded trace to files."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from drift_cli import main
from drift_engine.bench import metrics, records, results
from drift_engine.hardware import profiles, shapes
from drift_router.snapshots import Policy

TRACES = Path(__file__).parents[1] / "support" / "traces"
MOONCAKE = str(TRACES / "mooncake_conversation_piece.jsonl")
AZURE = str(TRACES / "azure2023_conversation_piece.csv")
SESSIONS = str(TRACES / "agent_sessions_piece.jsonl.gz")
PROMISE = ("--slo-ttft-ms", "1000", "--slo-tbt-ms", "25", "--attainment", "0.9")
POISSON = ("--poisson", "4", "--requests", "12", "--prompt-tokens", "300", "--output-tokens", "10")


def simulate(*arguments: str) -> int:
    """The exit code."""
    try:
        return main.main(["simulate", *arguments])
    except SystemExit as end:
        return int(end.code or 0)


def test_a_trace_as_a_user_runs_it(tmp_path: Path) -> None:
    out, log = tmp_path / "result.json", tmp_path / "tokens.jsonl"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "drift_cli", "simulate", "--trace", MOONCAKE, "--spread", "--nodes", "2"),
            *(*PROMISE, "--json", str(out), "--log", str(log)),
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "llama-8b on 2 simulated nodes of h200, mode auto" in done.stdout
    assert "promise" in done.stdout
    result = results.read(out)
    assert (result.kind, result.requests, result.failed, result.nodes) == ("simulate", 32, 0, 2)
    assert (result.workload.trace, result.workload.arrivals) == (Path(MOONCAKE).name, "spread")
    assert str(tmp_path) not in result.command
    summary = metrics.summarize(records.read(log), result.slo)
    for field in ("attainment", "ttft_ms", "tbt_ms", "cached_tokens", "output_tokens", "goodput_rps"):
        assert summary[field] == getattr(result, field)
    assert result.cached_tokens > 0


@pytest.mark.parametrize("trace", [AZURE, SESSIONS])
@pytest.mark.parametrize("mode", ["mux", "fused"])
def test_other_traces(trace: str, mode: str, tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    more = ("--gpus", "4", "--model", "llama-70b", "--routing", "round-robin", "--hardware", "h100")
    assert simulate("--trace", trace, "--mode", mode, *more, "--json", str(out), "--quiet") == 0
    result = results.read(out)
    assert (result.mode, result.hardware, result.failed) == (mode, "4 x h100", 0)
    assert result.attainment is None
    assert result.output_tokens == result.asked_output_tokens
    if trace == AZURE:
        assert result.cached_tokens == 0


def test_the_routers_policies_in_front_of_nodes(tmp_path: Path) -> None:
    """Turns of sessions: who looks at caches finds them, also with rates that are misjudged."""
    cached = {}
    for policy in Policy:
        out = tmp_path / f"{policy}.json"
        more = ("--routing", policy, "--routing-error", "0.3", "--nodes", "4", "--json", str(out), "--quiet")
        assert simulate("--trace", SESSIONS, *PROMISE, *more) == 0
        result = results.read(out)
        assert (result.routing, result.failed) == (policy, 0)
        cached[policy] = result.cached_tokens or 0
    assert min(cached[Policy.CACHE_AWARE], cached[Policy.PREFIX_HASH]) > 1.3 * cached[Policy.ROUND_ROBIN]


def test_levers_and_a_node_that_dies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, decisions = tmp_path / "result.json", tmp_path / "decisions.jsonl"
    options = ("--poisson", "9", "--requests", "90", "--prompt-tokens", "3000", "--output-tokens", "10")
    levers = (
        "--nodes",
        "2",
        "--levers",
        "all",
        "--max-nodes",
        "3",
        "--start-up",
        "2",
        "--fail-node-at",
        "4:1",
    )
    more = ("--json", str(out), "--decisions", str(decisions))
    assert simulate(*options, *PROMISE, *levers, *more) == 0
    result = results.read(out)
    assert (result.requests, result.failed, result.levers) == (90, 0, "all")
    assert result.nodes_least == 1
    assert (result.gpu_s or 0) > 0
    assert "nodes that served" in capsys.readouterr().out
    moved = [json.loads(line)["lever"] for line in decisions.read_text().splitlines()]
    assert {lever: moved.count(lever) for lever in set(moved)} == result.lever_moves


def test_the_same_options_give_the_same_result(tmp_path: Path) -> None:
    seen = []
    for name in ("one", "two"):
        options = ("--trace", SESSIONS, "--nodes", "3", "--rate-scale", "5", *PROMISE, "--quiet")
        out, log = tmp_path / f"{name}.json", tmp_path / f"{name}.jsonl"
        assert simulate(*options, "--json", str(out), "--log", str(log)) == 0
        found = json.loads(out.read_bytes())
        seen.append(({**found, "date": None, "realtime_factor": None, "command": None}, log.read_bytes()))
    assert seen[0] == seen[1]


def test_the_result_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate(*POISSON, "--json", "-") == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["requests"] == 12
    assert said.err == ""


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate(*POISSON, "--quiet") == 0
    assert capsys.readouterr() == ("", "")


def test_timelines(tmp_path: Path) -> None:
    trace, picture = tmp_path / "run.json", tmp_path / "run.svg"
    for file in (trace, picture):
        options = ("--trace", MOONCAKE, "--mode", "mux", "--slo-tbt-ms", "12", "--quiet")
        assert simulate(*options, "--timeline", str(file)) == 0
    events = json.loads(trace.read_bytes())["traceEvents"]
    lanes = {event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert "whole" in lanes
    assert {lane.partition("-")[0] for lane in lanes} == {"whole", "decode", "prefill"}
    by_lane: dict[int, list[dict[str, Any]]] = {}
    for event in events:
        if event["ph"] == "X":
            by_lane.setdefault(event["tid"], []).append(event)
    for spans in by_lane.values():
        spans.sort(key=lambda span: span["ts"])
        for before, after in itertools.pairwise(spans):
            assert before["ts"] + before["dur"] <= after["ts"] + 0.2  # rounded to 0.1 us
    assert ElementTree.fromstring(picture.read_text()).tag == "{http://www.w3.org/2000/svg}svg"


def test_a_sweep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "sweep.json"
    options = ("--poisson", "2", "--requests", "30", "--prompt-tokens", "4000", "--output-tokens", "4")
    assert simulate(*options, *PROMISE, "--sweep", "rate", "--json", str(out)) == 0
    result = results.read(out)
    assert result.sweep is not None
    assert result.sweep.goodput_rps is not None
    assert result.attained
    assert result.rate_rps == pytest.approx(result.sweep.goodput_rps)
    assert {tried.kept for tried in result.sweep.tried} == {True, False}
    assert "highest rate that keeps it" in capsys.readouterr().out


def test_a_promise_that_no_rate_keeps_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate(*POISSON, "--slo-ttft-ms", "0.01", "--sweep", "rate", "--quiet") == 0
    said = capsys.readouterr()
    assert said.err == "warning: the promise is kept at no rate; the result is of the slowest run\n"


def test_a_promise_that_every_rate_keeps_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--poisson", "4", "--requests", "2", "--prompt-tokens", "300", "--output-tokens", "2")
    assert simulate(*options, "--slo-ttft-ms", "100000", "--sweep", "rate", "--quiet") == 0
    said = capsys.readouterr()
    assert said.err == "warning: the promise is kept at every rate; the result is of the fastest run\n"


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ((), 2, "--trace FILE or --poisson RATE is needed, not both"),
        (("--trace", MOONCAKE, "--poisson", "1"), 2, "--trace FILE or --poisson RATE is needed, not both"),
        (("--poisson", "1"), 2, "--poisson needs --requests or --duration"),
        (("--trace", MOONCAKE, "--rate-scale", "0"), 2, "rate_scale: 0.0 is not above 0"),
        ((*POISSON, "--nodes", "0"), 2, "nodes: 0 is below 1"),
        ((*POISSON, "--gpus", "0"), 2, "gpus: 0 is below 1"),
        ((*POISSON, "--max-running", "0"), 2, "max_running: 0 is below 1"),
        ((*POISSON, "--chunk-tokens", "0"), 2, "chunk_tokens: 0 is below 1"),
        ((*POISSON, "--slo-tbt-ms", "0"), 2, "slo.tbt_ms: 0.0 is not above 0"),
        (
            (*POISSON, "--slo-tbt-ms", "9", "--attainment", "2"),
            2,
            "slo.attainment_target: 2.0 is not in (0, 1]",
        ),
        ((*POISSON, "--sweep", "rate"), 2, "--sweep needs a promise: --slo-ttft-ms, --slo-tbt-ms or both"),
        (("--poisson", "1", "--requests", "1", *PROMISE, "--sweep", "rate"), 2, "at one instant"),
        ((*POISSON, "--nodes", "many"), 2, "argument --nodes: invalid int value: 'many'"),
        ((*POISSON, "--mode", "best"), 2, "argument --mode: invalid Mode value: 'best'"),
        ((*POISSON, "--routing", "best"), 2, "argument --policy/--routing: invalid Policy value: 'best'"),
        ((*POISSON, "--routing-error", "-1"), 2, "--routing-error: -1 is not between 0 and 2"),
        ((*POISSON, "--levers", "some"), 2, "argument --levers: invalid Levers value: 'some'"),
        ((*POISSON, "--levers", "split"), 2, "--levers needs a promise of both"),
        ((*POISSON, "--max-nodes", "3"), 2, "--max-nodes needs --levers all"),
        (
            (*POISSON, "--fail-node-at", "x"),
            2,
            "argument --fail-node-at: 'x' is not of the form SECONDS or SECONDS:NODE",
        ),
        ((*POISSON, "--fail-node-at", "3:1"), 2, "--fail-node-at: node 1 is not among 1 nodes"),
        ((*POISSON, "--decisions", "/nowhere/d.jsonl"), 1, "/nowhere/d.jsonl: can't be written"),
        (("--trace", "/nowhere.jsonl"), 1, "/nowhere.jsonl: can't be read"),
        ((*POISSON, "--model", "gpt-2"), 1, f"known: {', '.join(shapes.names())}"),
        ((*POISSON, "--hardware", "tpu"), 1, f"known: {', '.join(profiles.names())}"),
        ((*POISSON, "--model", "llama-70b"), 1, "take more GPUs"),
        ((*POISSON, "--gpus", "3"), 1, "gpus: 3 does not divide"),
        ((*POISSON, "--timeline", "run.png"), 1, "timeline: run.png ends in neither .json nor .svg"),
        ((*POISSON, "--timeline", "/nowhere/run.svg"), 1, "timeline: /nowhere is no folder"),
        ((*POISSON, "--json", "/nowhere/out.json", "--quiet"), 1, "/nowhere/out.json: can't be written"),
        ((*POISSON, "--log", "/nowhere/log.jsonl", "--quiet"), 1, "/nowhere/log.jsonl: can't be written"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_bad_options_are_one_line(
    arguments: tuple[str, ...], status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert simulate(*arguments) == status
    out, err = capsys.readouterr()
    assert out == ""
    line, *hint = err.splitlines()
    assert said in line
    assert hint in ([], ["Try `drift simulate --help`."])


def test_files_that_cannot_be_written_are_known_before_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A simulation may take minutes."""
    out = tmp_path / "result.json"
    missing = str(tmp_path / "nowhere" / "file.jsonl")
    assert simulate(*POISSON, "--json", str(out), "--log", missing) == 1
    assert not out.exists()
    assert capsys.readouterr().out == ""


def test_it_loads_no_torch_and_no_client() -> None:
    script = f"""
import sys
from drift_cli.main import main
assert main({["simulate", *POISSON, "--quiet"]!r}) == 0
heavy = {{"torch", "triton", "transformers", "fastapi", "matplotlib", "aiohttp"}} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
