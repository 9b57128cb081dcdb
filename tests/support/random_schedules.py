"""Requests that come and go at any step, for tests that let a core run out of order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from hypothesis import strategies as st

from core_harness import Harness
from drift_engine import wire

VOCAB = 200  # ids below every special token of the test checkpoints

Request = tuple[str, list[int], wire.Sampling]

STEPS = 50
"""Of a schedule, before the harness runs to the end."""

STEPS_AFTER = 200
"""What was launched for cancelled requests ends within these."""


class Scheduled(NamedTuple):
    request: Request
    submitted_step: int
    cancelled_step: int | None


@st.composite
def workloads(draw: st.DrawFn, most_requests: int = 6, most_tokens: int = 12) -> list[Scheduled]:
    """Some of the prompts begin with one stem."""
    stem = draw(st.lists(st.integers(0, VOCAB - 1), min_size=0, max_size=24))
    scheduled = []
    for index in range(draw(st.integers(1, most_requests))):
        tail = draw(st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=30))
        sampling = wire.Sampling(
            max_tokens=draw(st.integers(1, most_tokens)),
            temperature=draw(st.sampled_from([0.0, 0.9])),
            seed=draw(st.integers(0, 1000)),
            ignore_eos=True,
            presence_penalty=draw(st.sampled_from([0.0, 0.5])),
        )
        submitted = draw(st.integers(0, 30))
        cancelled = draw(st.sampled_from([None, None, submitted, submitted + 3, submitted + 12]))
        prompt = (stem if draw(st.booleans()) else []) + tail
        scheduled.append(Scheduled((f"r{index}", prompt, sampling), submitted, cancelled))
    return scheduled


def play(harness: Harness, workload: Sequence[Scheduled], expected: Mapping[str, Sequence[int]]) -> None:
    """Every request has its expected tokens, a cancelled one the first of them, and no page is lost."""
    gone = set()
    for step in range(STEPS):
        for index, (request, submitted, cancelled) in enumerate(workload):
            if submitted == step:
                harness.submit(*request, arrival_s=step + index / 100)
            if cancelled == step and harness.answers[request[0]].finish is None:
                harness.cancel(request[0])
                gone.add(request[0])
        harness.step()
    cut_short = {name: harness.answers.pop(name) for name in gone}
    harness.answers |= {name: a for name, a in cut_short.items() if a.finish is not None}
    harness.run()
    for _ in range(STEPS_AFTER):
        harness.step()
    for name, answer in harness.answers.items():
        assert answer.token_ids == expected[name], name
    for name, answer in cut_short.items():
        assert answer.token_ids == expected[name][: len(answer.token_ids)], name
    assert harness.cache.pages_held == 0
    harness.cache.check_integrity()
