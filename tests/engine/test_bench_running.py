"""Whole runs against a scripted server, in logical time where time matters."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

import stand_in_api
from drift_cli import main
from drift_engine.bench import metrics, records, results, running, shaping, traces
from drift_engine.bench.preparing import Planned, Wishes
from drift_engine.bench.records import RequestRecord
from drift_engine.bench.replaying import Attempt, replay
from drift_engine.bench.results import Slo, Workload
from drift_engine.bench.servers import Server, ServerError
from drift_engine.bench.traces import Arrival
from stand_in_api import LogicalClock, StandInApi, Stream

PIECES = Path(__file__).parents[1] / "support" / "traces"
DEADLINE_S = 20.0


def steady(requests: int, *, every_s: float = 1.0, prompt: int = 40, output: int = 3) -> tuple[Arrival, ...]:
    return tuple(
        Arrival(
            index=index,
            at_s=index * every_s,
            prompt_tokens=prompt,
            output_tokens=output,
            block_ids=(index,),
            block_tokens=prompt,
        )
        for index in range(requests)
    )


def load(arrivals: tuple[Arrival, ...], **fields: Any) -> running.Load:
    workload = fields.pop("workload", Workload(trace="t", format="synthetic"))
    return running.Load(arrivals=arrivals, workload=workload, **{"timeout_s": DEADLINE_S, **fields})


class Records(running.Watcher):
    def __init__(self) -> None:
        self.all: list[RequestRecord] = []

    def ended(self, record: RequestRecord) -> None:
        self.all.append(record)


def run(
    api: StandInApi, wish: running.Load, clock: LogicalClock | None = None
) -> tuple[running.Outcome, Records]:
    watcher = Records()

    async def whole() -> running.Outcome:
        async with asyncio.timeout(DEADLINE_S), api, Server(api.url) as server:
            return await running.run(server, wish, watcher, clock or LogicalClock())

    return asyncio.run(whole()), watcher


def test_a_run_counts_what_the_server_counts() -> None:
    api = StandInApi()
    outcome, watcher = run(api, load(steady(12, prompt=50, output=4)))
    result = outcome.result
    assert (result.requests, result.failed, result.prompt_tokens, result.output_tokens) == (12, 0, 600, 48)
    assert result.asked_prompt_tokens == 600, "calibrated to the server's tokenizer"
    assert result.server_counts is not None
    assert result.server_counts.agree
    assert result.server_counts.generation_tokens.server == 48
    assert (result.mode, result.model, result.cached_tokens) == ("fused", "stand-in", 12)
    assert result.window_s == pytest.approx(12.0)
    assert result.rate_rps == pytest.approx(1.0)
    assert outcome.warnings == ()
    assert all(stream.body["ignore_eos"] and stream.body["stream"] for stream in api.received)
    assert all(record.exact_counts for record in watcher.all)


def test_behind_a_router_the_mode_is_what_the_model_list_says() -> None:
    result = run(StandInApi(mode="mux"), load(steady(1)))[0].result
    assert (result.mode, result.server_counts) == ("mux", None)


def test_latencies_in_logical_time() -> None:
    clock = LogicalClock()

    async def script(stream: Stream) -> None:
        async with clock.later(0.2):
            await stream.open()
        for after_s in (0.05, 0.01, 0.04):
            async with clock.later(after_s):
                await stream.tokens()
        await stream.finish()

    outcome, watcher = run(StandInApi(script), load(steady(1), slo=Slo(ttft_ms=300, tbt_ms=45)), clock)
    record = watcher.all[0]
    assert record.first_byte_s == pytest.approx(0.2)
    assert record.token_times_s == pytest.approx((0.25, 0.26, 0.3))
    assert outcome.result.attainment == 1.0
    assert outcome.result.tpot_ms.p50 == pytest.approx(25.0)


def test_the_loop_is_open() -> None:
    """Nobody is answered before everybody has asked: a generator that waits for answers would never end."""
    everybody = asyncio.Event()

    async def script(stream: Stream) -> None:
        if len(api.received) == 20:
            everybody.set()
        await everybody.wait()
        await stand_in_api.answer_in_full(stream)

    api = StandInApi(script)
    outcome, _ = run(api, load(steady(20)))
    assert (outcome.result.requests, outcome.result.failed) == (20, 0)


def test_the_concurrency_limit_holds_and_its_wait_is_latency() -> None:
    most, now, clock = 0, 0, LogicalClock()

    async def script(stream: Stream) -> None:
        nonlocal most, now
        now += 1
        most = max(most, now)
        for _ in range(100):
            await asyncio.sleep(0)  # everybody is due by now
        clock.time_s += 1.0
        await stand_in_api.answer_in_full(stream)
        now -= 1

    workload = Workload(trace="t", format="synthetic", concurrency_limit=2)
    outcome, watcher = run(StandInApi(script), load(steady(6, every_s=0.0), workload=workload), clock)
    assert most <= 2
    assert outcome.result.failed == 0
    assert max(record.sent_s or 0.0 for record in watcher.all) >= 2.0
    assert max(record.lag_s for record in watcher.all) == 0.0, (
        "the server's queue is not the generator's fault"
    )


def test_turns_wait_for_the_turn_before() -> None:
    clock, order = LogicalClock(), []

    async def send(body: bytes, attempt: Attempt) -> None:
        order.append(f"{body.decode()} sent")
        attempt.sent_s = clock.now_s()
        if body == b"a0":
            for _ in range(20):
                await asyncio.sleep(0)  # everybody else gets a turn
            clock.time_s += 5.0
        order.append(f"{body.decode()} done")

    made = [
        Arrival(index=index, at_s=at_s, text=text, session=text[0])
        for index, (at_s, text) in enumerate([(0.0, "a0"), (1.0, "b0"), (2.0, "a1"), (3.0, "b1")])
    ]
    ended: list[RequestRecord] = []
    asyncio.run(
        replay(
            [Planned(arrival) for arrival in made],
            lambda arrival: (arrival.text or "").encode(),
            send,
            clock=clock,
            forced_length=False,
            on_end=ended.append,
        )
    )
    assert order.index("b0 sent") < order.index("a0 done") < order.index("a1 sent")
    by_index = {record.index: record for record in ended}
    assert by_index[2].scheduled_s == 2.0
    assert by_index[2].due_s == by_index[0].due_s + by_index[0].end_s == 8.0
    assert by_index[3].due_s == 3.0, "its own session was idle"
    assert all(record.lag_s == 0.0 for record in ended if record.session == "a")


async def refuse(stream: Stream) -> web.StreamResponse:
    return web.json_response({"error": {"message": "the prompt is too long", "code": 400}}, status=400)


async def not_a_stream(stream: Stream) -> web.StreamResponse:
    return web.json_response({"choices": [{"text": "hello"}]})


async def error_event(stream: Stream) -> None:
    await stream.open()
    await stream.tokens()
    await stream.event({"error": {"message": "the core died"}})


async def stop_early(stream: Stream) -> None:
    await stream.open()
    await stream.tokens()


async def break_off(stream: Stream) -> None:
    await stream.open()
    await stream.tokens()
    transport = stream._http.transport
    assert transport is not None
    transport.abort()


async def say_nothing(stream: Stream) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (refuse, "http 400: the prompt is too long"),
        (not_a_stream, "the answer is application/json, not an event stream"),
        (error_event, "stream: the core died"),
        (stop_early, "the stream ended before the answer did"),
        (break_off, "connection: "),
        (say_nothing, "timeout after 0.2 s"),
    ],
)
def test_failures_are_recorded_with_their_reason(script: stand_in_api.Script, reason: str) -> None:
    async def every_other(stream: Stream) -> web.StreamResponse | None:
        bad = len(api.received) % 2 == 0
        return await (script if bad else stand_in_api.answer_in_full)(stream)

    api = StandInApi(every_other)
    wish = load(steady(4), slo=Slo(ttft_ms=1e6), timeout_s=0.2 if script is say_nothing else DEADLINE_S)
    outcome, watcher = run(api, wish)
    assert (outcome.result.requests, outcome.result.failed, outcome.result.attainment) == (4, 2, 0.5)
    assert all(found.startswith(reason) for found in outcome.result.failures)
    assert sum(record.status == "failed" for record in watcher.all) == 2
    assert any("2 of 4 requests failed" in warning for warning in outcome.warnings)


def test_counters_that_disagree_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "SETTLE_S", 0.0)

    async def script(stream: Stream) -> None:
        await stand_in_api.answer_in_full(stream)
        api.generation_total += 1

    api = StandInApi(script)
    outcome, _ = run(api, load(steady(3)))
    assert outcome.result.server_counts is not None
    assert not outcome.result.server_counts.agree
    assert any("generation tokens 12 / 9" in warning for warning in outcome.warnings)


def test_a_server_without_tokenizer_metrics_or_ignore_eos() -> None:
    api = StandInApi(owned_by="somebody", tokenize=False)
    outcome, watcher = run(api, load(steady(2, prompt=100)))
    assert outcome.result.prompt_tokens == 202, "BOS is not known without a tokenizer"
    assert all("ignore_eos" not in stream.body for stream in api.received)
    assert not any(record.forced_length for record in watcher.all)


def test_long_prompts_are_clipped_or_skipped_and_told() -> None:
    arrivals = (*steady(2), *steady(1, prompt=900))
    outcome, _ = run(StandInApi(context_tokens=500), load(arrivals))
    assert (outcome.result.requests, outcome.result.clipped_prompts) == (3, 1)
    assert any("1 prompts" in warning for warning in outcome.warnings)
    outcome, _ = run(StandInApi(context_tokens=500), load(arrivals, wishes=Wishes(overlong="skip")))
    assert (outcome.result.requests, outcome.result.skipped) == (2, 1)
    assert any("1 requests skipped" in warning for warning in outcome.warnings)
    with pytest.raises(ServerError, match="all 1 requests are longer"):
        run(StandInApi(context_tokens=20), load(steady(1, prompt=900), wishes=Wishes(overlong="skip")))


@pytest.mark.parametrize("chat", [False, True])
def test_recorded_sessions_are_sent_as_text(chat: bool) -> None:
    trace = traces.read(PIECES / "agent_sessions_piece.jsonl.gz")
    arrivals = shaping.shape(trace, shaping.Shape(length_scale=0.05))
    api = StandInApi()
    outcome, _ = run(api, load(arrivals, wishes=Wishes(chat=chat)))
    assert (outcome.result.requests, outcome.result.failed) == (14, 0)
    assert {stream.prompt for stream in api.received} == {arrival.text for arrival in arrivals}
    assert all(stream.chat == chat for stream in api.received)
    assert outcome.result.asked_prompt_tokens == outcome.result.prompt_tokens


def test_mooncake_prompts_share_what_their_ids_share() -> None:
    trace = traces.read(PIECES / "mooncake_conversation_piece.jsonl")
    arrivals = shaping.shape(trace, shaping.Shape(length_scale=0.05, requests=10))
    api = StandInApi()
    outcome, _ = run(api, load(arrivals))
    assert outcome.result.failed == 0
    prompts = [stream.prompt.split() for stream in api.received]
    block = arrivals[0].block_tokens
    assert len({tuple(prompt[: block - 1]) for prompt in prompts}) == 1, "all share the block 0"
    assert len({tuple(prompt[block : 2 * block]) for prompt in prompts}) > 1


@pytest.mark.parametrize(
    ("model", "complaint"), [("other", "model 'other' is not served, only stand-in"), (None, None)]
)
def test_the_model_is_asked_for(model: str | None, complaint: str | None) -> None:
    if complaint is None:
        assert run(StandInApi(), load(steady(1), model=model))[0].result.model == "stand-in"
    else:
        with pytest.raises(ServerError, match=complaint):
            run(StandInApi(), load(steady(1), model=model))


def test_a_full_disk_costs_the_log_and_not_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise records.LogError("tokens.jsonl: can't be written: No space left on device")

    monkeypatch.setattr(records.LogWriter, "append", full)
    outcome, _ = run(StandInApi(), load(steady(3), log_path=tmp_path / "tokens.jsonl"))
    assert outcome.result.failed == 0
    assert outcome.warnings == (
        "the log is incomplete: tokens.jsonl: can't be written: No space left on device",
    )


def command_line(url: str, *arguments: str) -> list[str]:
    return ["bench", "--url", url, "--poisson", "500", "--requests", "5", "--output-tokens", "3", *arguments]


def test_command_line_writes_result_and_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, log = tmp_path / "a.json", tmp_path / "tokens.jsonl"
    with stand_in_api.in_thread(StandInApi()) as api:
        arguments = ("--json", str(out), "--log", str(log), "--slo-ttft-ms", "60000", "--slo-tbt-ms", "60000")
        assert main.main(command_line(api.url, *arguments, "--api-key", "secret")) == 0
        assert main.main(command_line(api.url, "--json", "-", "--quiet")) == 0
    shown = capsys.readouterr().out
    assert "TTFT ms" in shown
    assert json.loads(shown[shown.index("{") :])["requests"] == 5
    result = results.read(out)
    assert (result.requests, result.attainment) == (5, 1.0)
    assert "secret" not in out.read_text()
    summary = metrics.summarize(records.read(log), result.slo)
    assert summary["tbt_ms"] == result.tbt_ms, "the log alone gives the same numbers"
    assert main.main(["bench", "--compare", str(out), str(out)]) == 0
    assert "1.000" in capsys.readouterr().out


def test_command_line_tells_failures_by_its_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    with stand_in_api.in_thread(StandInApi(refuse)) as api:
        assert main.main(command_line(api.url, "--quiet")) == 1
        assert main.main(command_line(api.url, "--quiet", "--allow-failures")) == 0
    told = capsys.readouterr()
    assert told.out == ""
    assert "5 of 5 requests failed: 5 x http 400: the prompt is too long" in told.err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "--url is needed"),
        (["--url", "http://h"], "--trace FILE or --poisson RATE is needed"),
        (["--url", "http://h", "--poisson", "1"], "--poisson needs --requests or --duration"),
        (["--url", "h:80", "--poisson", "1", "--requests", "1"], "url: 'h:80' does not start with"),
        (["--url", "http://h", "--poisson", "-1", "--requests", "1"], "rate_rps: -1.0 is not above 0"),
        (["--url", "http://h", "--poisson", "1", "--requests", "1", "--timeout-s", "0"], "--timeout-s: 0.0"),
        (
            ["--url", "http://h", "--poisson", "1", "--requests", "1", "--attainment", "2"],
            "attainment_target: 2",
        ),
    ],
)
def test_command_line_names_what_is_wrong(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["bench", *arguments]) == 2
    assert complaint in capsys.readouterr().err


def held(until: int, then: Callable[[], None]) -> stand_in_api.Script:
    """Answers begin and never end; `then` is called when so many have begun."""
    begun = 0

    async def script(stream: Stream) -> None:
        nonlocal begun
        await stream.open()
        await stream.tokens()
        begun += 1
        if begun == until:
            then()
        await asyncio.Event().wait()

    return script


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_the_run_and_writes_what_is_there(
    number: signal.Signals, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, log = tmp_path / "a.json", tmp_path / "tokens.jsonl"
    script = held(6, lambda: os.kill(os.getpid(), number))
    with stand_in_api.in_thread(StandInApi(script)) as api:
        arguments = ["bench", "--url", api.url, "--trace", str(PIECES / "mooncake_conversation_piece.jsonl")]
        arguments += ["--requests", "7", "--rate-scale", "0.01", "--length-scale", "0.01"]
        assert main.main([*arguments, "--json", str(out), "--log", str(log)]) == 130
    result = results.read(out)
    assert result.interrupted
    assert result.requests == result.failed == len(records.read(log)) == 6, "the seventh was not due"
    assert result.failures == {"interrupted": 6}
    assert "interrupted: the result covers" in capsys.readouterr().err
