"""CPU paths of the launchers (being replaced by the fast version within the hour)."""

import torch
import torch.nn.functional as F  # noqa: N812

from drift_kernels import attention

ROWS = 4


def linear(x_TI: torch.Tensor, weight_OI: torch.Tensor, bias_O: torch.Tensor | None) -> torch.Tensor:
    rows = x_TI.shape[0]
    if rows % ROWS:
        x_TI = F.pad(x_TI, (0, 0, 0, -rows % ROWS))
    y_TO = F.linear(x_TI, weight_OI)[:rows]
    return y_TO if bias_O is None else y_TO + bias_O


def prefill_attention(q, k, v, starts, lens, table, *, max_query_tokens, max_context_tokens, scale):  # type: ignore
    return attention.reference_prefill(q, k, v, starts, lens, table, scale)


def decode_attention(q, k, v, lens, table, *, max_context_tokens, scale):  # type: ignore
    return attention.reference_decode(q, k, v, lens, table, scale)
