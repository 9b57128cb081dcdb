"""A request's tokens do not depend on how it was scheduled: chunked, preempted, resumed, batched or reused."""

from __future__ import annotations

from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import core_harness
from core_harness import Harness
from drift_engine import wire
from drift_engine.models.transformer import Transformer

VOCAB = 200  # ids below every special token of the test checkpoints

model = core_harness.model


@st.composite
def workloads(draw: st.DrawFn) -> list[tuple[str, list[int], wire.Sampling, int]]:
    """Requests with shared prefixes, greedy or seeded, each with the step at which it is submitted."""
    stem = draw(st.lists(st.integers(0, VOCAB - 1), min_size=0, max_size=24))
    requests = []
    for index in range(draw(st.integers(1, 5))):
        tail = draw(st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=30))
        prompt = (stem if draw(st.booleans()) else []) + tail
        sampling = wire.Sampling(
            max_tokens=draw(st.integers(1, 12)),
            temperature=draw(st.sampled_from([0.0, 0.9])),
            top_p=draw(st.sampled_from([1.0, 0.8])),
            seed=draw(st.integers(0, 1000)),
            ignore_eos=True,
            presence_penalty=draw(st.sampled_from([0.0, 0.5])),
        )
        requests.append((f"r{index}", prompt, sampling, draw(st.integers(0, 6))))
    return requests


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    workload=workloads(),
    chunk_tokens=st.sampled_from([None, 3, 7, 16]),
    pages=st.sampled_from([17, 24, 64]),
    mode=st.sampled_from([mode for mode in wire.Mode if mode is not wire.Mode.OVERLAP]),
    max_running=st.sampled_from([1, 3, 8]),
    prefix=st.booleans(),
)
def test_tokens_are_those_of_a_lone_unchunked_run(
    model: tuple[Transformer, Path],
    workload: list[tuple[str, list[int], wire.Sampling, int]],
    chunk_tokens: int | None,
    pages: int,
    mode: wire.Mode,
    max_running: int,
    prefix: bool,
) -> None:
    expected = core_harness.alone(*model, [request[:3] for request in workload])
    with Harness(
        *model, mode=mode, pages=pages, chunk_tokens=chunk_tokens, max_running=max_running, prefix=prefix
    ) as harness:
        for step in range(7):
            for index, (request_id, prompt, sampling, when) in enumerate(workload):
                if when == step:
                    harness.submit(request_id, prompt, sampling, arrival_s=step + index / 100)
            harness.step()
        harness.run()
        assert {r: a.token_ids for r, a in harness.answers.items()} == expected
        assert harness.cache.pages_held == 0
        harness.cache.check_integrity()


def test_a_preempted_request_resumes_with_the_same_tokens(model: tuple[Transformer, Path]) -> None:
    requests = [(f"r{i}", list(range(i, i + 20)), core_harness.greedy(24)) for i in range(3)]
    expected = core_harness.alone(*model, requests)
    with Harness(*model, pages=24) as harness:  # three times 11 pages do not fit
        for index, (request_id, prompt, sampling) in enumerate(requests):
            harness.submit(request_id, prompt, sampling, arrival_s=float(index))
        harness.run()
        assert {r: a.token_ids for r, a in harness.answers.items()} == expected
        assert harness.stats is not None
        assert harness.stats.preemptions_total > 0


def test_a_second_turn_reuses_the_first_turns_pages(model: tuple[Transformer, Path]) -> None:
    with Harness(*model) as harness:
        prompt = list(range(40))
        harness.submit("first", prompt, core_harness.greedy(9))
        harness.run()
        answer = harness.answers["first"].token_ids
        harness.submit("second", [*prompt, *answer, 7, 8, 9], core_harness.greedy(5))
        harness.run()
        assert harness.answers["first"].cached_tokens == 0
        assert harness.answers["second"].cached_tokens == 48  # all full pages but the last token's


def test_tenants_do_not_share_pages(model: tuple[Transformer, Path]) -> None:
    with Harness(*model) as harness:
        for tenant in ("a", "b"):
            harness.submit(tenant, list(range(40)), core_harness.greedy(2), salt=tenant)
            harness.run()
            assert harness.answers[tenant].cached_tokens == 0


def test_cancelling_frees_the_pages_within_one_step(model: tuple[Transformer, Path]) -> None:
    with Harness(*model, prefix=False) as harness:
        harness.submit("gone", list(range(40)), core_harness.greedy(100))
        harness.submit("stays", list(range(8)), core_harness.greedy(6))
        for _ in range(4):
            harness.step()
        assert harness.cache.pages_held > 3
        harness.cancel("gone")
        harness.step()
        assert harness.cache.pages_held <= 4
        del harness.answers["gone"]
        harness.run()
        assert harness.cache.pages_free == harness.cache.pages_total


def test_higher_priority_is_admitted_first(model: tuple[Transformer, Path]) -> None:
    with Harness(*model, max_running=1) as harness:
        harness.submit("early", [1, 2, 3], core_harness.greedy(2), arrival_s=0.0)
        harness.submit("urgent", [4, 5, 6], core_harness.greedy(2), arrival_s=1.0, priority=5)
        while not any(answer.token_ids for answer in harness.answers.values()):
            harness.step()  # one that waits for the device ends before the device does
        assert harness.answers["urgent"].token_ids
        assert not harness.answers["early"].token_ids
        harness.run()
