"""From the rows' `Draw`s to the tensors of `drift_kernels.sampling`, and back to `Drawn` tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from drift_engine import wire
from drift_engine.devices.base import Draw, Drawn
from drift_engine.devices.randomness import uniform
from drift_kernels import sampling


def draw_tokens(logits_BV: torch.Tensor, draws: Sequence[Draw], lane_sms: int) -> list[Drawn]:
    """Draws one token per row of the float32 logits; waits for the device once, at the end."""
    drawn = sampling.sample(logits_BV, inputs(draws, logits_BV.shape[1], logits_BV.device), lane_sms=lane_sms)
    token_ids: list[int] = drawn.token_ids_B.tolist()
    if drawn.logprobs_B is None:
        return [Drawn(token_id) for token_id in token_ids]
    logprobs: list[float] = drawn.logprobs_B.tolist()
    top_ids = drawn.top_ids_BK.tolist() if drawn.top_ids_BK is not None else [[]] * len(draws)
    top_logprobs = drawn.top_logprobs_BK.tolist() if drawn.top_logprobs_BK is not None else [[]] * len(draws)
    return [
        Drawn(token_ids[row], _logprobs(draw, logprobs[row], top_ids[row], top_logprobs[row]))
        for row, draw in enumerate(draws)
    ]


def inputs(draws: Sequence[Draw], vocab: int, device: torch.device) -> sampling.SamplingInputs:
    """The rows' parameters as tensors on the device. Costly parts exist only where a row asks for them."""
    parameters = [draw.sampling for draw in draws]

    def floats(values: list[float]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float32).to(device, non_blocking=True)

    penalised = any(
        p.presence_penalty or p.frequency_penalty or p.repetition_penalty != 1.0 for p in parameters
    )
    counts, mask = _histories(draws, vocab, device) if penalised else (None, None)
    asked = [p.logprobs for p in parameters if p.logprobs is not None]
    return sampling.SamplingInputs(
        temperature_B=floats([p.temperature for p in parameters]),
        top_p_B=floats([p.top_p for p in parameters]),
        min_p_B=floats([p.min_p for p in parameters]),
        presence_B=floats([p.presence_penalty for p in parameters]),
        frequency_B=floats([p.frequency_penalty for p in parameters]),
        repetition_B=floats([p.repetition_penalty for p in parameters]),
        top_k_B=torch.tensor([p.top_k for p in parameters], dtype=torch.int32).to(device, non_blocking=True),
        uniform_B=floats([uniform(draw.sampling.seed, draw.index) for draw in draws]),
        output_counts_BV=counts,
        prompt_mask_BV=mask,
        bias_BV=_biases(draws, vocab, device),
        bitmask_BW=_bitmasks(draws, vocab, device),
        num_logprobs=max(asked) if asked else -1,
    )


def _logprobs(
    draw: Draw, logprob: float, top_ids: list[int], top_logprobs: list[float]
) -> wire.TokenLogprobs | None:
    asked = draw.sampling.logprobs
    if asked is None:
        return None
    return wire.TokenLogprobs(logprob, tuple(top_ids[:asked]), tuple(top_logprobs[:asked]))


def _histories(draws: Sequence[Draw], vocab: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    counts = np.zeros((len(draws), vocab), dtype=np.int32)
    mask = np.zeros((len(draws), vocab), dtype=np.bool_)
    for row, draw in enumerate(draws):
        history = np.asarray(draw.history, dtype=np.int64)
        mask[row, history[: draw.prompt_tokens]] = True
        counts[row] = np.bincount(history[draw.prompt_tokens :], minlength=vocab)
    return torch.from_numpy(counts).to(device), torch.from_numpy(mask).to(device)


def _biases(draws: Sequence[Draw], vocab: int, device: torch.device) -> torch.Tensor | None:
    if not any(draw.sampling.logit_bias or draw.banned for draw in draws):
        return None
    biases = np.zeros((len(draws), vocab), dtype=np.float32)
    for row, draw in enumerate(draws):
        for token_id, bias in draw.sampling.logit_bias.items():
            biases[row, token_id] = bias
        biases[row, list(draw.banned)] = -np.inf
    return torch.from_numpy(biases).to(device)


def _bitmasks(draws: Sequence[Draw], vocab: int, device: torch.device) -> torch.Tensor | None:
    if all(draw.bitmask is None for draw in draws):
        return None
    masks = np.full((len(draws), -(-vocab // 32)), -1, dtype=np.int32)
    for row, draw in enumerate(draws):
        if draw.bitmask is not None:
            masks[row] = draw.bitmask
    return torch.from_numpy(masks).to(device)
