"""What `modes` of the GPU benchmark plays: arrivals, sessions, and which turns count as kept."""

from __future__ import annotations

import itertools
import random
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.gpu import open_loop, workloads
from benchmarks.gpu.open_loop import News
from benchmarks.gpu.workloads import Session, Turn


class Server:
    """Answers at once, with tokens `gap_s` apart; notes what it was asked."""

    def __init__(self, gap_s: float = 0.01, *, silent: bool = False) -> None:
        self.gap_s = gap_s
        self.silent = silent
        self.asked: list[tuple[str, list[int], int]] = []
        self.waiting: list[tuple[str, list[int], int]] = []

    def submit(self, name: str, prompt: list[int], answer_tokens: int) -> None:
        self.asked.append((name, prompt, answer_tokens))
        self.waiting.append((name, prompt, answer_tokens))

    def poll(self) -> list[News]:
        waiting, self.waiting = self.waiting, []
        if self.silent:
            return []
        now_s = time.perf_counter()
        return [
            News(name, [7] * count, [now_s + self.gap_s * k for k in range(1, count + 1)], ended=True)
            for name, _, count in waiting
        ]


SESSIONS = [Session(0.0, (Turn(5, 3), Turn(2, 4))), Session(0.001, (Turn(6, 1),))]


def play(
    server: Server, *, tbt_ms: float, context_tokens: int = 100, limit_s: float = 20.0
) -> dict[str, float]:
    return open_loop.play(
        server,
        SESSIONS,
        vocab=50,
        stem_tokens=4,
        context_tokens=context_tokens,
        limit_s=limit_s,
        ttft_ms=10_000.0,
        tbt_ms=tbt_ms,
    )


def test_a_turns_prompt_is_all_that_was_said_and_new_tokens() -> None:
    server = Server()
    found = play(server, tbt_ms=15.0)
    prompts = {name: prompt for name, prompt, _ in server.asked}
    assert set(prompts) == {"0-1", "0-0", "1-0"}
    assert prompts["0-0"][:12] == [*prompts["0-1"], 7, 7, 7]
    assert len(prompts["0-0"]) == 4 + 5 + 3 + 2
    assert prompts["1-0"][:4] == prompts["0-1"][:4]
    assert (found["turns"], found["ended"]) == (3, 3)


def test_kept_turns_have_every_gap_within_the_target() -> None:
    assert play(Server(), tbt_ms=15.0)["kept_share"] == 1.0
    found = play(Server(), tbt_ms=5.0)
    assert found["kept_share"] == pytest.approx(1 / 3)  # one token has no gap
    assert found["ttft_kept_share"] == 1.0
    assert found["tbt_ms_p50"] == pytest.approx(10.0)


def test_what_does_not_end_is_not_kept() -> None:
    found = play(Server(silent=True), tbt_ms=15.0, limit_s=0.05)
    assert (found["turns"], found["ended"], found["kept_share"]) == (2, 0, 0.0)


def test_a_session_ends_where_the_models_context_does() -> None:
    server = Server()
    play(server, tbt_ms=15.0, context_tokens=15)
    assert {name for name, _, _ in server.asked} == {"0-1", "1-0"}


@pytest.mark.parametrize("workload", workloads.WORKLOADS)
def test_sessions_repeat_and_have_their_rate(workload: workloads.Workload) -> None:
    sessions = workload.sessions(50.0, 20.0, seed=3)
    assert sessions == workload.sessions(50.0, 20.0, seed=3)
    assert 800 < len(sessions) < 1200
    assert all(a.at_s <= b.at_s for a, b in itertools.pairwise(sessions))
    new_tokens, answer_tokens = workload.means()
    draws = random.Random(5)
    turns = [turn for _ in range(2000) for turn in workload.turns(draws)]
    assert sum(turn.new_tokens for turn in turns) / 2000 == pytest.approx(new_tokens, rel=0.15)
    assert sum(turn.answer_tokens for turn in turns) / 2000 == pytest.approx(answer_tokens, rel=0.15)
