"""Sampling: the Triton kernels in the interpreter against the definition."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from drift_kernels import sampling
from kernel_cases import assert_drawn_as_defined, sampling_inputs


def draw(logits: torch.Tensor, inputs: sampling.SamplingInputs) -> torch.Tensor:
    return sampling.sample(logits, inputs, lane_sms=2, impl="triton").token_ids_B


@pytest.mark.parametrize("vocabulary", [1, 33, 4096, 9001])
def test_greedy_takes_the_first_of_equal_largest(vocabulary: int) -> None:
    logits = torch.randn(3, vocabulary)
    logits[1] = 0.5
    logits[2, vocabulary // 2 :] = 9.0
    ids = draw(logits, sampling_inputs(3, temperature_B=0.0))
    assert ids.tolist() == [int(logits[0].argmax()), 0, vocabulary // 2]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"temperature_B": 0.3},
        {"top_k_B": 5},
        {"top_p_B": 0.7},
        {"min_p_B": 0.2},
        {"top_k_B": 40, "top_p_B": 0.9, "min_p_B": 0.05, "temperature_B": 1.7},
        {"top_k_B": 1},
        {"top_p_B": 1e-6},
    ],
)
def test_filters(changes: dict[str, Any]) -> None:
    logits = torch.randn(6, 5000) * 3
    inputs = sampling_inputs(6, **changes)
    assert_drawn_as_defined(logits, inputs, draw(logits, inputs))


def test_uniform_close_to_one_draws_the_last_kept_token() -> None:
    logits = torch.randn(4, 5000)
    inputs = sampling_inputs(4, uniform_B=1 - 2**-24, top_k_B=[0, 7, 1, 300])
    ids = draw(logits, inputs)
    for b, k in enumerate([5000, 7, 1, 300]):
        assert int(ids[b]) == int(logits[b].topk(k).indices.max())


def test_penalties_bias_and_mask() -> None:
    rows, vocabulary = 5, 70
    generator = torch.Generator().manual_seed(3)
    inputs = sampling_inputs(
        rows,
        temperature_B=[0.0, 1.0, 0.5, 1.0, 0.0],
        repetition_B=[1.3, 0.8, 1.0, 2.0, 1.0],
        presence_B=[0.5, 0.0, -1.0, 2.0, 0.0],
        frequency_B=[0.1, 0.7, 0.0, -0.3, 0.0],
        output_counts_BV=torch.randint(0, 3, (rows, vocabulary), generator=generator, dtype=torch.int32),
        prompt_mask_BV=torch.rand((rows, vocabulary), generator=generator) < 0.3,
        bias_BV=torch.randn((rows, vocabulary), generator=generator),
        bitmask_BW=torch.randint(-(2**31), 2**31, (rows, 3), generator=generator).int(),
    )
    logits = torch.randn(rows, vocabulary, generator=generator)
    assert_drawn_as_defined(logits, inputs, draw(logits, inputs))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1000),
    vocabulary=st.integers(1, 300),
    temperature=st.sampled_from([0.0, 0.2, 1.0, 3.0]),
    top_k=st.integers(0, 40),
    top_p=st.sampled_from([0.01, 0.3, 0.77, 0.95, 1.0]),
    min_p=st.sampled_from([0.0, 0.05, 0.5, 0.9]),
    coarse=st.booleans(),
)
def test_any_row(
    seed: int, vocabulary: int, temperature: float, top_k: int, top_p: float, min_p: float, coarse: bool
) -> None:
    logits = torch.randn(2, vocabulary, generator=torch.Generator().manual_seed(seed)) * 4
    if coarse:  # many ties
        logits = logits.round()
    inputs = sampling_inputs(
        2, seed=seed, temperature_B=temperature, top_k_B=top_k, top_p_B=top_p, min_p_B=min_p
    )
    assert_drawn_as_defined(logits, inputs, draw(logits, inputs))
