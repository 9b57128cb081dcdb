"""What a core tells of a traced prompt: which launches computed it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from drift_engine import wire
from drift_engine.core import blocks
from drift_engine.latency.costs import Costs, DecodeCost, PrefillCost
from drift_engine.launches import Span
from virtual_core import VirtualCore

PROMPT = 3000
NEXT = 500


def speeds(sms: int) -> Costs:
    """On 4 SMs 1,000 tokens are prefilled in 250 ms; a decode step takes 40 ms on one SM, 10 ms on all."""
    return Costs(PrefillCost(0.0, 0.0, 1e-3 / sms, 1e-3), DecodeCost(1e-7, 1e-4, 4e-2 / sms))


def submit(
    name: str, arrival_s: float, first: int, prompt_tokens: int, *, traced: bool = True
) -> wire.Submit:
    prompt = list(range(first, first + prompt_tokens))
    sampling = wire.Sampling(max_tokens=40, ignore_eos=True)
    return wire.Submit(name, prompt, sampling, arrival_s, traced=traced)


def told(core: VirtualCore, name: str) -> list[wire.Block]:
    return [block for _, output in core.channel.told if output.request_id == name for block in output.blocks]


@pytest.mark.parametrize("mode", wire.Mode)
def test_the_blocks_of_a_prompt_add_up_to_it(mode: wire.Mode) -> None:
    core = VirtualCore([submit("a", 0.0, 0, PROMPT), submit("b", 0.3, 10_000, NEXT)], mode, speeds)
    core.run()
    for name, tokens in (("a", PROMPT), ("b", NEXT)):
        found = told(core, name)
        assert sum(block.tokens for block in found) == tokens
        assert len(found) <= blocks.MOST_BLOCKS


@pytest.mark.parametrize("mode", wire.Mode)
def test_blocks_lie_between_arrival_and_first_token(mode: wire.Mode) -> None:
    core = VirtualCore([submit("a", 0.0, 0, PROMPT), submit("b", 0.3, 10_000, NEXT)], mode, speeds)
    core.run()
    for name, arrival_s in (("a", 0.0), ("b", 0.3)):
        at_s, first = next((at_s, one) for at_s, one in core.channel.told if one.request_id == name)
        for block in first.blocks:
            assert arrival_s <= block.start_s < block.end_s <= at_s + 1e-9


def test_a_request_that_is_not_traced_costs_no_blocks() -> None:
    core = VirtualCore([submit("a", 0.0, 0, PROMPT, traced=False)], wire.Mode.MUX, speeds)
    core.run()
    assert told(core, "a") == []


def test_a_prompt_that_is_computed_again_is_told_again() -> None:
    """Two answers that do not fit together: one gives its pages up, and its prompt is computed once more."""
    submits = [replace(submit(name, 0.0, 1000 * at, 300), traced=True) for at, name in enumerate("ab")]
    core = VirtualCore(submits, wire.Mode.FUSED, speeds, pages=42)
    core.run()
    later = [
        output
        for index, (_, output) in enumerate(core.channel.told)
        if output.blocks and any(one.request_id == output.request_id for _, one in core.channel.told[:index])
    ]
    assert core.core._stats.preemptions_total > 0
    assert later


@st.composite
def launches(draw: st.DrawFn) -> list[Span]:
    """In the order in which they ended."""
    at_s, found = 0.0, []
    for _ in range(draw(st.integers(1, 80))):
        layer = draw(st.sampled_from([0, 4]))
        found.append(Span("prefill-66", at_s, 0.5, 0, 10, layer, layer + 4))
        at_s += 1.0
    return found


@given(launches())
def test_however_many_launches_there_are_their_blocks_are_few_and_leave_nothing_out(made: list[Span]) -> None:
    kept: list[wire.Block] = []
    for launch in made:
        blocks.add(kept, [launch], 10)
    assert len(kept) == min(len(made), blocks.MOST_BLOCKS)
    assert sum(block.launches for block in kept) == len(made)
    assert sum(block.tokens for block in kept) == 10 * sum(launch.first_layer == 0 for launch in made)
    assert (kept[0].start_s, kept[-1].end_s) == (made[0].start_s, made[-1].end_s)
