"""A request that goes on with tokens which another node drew, as if it had drawn them itself, whatever happens."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import core_harness
import sim_core
from core_harness import Harness
from drift_engine import wire
from drift_engine.models.transformer import Transformer

VOCAB = 200  # ids below every special token of the test checkpoints
FORM = wire.Grammar(
    wire.GrammarKind.JSON_SCHEMA,
    json.dumps(
        {
            "type": "object",
            "properties": {"name": {"type": "string", "maxLength": 8}, "on": {"type": "boolean"}},
            "required": ["name", "on"],
            "additionalProperties": False,
        }
    ),
)

model = core_harness.model


@st.composite
def workloads(draw: st.DrawFn) -> list[tuple[str, list[int], wire.Sampling, int, float]]:
    """Requests with shared prefixes, each with the step at which it is submitted and how much of it is drawn."""
    stem = draw(st.lists(st.integers(0, VOCAB - 1), max_size=20))
    requests = []
    for index in range(draw(st.integers(1, 4))):
        tail = draw(st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=20))
        bound = draw(st.booleans())
        sampling = wire.Sampling(
            max_tokens=draw(st.integers(1, 20)),
            min_tokens=draw(st.sampled_from([0, 1])),
            temperature=draw(st.sampled_from([0.0, 0.9])),
            top_p=draw(st.sampled_from([1.0, 0.8])),
            seed=draw(st.integers(0, 1000)),
            ignore_eos=draw(st.booleans()),
            presence_penalty=draw(st.sampled_from([0.0, 0.5])),
            frequency_penalty=draw(st.sampled_from([0.0, 0.3])),
            repetition_penalty=draw(st.sampled_from([1.0, 1.2])),
            logprobs=draw(st.sampled_from([None, 2])),
            grammar=FORM if bound else None,
        )
        prompt = (stem if draw(st.booleans()) else []) + tail
        requests.append((f"r{index}", prompt, sampling, draw(st.integers(0, 4)), draw(st.floats(0, 1))))
    return requests


def whole(
    model: tuple[Transformer, Path],
    prompt: list[int],
    sampling: wire.Sampling,
    drawn: list[int] | None = None,
) -> core_harness.Answer:
    """A request that nothing disturbs."""
    with Harness(*model, pages=256, prefix=False) as harness:
        harness.submit("alone", prompt, sampling, drawn=drawn)
        harness.run()
        return harness.answers["alone"]


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    workload=workloads(),
    chunk_tokens=st.sampled_from([None, 3, 16]),
    pages=st.sampled_from([17, 64]),
    mode=st.sampled_from([wire.Mode.AUTO, wire.Mode.MUX, wire.Mode.FUSED, wire.Mode.PREFILL_FIRST]),
    max_running=st.sampled_from([1, 3, 8]),
    prefix=st.booleans(),
    cancelled=st.booleans(),
)
def test_the_rest_is_that_of_the_uninterrupted_run(
    model: tuple[Transformer, Path],
    workload: list[tuple[str, list[int], wire.Sampling, int, float]],
    chunk_tokens: int | None,
    pages: int,
    mode: wire.Mode,
    max_running: int,
    prefix: bool,
    cancelled: bool,
) -> None:
    """For any cut and any schedule, also where memory is short and where a neighbour goes."""
    expected = {name: whole(model, prompt, sampling) for name, prompt, sampling, _, _ in workload}
    drawn = {
        name: expected[name].token_ids[: int(share * len(expected[name].token_ids))]
        for name, _, _, _, share in workload
    }
    with Harness(
        *model, mode=mode, pages=pages, chunk_tokens=chunk_tokens, max_running=max_running, prefix=prefix
    ) as harness:
        for step in range(5):
            for index, (name, prompt, sampling, when, _) in enumerate(workload):
                if when == step:
                    harness.submit(name, prompt, sampling, arrival_s=step + index / 100, drawn=drawn[name])
            if cancelled and step == 1:
                harness.submit("gone", workload[0][1], core_harness.greedy(40), drawn=[5, 6, 7])
            harness.step()
        if cancelled:
            harness.cancel("gone")
            harness.step()
            del harness.answers["gone"]
        harness.run()
        for name, answer in harness.answers.items():
            assert drawn[name] + answer.token_ids == expected[name].token_ids
            assert answer.finish is expected[name].finish
            assert answer.logprobs == expected[name].logprobs[len(drawn[name]) :]
        assert harness.cache.pages_held == 0
        harness.cache.check_integrity()


def test_its_pages_are_found_again_and_only_the_prompts_are_told(model: tuple[Transformer, Path]) -> None:
    prompt = list(range(40))
    with Harness(*model) as harness:
        harness.submit("first", prompt, core_harness.greedy(30))
        harness.run()
        drawn = harness.answers["first"].token_ids[:20]
        harness.submit("again", prompt, core_harness.greedy(30), drawn=drawn)
        harness.step()
        assert harness.stats is not None
        assert harness.stats.computed_prompt_tokens_total == len(prompt)  # the first's
        harness.run()
        assert harness.answers["again"].cached_tokens == len(prompt)
        assert drawn + harness.answers["again"].token_ids == harness.answers["first"].token_ids
        assert harness.stats.cached_tokens_total == len(prompt)
        assert harness.stats.generation_tokens_total == 30 + 10


@pytest.mark.parametrize(
    ("fields", "drawn", "finish"),
    [
        ({"max_tokens": 3}, [5, 6, 7], wire.FinishReason.LENGTH),
        ({"max_tokens": 9, "stop_token_ids": (7,)}, [5, 6, 7], wire.FinishReason.STOP),
        (
            {"max_tokens": 9, "grammar": wire.Grammar(wire.GrammarKind.REGEX, "a")},
            None,
            wire.FinishReason.STOP,
        ),
    ],
    ids=["length", "stop token", "grammar"],
)
def test_tokens_that_end_the_answer_are_all_there_is(
    model: tuple[Transformer, Path],
    fields: dict[str, object],
    drawn: list[int] | None,
    finish: wire.FinishReason,
) -> None:
    sampling = wire.Sampling(temperature=0.0, **fields)  # type: ignore[arg-type]
    with Harness(*model) as harness:
        harness.submit("r", [1, 2, 3], sampling, drawn=drawn or whole(model, [1, 2, 3], sampling).token_ids)
        harness.run()
        assert (harness.answers["r"].token_ids, harness.answers["r"].finish) == ([], finish)
        assert harness.cache.pages_used == 0


def test_tokens_that_break_the_grammar_are_refused(model: tuple[Transformer, Path]) -> None:
    sampling = wire.Sampling(max_tokens=9, grammar=wire.Grammar(wire.GrammarKind.REGEX, "[0-9]{20}"))
    answer = whole(model, [1, 2, 3], sampling, drawn=whole(model, [1], core_harness.greedy(3)).token_ids)
    assert answer.finish is wire.FinishReason.ABORTED
    assert "the tokens to resume from" in (answer.error or "")


@pytest.mark.parametrize("lookahead_steps", [1, 8])
def test_simulated_nodes_go_on_with_each_others_answers(lookahead_steps: int) -> None:
    prompts = {f"r{index}": [*range(30), 50 + index] for index in range(4)}
    asked = [sim_core.Asked(name, prompt, 30) for name, prompt in prompts.items()]
    expected = sim_core.SimCore(asked).run()
    for cut in (1, 3, 4, 17, 29):
        rest = [
            sim_core.Asked(name, prompt, 30, 0.001 * cut, None, expected[name].token_ids[:cut])
            for name, prompt in prompts.items()
        ]
        found = sim_core.SimCore(rest, lookahead_steps=lookahead_steps, pages=40).run()
        for name, answer in found.items():
            assert answer.token_ids == expected[name].token_ids[cut:]


def test_who_was_interrupted_goes_first(model: tuple[Transformer, Path]) -> None:
    """Its client waits in the middle of an answer."""
    with Harness(*model, max_running=1) as harness:
        now_s = harness.device.clock.now_s()
        harness.submit("at work", [9, 8, 7], core_harness.greedy(3), arrival_s=now_s)
        harness.step()
        harness.submit("new", list(range(10, 20)), core_harness.greedy(3), arrival_s=now_s)
        harness.submit("resumed", [4, 5, 6], core_harness.greedy(9), arrival_s=now_s, drawn=[1, 2])
        while not harness.answers["resumed"].token_ids:
            harness.step()
        assert not harness.answers["new"].token_ids
        harness.run()
