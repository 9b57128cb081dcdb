"""Sampling on a CPU, where it runs between all steps: what no row asks for costs nothing, nothing is sorted in full.

Every number of a row comes from row-wise operations, so it does not depend on the rows beside it.

B rows, R rows that draw, V vocabulary, C candidates.
"""

import functools
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from drift_kernels import sampling
from drift_kernels.sampling import SamplingInputs

# How many of the likeliest tokens are ordered for top-p before the whole row is: partial selection of 256
# among 32,000 costs 0.3 ms a row, sorting them 7 ms (one EPYC core, torch 2.11), and at p <= 0.95 a language
# model's nucleus rarely holds more.
NUCLEUS_CANDIDATES = 256


SORTED_VOCABULARY = 4096
"""Up to this, numpy's vectorised sort of a whole row is quicker than torch's partial selection: 17 against 29 us for
2,048, 600 against 150 us for 32,000 (one EPYC core, numpy 2.4, torch 2.11)."""


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
    tensors = {name: value for name, value in vars(inputs).items() if isinstance(value, torch.Tensor)}
    return replace(inputs, **{name: value[rows_R] for name, value in tensors.items()})  # type: ignore[arg-type]


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
        # A byte of the mask at a time through a table, eight times fewer steps than bit by bit.
        terms_RV = _mask_terms()[asked.bitmask_BW.view(torch.uint8).long()].flatten(1)
        adjusted_RV.add_(terms_RV[:, : logits_BV.shape[1]])
    adjusted_BV = logits_BV.clone()
    adjusted_BV[rows_R] = adjusted_RV
    return adjusted_BV


def _draw(adjusted_RV: torch.Tensor, inputs: SamplingInputs) -> torch.Tensor:
    mass_RV = (adjusted_RV / inputs.temperature_B.unsqueeze(1)).softmax(dim=-1)
    filters = zip(inputs.top_k_B.tolist(), inputs.top_p_B.tolist(), inputs.min_p_B.tolist(), strict=True)
    for mass_V, (top_k, top_p, min_p) in zip(mass_RV.numpy(), filters, strict=True):
        if 0 < top_k < len(mass_V) or top_p < 1 or min_p > 0:
            _filter(mass_V, top_k, top_p, min_p)
    cumulative_RV = mass_RV.cumsum(-1)
    total_R1 = cumulative_RV[:, -1:].contiguous()
    target_R1 = inputs.uniform_B.unsqueeze(1) * total_R1
    drawn_R1 = torch.searchsorted(cumulative_RV, target_R1, right=True)
    # A uniform just below 1 can round up to the total; the last token with mass is then the draw.
    last_R1 = torch.searchsorted(cumulative_RV, total_R1)
    return torch.minimum(drawn_R1, last_R1).squeeze(1)


def _filter(mass_V: NDArray[np.float32], top_k: int, top_p: float, min_p: float) -> None:
    """Takes the mass of the tokens that the filters drop, in place. What they keep keeps its mass unscaled."""
    limited = 0 < top_k < len(mass_V)
    likeliest_C = _likeliest(mass_V, max(top_k if limited else 1, NUCLEUS_CANDIDATES if top_p < 1 else 1))
    edge = likeliest_C[0] * min_p
    if limited:
        likeliest_C = likeliest_C[:top_k]
        edge = max(edge, likeliest_C[-1])
    if top_p < 1:
        bound = top_p * (likeliest_C if limited else mass_V).sum()
        if not limited and likeliest_C.sum() < bound:
            likeliest_C = _likeliest(mass_V, len(mass_V))
        inside = (
            int(np.searchsorted(likeliest_C.cumsum(), bound)) + 1
        )  # likelier ones hold less than the bound
        edge = max(edge, likeliest_C[min(inside, len(likeliest_C)) - 1])
    # A product with the comparison is vectorised, a masked assignment is not: 5 against 270 us for 32,000.
    np.multiply(mass_V, mass_V >= edge, out=mass_V)


def _likeliest(mass_V: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """At least the `count` largest, largest first."""
    if len(mass_V) <= SORTED_VOCABULARY or count >= len(mass_V):
        return np.sort(mass_V)[::-1]
    likeliest_C: NDArray[np.float32] = torch.from_numpy(mass_V).topk(count).values.numpy()
    return likeliest_C


@functools.cache
def _mask_terms() -> torch.Tensor:
    """Row `byte` says for each of its bits, lowest first, what its logit gets: 0 if set, else minus infinity."""
    allowed = torch.arange(256).unsqueeze(1) >> torch.arange(8) & 1
    return torch.where(allowed == 1, 0.0, float("-inf"))
