"""Sampling on a CPU, where it runs between all steps: what no row asks for costs nothing, nothing is sorted in full.

Every number of a row comes from row-wise operations, so it does not depend on the rows beside it.

B rows, R rows that draw, V vocabulary, C candidates, W mask words.
"""

import functools
from dataclasses import replace

import torch

from drift_kernels import sampling
from drift_kernels.sampling import SamplingInputs

# How many of the likeliest tokens are ordered for top-p before the whole row is: partial selection of 256
# among 32,000 costs 0.3 ms a row, sorting them 7 ms (one EPYC core, torch 2.11), and at p <= 0.95 a language
# model's nucleus rarely holds more.
NUCLEUS_CANDIDATES = 256


def draw(logits_BV: torch.Tensor, inputs: SamplingInputs) -> torch.Tensor:
    """Token ids [B] as `sampling.reference` defines them."""
    adjusted_BV = _adjusted(logits_BV, inputs)
    # numpy's argmax is vectorised and torch's is not: 0.07 against 1.9 ms for 32 rows of 32,000 (one EPYC
    # core).
    token_ids_B = torch.from_numpy(adjusted_BV.numpy().argmax(-1))
    drawing_B = inputs.temperature_B > 0
    if not drawing_B.any():
        return token_ids_B
    if drawing_B.all():
        return _draw(adjusted_BV, inputs)
    rows_R = drawing_B.nonzero().squeeze(1)
    token_ids_B[rows_R] = _draw(adjusted_BV[rows_R], _rows_of(inputs, rows_R))
    return token_ids_B


def _rows_of(inputs: SamplingInputs, rows_R: torch.Tensor) -> SamplingInputs:
    return SamplingInputs(
        **{k: v[rows_R] if isinstance(v, torch.Tensor) else v for k, v in vars(inputs).items()}
    )


def _adjusted(logits_BV: torch.Tensor, inputs: SamplingInputs) -> torch.Tensor:
    """`sampling.adjust`, for the rows that ask for it only."""
    asking_B = torch.zeros(logits_BV.shape[0], dtype=torch.bool)
    if inputs.output_counts_BV is not None:
        asking_B |= (inputs.repetition_B != 1) | (inputs.presence_B != 0) | (inputs.frequency_B != 0)
    if inputs.bias_BV is not None:
        asking_B |= inputs.bias_BV.any(-1)
    if inputs.bitmask_BW is not None:
        asking_B |= (inputs.bitmask_BW != -1).any(-1)
    rows_R = asking_B.nonzero().squeeze(1)
    if len(rows_R) == 0:
        return logits_BV
    asked = _rows_of(inputs, rows_R)
    adjusted_RV = sampling.adjust(logits_BV[rows_R], replace(asked, bitmask_BW=None))
    if asked.bitmask_BW is not None:
        # A byte of the mask at a time through a table: eight times fewer steps than bit by bit.
        forbidden_RV = _forbidden_bits()[asked.bitmask_BW.view(torch.uint8).long()].flatten(1)
        adjusted_RV.masked_fill_(forbidden_RV[:, : logits_BV.shape[1]], float("-inf"))
    adjusted_BV = logits_BV.clone()
    adjusted_BV[rows_R] = adjusted_RV
    return adjusted_BV


def _draw(adjusted_RV: torch.Tensor, inputs: SamplingInputs) -> torch.Tensor:
    tempered_RV = adjusted_RV / inputs.temperature_B.unsqueeze(1)
    top_k_R, top_p_R, min_p_R = inputs.top_k_B.long(), inputs.top_p_B, inputs.min_p_B
    tempered_RV = _keep_top_k(tempered_RV, top_k_R)
    mass_RV = tempered_RV.softmax(dim=-1)
    if bool((top_p_R < 1).any()):
        mass_RV = _keep_top_p(mass_RV, top_p_R, candidates=max(NUCLEUS_CANDIDATES, int(top_k_R.max())))
    if bool((min_p_R > 0).any()):
        smallest_R1 = tempered_RV.amax(-1, keepdim=True) + min_p_R.log().unsqueeze(1)
        mass_RV = mass_RV.masked_fill(tempered_RV < smallest_R1, 0.0)
    cumulative_RV = mass_RV.cumsum(-1)
    total_R1 = cumulative_RV[:, -1:].contiguous()
    target_R1 = inputs.uniform_B.unsqueeze(1) * total_R1
    drawn_R1 = torch.searchsorted(cumulative_RV, target_R1, right=True)
    # A uniform just below 1 can round up to the total; the last token with mass is then the draw.
    last_R1 = torch.searchsorted(cumulative_RV, total_R1)
    return torch.minimum(drawn_R1, last_R1).squeeze(1)


def _keep_top_k(tempered_RV: torch.Tensor, top_k_R: torch.Tensor) -> torch.Tensor:
    limited_R = (top_k_R > 0) & (top_k_R < tempered_RV.shape[1])
    if not limited_R.any():
        return tempered_RV
    candidates_RC = tempered_RV.topk(int(top_k_R[limited_R].max()), dim=-1).values
    smallest_R1 = candidates_RC.gather(1, torch.where(limited_R, top_k_R - 1, 0).unsqueeze(1))
    smallest_R1.masked_fill_(~limited_R.unsqueeze(1), float("-inf"))
    return tempered_RV.masked_fill(tempered_RV < smallest_R1, float("-inf"))


def _keep_top_p(mass_RV: torch.Tensor, top_p_R: torch.Tensor, candidates: int) -> torch.Tensor:
    """`mass_RV` (rows of sum 1) with everything outside the nucleus set to zero."""
    candidates = min(candidates, mass_RV.shape[1])
    mass_RC = mass_RV.topk(candidates, dim=-1).values
    likelier_RC = mass_RC.cumsum(-1) - mass_RC
    inside_RC = likelier_RC < top_p_R.unsqueeze(1)
    smallest_R = mass_RC.gather(1, inside_RC.sum(-1, keepdim=True).sub_(1).clamp_(min=0)).squeeze(1)
    smallest_R.masked_fill_(top_p_R >= 1, 0.0)
    if candidates < mass_RV.shape[1]:
        wide_R = inside_RC[:, -1] & (top_p_R < 1) & (mass_RC[:, -1] > 0)
        for r in wide_R.nonzero().squeeze(1).tolist():
            ordered_V = mass_RV[r].sort(descending=True).values
            inside_V = (ordered_V.cumsum(0) - ordered_V) < top_p_R[r]
            smallest_R[r] = ordered_V[int(inside_V.sum()) - 1]
    return mass_RV.masked_fill(mass_RV < smallest_R.unsqueeze(1), 0.0)


@functools.cache
def _forbidden_bits() -> torch.Tensor:
    """Row `byte` says for each of its bits, lowest first, whether it is clear: [256, 8] bool."""
    return (torch.arange(256).unsqueeze(1) >> torch.arange(8) & 1) == 0
