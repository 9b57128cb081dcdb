"""What the planner decides, from pictures of requests and memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drift_engine import wire
from drift_engine.scheduling import planner
from drift_engine.scheduling.latency import MeasuredRates
from drift_engine.scheduling.views import Limits, Memory, Running, State, Waiting

PAGE_TOKENS = 4


def state(
    *,
    waiting: tuple[Waiting, ...] = (),
    running: tuple[Running, ...] = (),
    free: int = 100,
    evictable: int = 0,
    max_running: int = 8,
    chunk_tokens: int | None = None,
    max_step_tokens: int = 512,
) -> State:
    total = free + evictable + sum(-(-r.computed_tokens // PAGE_TOKENS) for r in running)
    return State(
        waiting,
        running,
        Memory(PAGE_TOKENS, total, free, evictable),
        Limits(max_running, chunk_tokens, max_step_tokens),
    )


def new(
    name: str,
    tokens: int,
    *,
    cached: int = 0,
    idle: int | None = None,
    arrival_s: float = 0.0,
    priority: int = 0,
) -> Waiting:
    """`idle` None: nobody else holds the cached pages."""
    return Waiting(name, tokens, cached, cached // PAGE_TOKENS if idle is None else idle, arrival_s, priority)


def decoding(name: str, context: int, *, arrival_s: float = 0.0, priority: int = 0) -> Running:
    return Running(name, context, 1, arrival_s, 0.08, priority)


def rates(decode_s: float, prefill_s_per_token: float) -> MeasuredRates:
    model = MeasuredRates()
    for rows in (1, 8, 16):
        model.observe(prefill_tokens=0, decode_rows=rows, seconds=decode_s)
    for tokens in (64, 256, 512):
        model.observe(prefill_tokens=tokens, decode_rows=0, seconds=tokens * prefill_s_per_token)
    return model


def test_fused_serves_decodes_and_a_chunk_in_one_pass() -> None:
    plan = planner.plan(
        wire.Mode.FUSED,
        state(waiting=(new("p", 300),), running=(decoding("d", 9),), chunk_tokens=64),
        MeasuredRates(),
        0.0,
    )
    assert plan.decode == ("d",)
    assert plan.admit == ("p",)
    assert [(chunk.request_id, chunk.tokens) for chunk in plan.prefill] == [("p", 63)]


def test_prefill_first_leaves_decodes_waiting_while_a_prompt_is_there() -> None:
    plan = planner.plan(
        wire.Mode.PREFILL_FIRST,
        state(waiting=(new("p", 300),), running=(decoding("d", 9),)),
        MeasuredRates(),
        0.0,
    )
    assert plan.decode == ()
    assert plan.prefill[0].tokens == 300


def test_the_chunk_fills_what_the_tbt_target_leaves() -> None:
    latency = rates(decode_s=0.02, prefill_s_per_token=0.0005)
    plan = planner.plan(
        wire.Mode.FUSED, state(waiting=(new("p", 300),), running=(decoding("d", 9),)), latency, 0.0
    )
    # 80 ms * 0.9 - 20 ms = 52 ms, at 0.5 ms a token
    assert plan.prefill[0].tokens == pytest.approx(104, abs=2)


def test_prefill_moves_even_when_the_target_can_not_be_met() -> None:
    latency = rates(decode_s=0.2, prefill_s_per_token=0.01)
    plan = planner.plan(
        wire.Mode.FUSED, state(waiting=(new("p", 300),), running=(decoding("d", 9),)), latency, 0.0
    )
    assert plan.prefill[0].tokens == planner.MIN_CHUNK_TOKENS


def test_without_decodes_the_chunk_is_as_large_as_a_step_may_be() -> None:
    plan = planner.plan(wire.Mode.FUSED, state(waiting=(new("p", 1000),)), MeasuredRates(), 0.0)
    assert plan.prefill[0].tokens == 512


def test_cached_tokens_are_not_computed_again() -> None:
    plan = planner.plan(wire.Mode.FUSED, state(waiting=(new("p", 100, cached=96),)), MeasuredRates(), 0.0)
    assert plan.prefill[0].tokens == 4


def test_the_latest_of_the_lowest_priority_is_preempted() -> None:
    running = (
        decoding("old", 8, arrival_s=1.0),
        decoding("important", 8, arrival_s=3.0, priority=1),
        decoding("late", 8, arrival_s=2.0),
    )
    plan = planner.plan(wire.Mode.FUSED, state(running=running, free=2), MeasuredRates(), 0.0)
    assert plan.preempt == ("late",)
    assert plan.decode == ("old", "important")


def test_nobody_is_admitted_into_a_full_cache() -> None:
    plan = planner.plan(
        wire.Mode.FUSED,
        state(waiting=(new("p", 40),), running=(decoding("d", 7),), free=10),
        MeasuredRates(),
        0.0,
    )
    assert plan.admit == ()


def test_pages_that_others_hold_need_no_room() -> None:
    crowded = (decoding("d", 39),)
    for idle, admitted in ((10, ()), (0, ("p",))):
        plan = planner.plan(
            wire.Mode.FUSED,
            state(waiting=(new("p", 44, cached=40, idle=idle),), running=crowded, free=5),
            MeasuredRates(),
            0.0,
        )
        assert plan.admit == admitted


def test_a_request_behind_one_that_does_not_fit_waits_too() -> None:
    waiting = (new("large", 400, arrival_s=1.0), new("small", 4, arrival_s=2.0))
    plan = planner.plan(
        wire.Mode.FUSED, state(waiting=waiting, running=(decoding("d", 7),), free=20), MeasuredRates(), 0.0
    )
    assert plan.admit == ()


@st.composite
def states(draw: st.DrawFn) -> State:
    running = tuple(
        Running(
            f"r{i}",
            draw(st.integers(0, 60)),
            draw(st.sampled_from([1, 1, 5, 40])),
            float(i),
            0.08,
            draw(st.integers(0, 2)),
        )
        for i in range(draw(st.integers(0, 6)))
    )
    waiting = tuple(
        new(f"w{i}", tokens := draw(st.integers(1, 80)), cached=draw(st.integers(0, tokens - 1)) // 4 * 4)
        for i in range(draw(st.integers(0, 4)))
    )
    return state(
        waiting=waiting,
        running=running,
        free=draw(st.integers(0, 30)),
        evictable=draw(st.integers(0, 30)),
        chunk_tokens=draw(st.sampled_from([None, 1, 8, 64])),
        max_step_tokens=draw(st.sampled_from([16, 512])),
    )


@given(picture=states(), mode=st.sampled_from(list(wire.Mode)))
def test_every_plan_can_be_carried_out(picture: State, mode: wire.Mode) -> None:
    plan = planner.plan(mode, picture, rates(0.02, 0.0005), 0.0)
    running = {r.request_id: r for r in picture.running}
    waiting = {w.request_id: w for w in picture.waiting}
    memory = picture.memory
    computed = [*plan.decode, *(chunk.request_id for chunk in plan.prefill)]
    assert len(set(computed)) == len(computed)
    assert not set(computed) & set(plan.preempt)
    assert set(plan.admit) <= set(waiting)
    assert len(running) - len(plan.preempt) + len(plan.admit) <= max(picture.limits.max_running, len(running))
    for chunk in plan.prefill:
        request = running.get(chunk.request_id) or waiting[chunk.request_id]
        left = request.remaining_tokens if isinstance(request, Running) else request.tokens
        assert 0 < chunk.tokens <= left
    freed = sum(memory.pages(running[name].computed_tokens) for name in plan.preempt)
    needed = sum(memory.growth(running[name].computed_tokens, 1) for name in plan.decode) + sum(
        memory.growth(running[c.request_id].computed_tokens, c.tokens)
        if c.request_id in running
        else memory.pages(waiting[c.request_id].cached_tokens + c.tokens)
        for c in plan.prefill
    )
    if (
        len(running) - len(plan.preempt) + len(plan.admit) > 1
    ):  # one alone always fits: its length was checked when it came
        assert needed <= memory.pages_free + memory.pages_evictable + freed


@given(picture=states(), mode=st.sampled_from(list(wire.Mode)))
def test_somebody_always_moves(picture: State, mode: wire.Mode) -> None:
    plan = planner.plan(mode, picture, MeasuredRates(), 0.0)
    if picture.running or picture.waiting:
        room = picture.memory.pages_free + picture.memory.pages_evictable
        assert not plan.empty or plan.preempt or (len(picture.running) == 1 and room == 0)
