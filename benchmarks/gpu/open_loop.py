"""Plays a workload against a server in real time: sessions start when they arrive, whatever the server does.

A turn is sent when its session's answer before it has ended. What is unfinished at the end counts as not kept.
"""

from __future__ import annotations

import itertools
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from benchmarks.gpu.workloads import Session, Turn


@dataclass(frozen=True)
class News:
    """Tokens of a turn and when they came, by `time.perf_counter`."""

    name: str
    token_ids: list[int]
    times_s: list[float]
    ended: bool


class Server(Protocol):
    def submit(self, name: str, prompt: list[int], answer_tokens: int) -> None: ...

    def poll(self) -> list[News]:
        """What came since the last time; returns within some milliseconds."""


@dataclass
class _Answer:
    session: int
    sent_s: float
    times_s: list[float] = field(default_factory=list)
    ended: bool = False


def play(
    server: Server,
    sessions: Sequence[Session],
    *,
    vocab: int,
    stem_tokens: int,
    context_tokens: int,
    limit_s: float,
    ttft_ms: float,
    tbt_ms: float,
) -> dict[str, Any]:
    """Until all sessions ended or the time is up."""
    draws = random.Random(1)
    stem = draws.choices(range(vocab), k=stem_tokens)
    said = [list(stem) for _ in sessions]
    left: list[list[Turn]] = [list(session.turns) for session in sessions]
    answers: dict[str, _Answer] = {}
    start_s = time.perf_counter()

    def send(index: int, at_s: float) -> None:
        turn = left[index].pop(0)
        if len(said[index]) + turn.new_tokens + turn.answer_tokens >= context_tokens:
            left[index] = []  # the session ends where the model's context does
            return
        said[index] += draws.choices(range(vocab), k=turn.new_tokens)
        name = f"{index}-{len(left[index])}"
        answers[name] = _Answer(index, at_s)
        server.submit(name, list(said[index]), turn.answer_tokens)

    started = 0
    while (now_s := time.perf_counter()) < start_s + limit_s:
        while started < len(sessions) and start_s + sessions[started].at_s <= now_s:
            send(started, start_s + sessions[started].at_s)
            started += 1
        for news in server.poll():
            answer = answers[news.name]
            answer.times_s += news.times_s
            said[answer.session] += news.token_ids
            if news.ended:
                answer.ended = True
                if left[answer.session]:
                    send(answer.session, time.perf_counter())
        if started == len(sessions) and all(answer.ended for answer in answers.values()):
            break
    return _summary(list(answers.values()), time.perf_counter() - start_s, ttft_ms, tbt_ms)


def _summary(answers: list[_Answer], seconds: float, ttft_ms: float, tbt_ms: float) -> dict[str, Any]:
    """`kept` turns met the TTFT and had every gap within the TBT; `kept_mean` had their mean gap within it."""
    ttfts = [1e3 * (a.times_s[0] - a.sent_s) for a in answers if a.times_s]
    gaps = [_gaps_ms(answer) for answer in answers]
    flat = sorted(gap for some in gaps for gap in some)
    in_time = [bool(a.ended and 1e3 * (a.times_s[0] - a.sent_s) <= ttft_ms) for a in answers]
    kept = [ok and max(some, default=0.0) <= tbt_ms for ok, some in zip(in_time, gaps, strict=True)]
    kept_mean = [
        ok and (not some or statistics.mean(some) <= tbt_ms) for ok, some in zip(in_time, gaps, strict=True)
    ]
    if not answers:
        return {"turns": 0, "seconds": seconds}
    return {
        "turns": len(answers),
        "ended": sum(answer.ended for answer in answers),
        "seconds": seconds,
        "kept_share": sum(kept) / len(answers),
        "kept_mean_share": sum(kept_mean) / len(answers),
        "ttft_kept_share": sum(in_time) / len(answers),
        "ttft_ms_mean": statistics.mean(ttfts) if ttfts else None,
        "ttft_ms_p99": _quantile(sorted(ttfts), 0.99),
        "tbt_ms_p50": _quantile(flat, 0.5),
        "tbt_ms_p99": _quantile(flat, 0.99),
        "new_tokens_per_s": sum(len(answer.times_s) for answer in answers) / seconds,
    }


def _gaps_ms(answer: _Answer) -> list[float]:
    times = answer.times_s
    return [1e3 * (later - earlier) for earlier, later in itertools.pairwise(times)]


def _quantile(ordered: list[float], share: float) -> float | None:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None
