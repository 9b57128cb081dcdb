"""Sampling on a CPU: the quick path against the definition, and the definition against what requests are promised."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from drift_kernels import sampling
from kernel_cases import assert_drawn_as_defined, sampling_inputs


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    torch.set_num_threads(1)


def draw(logits: torch.Tensor, inputs: sampling.SamplingInputs, impl: str = "cpu") -> torch.Tensor:
    return sampling.sample(logits, inputs, lane_sms=1, impl=impl).token_ids_B


@settings(max_examples=150, deadline=None)
@given(data=st.data(), seed=st.integers(0, 10_000), rows=st.integers(1, 5), vocabulary=st.integers(1, 700))
def test_quick_path_draws_what_the_definition_draws(
    data: st.DataObject, seed: int, rows: int, vocabulary: int
) -> None:
    def per_row(*values: float) -> list[float]:
        return data.draw(st.lists(st.sampled_from(values), min_size=rows, max_size=rows))

    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, vocabulary, generator=generator) * 4
    if data.draw(st.booleans()):
        logits = logits.round()  # many ties
    changes: dict[str, Any] = {
        "temperature_B": per_row(0.0, 0.2, 1.0, 3.0),
        "top_k_B": per_row(0, 1, 5, 300),
        "top_p_B": per_row(0.01, 0.5, 0.95, 1.0),
        "min_p_B": per_row(0.0, 0.1, 0.9),
    }
    if data.draw(st.booleans()):
        changes |= {
            "repetition_B": per_row(0.5, 1.0, 1.3),
            "presence_B": per_row(-1.0, 0.0, 0.7),
            "frequency_B": per_row(0.0, 0.4),
            "output_counts_BV": torch.randint(0, 3, logits.shape, generator=generator, dtype=torch.int32),
            "prompt_mask_BV": torch.rand(logits.shape, generator=generator) < 0.2,
        }
    if data.draw(st.booleans()):
        changes["bias_BV"] = torch.randn(logits.shape, generator=generator).relu()
    if data.draw(st.booleans()):
        words = -(-vocabulary // 32)
        mask = torch.randint(-(2**31), 2**31, (rows, words), generator=generator).int()
        mask[0] = -1
        mask[:, 0] |= 1  # each row allows some token
        changes["bitmask_BW"] = mask
    inputs = sampling_inputs(rows, seed=seed, **changes)
    before = logits.clone()
    ids = draw(logits, inputs)
    assert torch.equal(logits, before)
    assert_drawn_as_defined(logits, inputs, ids)
    for b in range(rows):  # no row's draw depends on the rows beside it
        alone: dict[str, Any] = {
            k: v[b : b + 1] for k, v in vars(inputs).items() if isinstance(v, torch.Tensor)
        }
        assert draw(logits[b : b + 1], sampling.SamplingInputs(**alone)) == ids[b]


def test_tokens_as_likely_as_the_last_of_top_k_count_for_top_p() -> None:
    rows = 200
    logits = torch.tensor([3.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0]).expand(rows, 9).contiguous()
    uniform = (torch.arange(rows) + 0.5) / rows
    inputs = sampling_inputs(rows, uniform_B=uniform, top_k_B=3, top_p_B=0.7)
    drawn = draw(logits, inputs)
    assert torch.equal(drawn, draw(logits, inputs, "reference"))
    assert set(drawn.tolist()) > {0, 1, 2}  # 0.74 of the top 3, but 0.58 of all that top-k keeps


@pytest.mark.parametrize("impl", ["cpu", "reference"])
def test_uniforms_are_spread_as_the_probabilities(impl: str) -> None:
    rows = 2000
    probabilities = torch.tensor([0.5, 0.0, 0.2, 0.3])
    logits = probabilities.log().expand(rows, 4).contiguous()
    inputs = sampling_inputs(rows, uniform_B=(torch.arange(rows) + 0.5) / rows)
    counts = draw(logits, inputs, impl).bincount(minlength=4)
    assert (counts / rows - probabilities).abs().max() <= 1 / rows


def test_wide_nucleus_is_found_behind_the_first_candidates() -> None:
    logits = torch.randn(3, 3000) * 0.1  # nearly flat: the nucleus of 0.9 holds about 2,700 tokens
    inputs = sampling_inputs(3, top_p_B=0.9, uniform_B=[0.0, 0.5, 0.999])
    assert_drawn_as_defined(logits, inputs, draw(logits, inputs))


def test_each_filter_keeps_what_it_promises() -> None:
    tempered = torch.tensor([0.1, 0.4, 0.2, 0.3]).log()
    finite = float("-inf")

    def kept(top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0) -> list[int]:
        return (
            (sampling.kept(tempered, top_k=top_k, top_p=top_p, min_p=min_p) > finite)
            .nonzero()
            .flatten()
            .tolist()
        )

    assert kept() == [0, 1, 2, 3]
    assert kept(top_k=2) == [1, 3]
    assert kept(top_p=0.39) == [1]
    assert kept(top_p=0.41) == [1, 3]
    assert kept(min_p=0.45) == [1, 2, 3]
    assert kept(top_k=2, top_p=0.58) == [1, 3]  # 0.4 of the 0.7 that top-k kept is 0.571
    assert kept(top_k=2, top_p=0.56) == [1]


def test_penalties_follow_their_papers() -> None:
    logits = torch.tensor([[2.0, -2.0, 1.0, 1.0]])
    inputs = sampling_inputs(
        1,
        repetition_B=2.0,
        presence_B=0.5,
        frequency_B=0.25,
        output_counts_BV=torch.tensor([[0, 2, 1, 0]], dtype=torch.int32),
        prompt_mask_BV=torch.tensor([[True, False, False, False]]),
    )
    assert sampling.adjust(logits, inputs).tolist() == [[1.0, -4.0 - 0.5 - 0.5, 0.5 - 0.25 - 0.5, 1.0]]


def test_logprobs_are_of_the_raw_logits() -> None:
    logits = torch.tensor([[0.1, 0.4, 0.2, 0.3]]).log() + 5
    inputs = sampling_inputs(1, temperature_B=0.0, bias_BV=torch.tensor([[9.0, 0, 0, 0]]), num_logprobs=2)
    sampled = sampling.sample(logits, inputs, lane_sms=1)
    assert sampled.token_ids_B.tolist() == [0]
    assert sampled.logprobs_B is not None
    assert sampled.top_ids_BK is not None
    assert sampled.top_logprobs_BK is not None
    assert sampled.top_ids_BK.tolist() == [[1, 3]]
    torch.testing.assert_close(sampled.logprobs_B.exp(), torch.tensor([0.1]))
    torch.testing.assert_close(sampled.top_logprobs_BK.exp(), torch.tensor([[0.4, 0.3]]))


def test_no_rows_no_tokens() -> None:
    assert draw(torch.empty(0, 9), sampling_inputs(0)).tolist() == []
