"""From the rows' `Draw`s to the tensors of `drift_kernels.sampling`, and from its results to `Drawn` tokens.

Three parts, so that a device may put its copies between them: `stage` packs on the host, `sample` launches on the
device without waiting for it, `collect` reads results that have arrived on the host.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from drift_engine import wire
from drift_engine.devices.base import Draw, Drawn
from drift_engine.devices.randomness import uniform
from drift_engine.devices.staging import Put, align
from drift_kernels import sampling

# B rows, V vocabulary, W mask words; N entries of a sparse B x V matrix, by their place row * V + token

# Parameters lie row by row in one array; this many elements keep every row's start a multiple of 16 bytes.
PITCH = 4


@dataclass(frozen=True, slots=True)
class StagedDraws:
    """The parameters on their way to the device. What no row asks for is None; B x V matrices go up sparse."""

    rows: int
    vocab: int
    num_logprobs: int
    parameters_7P: torch.Tensor  # float32, in the order of `_PARAMETERS`; P is B rounded up
    top_k_B: torch.Tensor
    prompt_N: torch.Tensor | None  # int64, places of the penalised rows' prompt tokens
    output_N: torch.Tensor | None  # int64, the same of drawn tokens, once per draw
    biased_N: torch.Tensor | None  # int64
    bias_N: torch.Tensor | None  # float32
    bitmask_BW: torch.Tensor | None


_PARAMETERS = (
    "temperature_B",
    "top_p_B",
    "min_p_B",
    "presence_B",
    "frequency_B",
    "repetition_B",
    "uniform_B",
)


def stage(draws: Sequence[Draw], vocab: int, put: Put) -> StagedDraws | None:
    """None: every row wants the likeliest token and nothing else."""
    if all(map(_is_plain, draws)):
        return None
    rows = len(draws)
    asked = [draw.sampling for draw in draws]
    parameters = np.zeros((len(_PARAMETERS), align(rows, PITCH)), dtype=np.float32)
    parameters[:, :rows] = np.array([_parameters(draw) for draw in draws], dtype=np.float32).T
    prompt = output = biased = bias = bitmask = None
    penalised = [row for row, s in enumerate(asked) if _penalises(s)]
    if penalised:
        prompt, output = (put(places) for places in _histories(draws, penalised, vocab))
    if any(draw.sampling.logit_bias or draw.banned for draw in draws):
        places, values = _biases(draws, vocab)
        biased, bias = put(places), put(values)
    if any(draw.bitmask is not None for draw in draws):
        bitmask = put(_bitmasks(draws, vocab))
    return StagedDraws(
        rows=rows,
        vocab=vocab,
        num_logprobs=max((s.logprobs for s in asked if s.logprobs is not None), default=-1),
        parameters_7P=put(parameters),
        top_k_B=put(np.array([s.top_k for s in asked], dtype=np.int32)),
        prompt_N=prompt,
        output_N=output,
        biased_N=biased,
        bias_N=bias,
        bitmask_BW=bitmask,
    )


def _is_plain(draw: Draw) -> bool:
    asked = draw.sampling
    return not (
        asked.temperature
        or asked.logit_bias
        or asked.logprobs is not None
        or draw.banned
        or draw.bitmask is not None
        or _penalises(asked)
    )


def _parameters(draw: Draw) -> tuple[float, ...]:
    """In the order of `_PARAMETERS`."""
    asked = draw.sampling
    return (
        asked.temperature,
        asked.top_p,
        asked.min_p,
        asked.presence_penalty,
        asked.frequency_penalty,
        asked.repetition_penalty,
        uniform(asked.seed, draw.index) if asked.temperature else 0.0,
    )


def sample(logits_BV: torch.Tensor, staged: StagedDraws | None, *, lane_sms: int) -> sampling.Sampled:
    """Draws one token per row of the float32 logits, as staged. Waits for nothing on a GPU."""
    if staged is None:
        return sampling.likeliest(logits_BV)
    shape, device = (staged.rows, staged.vocab), logits_BV.device
    counts = mask = bias = None
    if staged.prompt_N is not None and staged.output_N is not None:
        mask = torch.zeros(shape, dtype=torch.bool, device=device)
        mask.view(-1).index_fill_(0, staged.prompt_N, True)
        counts = torch.zeros(shape, dtype=torch.int32, device=device)
        counts.view(-1).scatter_add_(0, staged.output_N, torch.ones_like(staged.output_N, dtype=torch.int32))
    if staged.biased_N is not None and staged.bias_N is not None:
        bias = torch.zeros(shape, dtype=torch.float32, device=device)
        bias.view(-1).scatter_add_(0, staged.biased_N, staged.bias_N)
    parameters = {
        name: row_P[: staged.rows] for name, row_P in zip(_PARAMETERS, staged.parameters_7P, strict=True)
    }
    inputs = sampling.SamplingInputs(
        **parameters,
        top_k_B=staged.top_k_B,
        output_counts_BV=counts,
        prompt_mask_BV=mask,
        bias_BV=bias,
        bitmask_BW=staged.bitmask_BW,
        num_logprobs=staged.num_logprobs,
    )
    return sampling.sample(logits_BV, inputs, lane_sms=lane_sms)


def collect(sampled: sampling.Sampled, draws: Sequence[Draw]) -> list[Drawn]:
    """The drawn tokens from tensors on the host."""
    token_ids: list[int] = sampled.token_ids_B.tolist()
    if sampled.logprobs_B is None:
        return [Drawn(token_id) for token_id in token_ids]
    logprobs: list[float] = sampled.logprobs_B.tolist()
    top_ids = sampled.top_ids_BK.tolist() if sampled.top_ids_BK is not None else [[]] * len(draws)
    top_logprobs = (
        sampled.top_logprobs_BK.tolist() if sampled.top_logprobs_BK is not None else [[]] * len(draws)
    )
    return [
        Drawn(token_ids[row], _logprobs(draw, logprobs[row], top_ids[row], top_logprobs[row]))
        for row, draw in enumerate(draws)
    ]


def _logprobs(
    draw: Draw, logprob: float, top_ids: list[int], top_logprobs: list[float]
) -> wire.TokenLogprobs | None:
    asked = draw.sampling.logprobs
    if asked is None:
        return None
    return wire.TokenLogprobs(logprob, tuple(top_ids[:asked]), tuple(top_logprobs[:asked]))


def _penalises(asked: wire.Sampling) -> bool:
    return bool(asked.presence_penalty or asked.frequency_penalty or asked.repetition_penalty != 1.0)


def _histories(
    draws: Sequence[Draw], rows: Sequence[int], vocab: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    prompts, outputs = [], []
    for row in rows:
        places = np.array(draws[row].history, dtype=np.int64)
        places += row * vocab
        prompts.append(places[: draws[row].prompt_tokens])
        outputs.append(places[draws[row].prompt_tokens :])
    return np.concatenate(prompts), np.concatenate(outputs)


def _biases(draws: Sequence[Draw], vocab: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """A token may be named twice, by its bias and as banned: the sum is minus infinity, as it should be."""
    places, values = [], []
    for row, draw in enumerate(draws):
        for token_id, bias in draw.sampling.logit_bias.items():
            places.append(row * vocab + token_id)
            values.append(bias)
        places.extend(row * vocab + token_id for token_id in draw.banned)
        values.extend([-np.inf] * len(draw.banned))
    return np.array(places, dtype=np.int64), np.array(values, dtype=np.float32)


def _bitmasks(draws: Sequence[Draw], vocab: int) -> NDArray[np.int32]:
    masks = np.full((len(draws), -(-vocab // 32)), -1, dtype=np.int32)
    for row, draw in enumerate(draws):
        if draw.bitmask is not None:
            masks[row] = draw.bitmask
    return masks
