"""Random inputs for Drift's kernels, for tests and benchmarks: ragged sequences over scattered pages, sampling rows.

B sequences, T packed tokens, N query heads, K kv heads, H head dim, P pages, S slots per page, M pages per
sequence.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from drift_kernels import attention, sampling
from drift_kernels.sampling import SamplingInputs

# How far two right results may lie apart, as a share of the values' size (about 1 here): a few roundings of
# the dtype.
TOLERANCE = {torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}

# Roundings of float32 over sums of some thousand probabilities.
EDGE = 1e-5


def assert_close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    """Equal up to the roundings of the result's dtype."""
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    tolerance = TOLERANCE[actual.dtype]
    torch.testing.assert_close(actual.float(), expected.float(), rtol=tolerance, atol=tolerance)


@dataclass(frozen=True)
class PagedCase:
    """A batch over a cache whose pages are handed out in random order."""

    q_TNH: torch.Tensor
    key_PKSH: torch.Tensor
    value_PKSH: torch.Tensor
    query_starts_B1: torch.Tensor
    context_lens_B: torch.Tensor
    page_table_BM: torch.Tensor
    max_query_tokens: int
    max_context_tokens: int
    scale: float

    def prefill(self, impl: str, lane_sms: int = 2) -> torch.Tensor:
        """`attention.prefill` of the batch."""
        return attention.prefill(
            self.q_TNH,
            self.key_PKSH,
            self.value_PKSH,
            self.query_starts_B1,
            self.context_lens_B,
            self.page_table_BM,
            max_query_tokens=self.max_query_tokens,
            max_context_tokens=self.max_context_tokens,
            scale=self.scale,
            lane_sms=lane_sms,
            impl=impl,
        )

    def decode(self, impl: str, lane_sms: int = 2, split_count: int | None = None) -> torch.Tensor:
        """`attention.decode` of the batch, which has one query per sequence."""
        return attention.decode(
            self.q_TNH,
            self.key_PKSH,
            self.value_PKSH,
            self.context_lens_B,
            self.page_table_BM,
            max_context_tokens=self.max_context_tokens,
            scale=self.scale,
            lane_sms=lane_sms,
            impl=impl,
            split_count=split_count,
        )


def paged_case(
    query_lens: Sequence[int],
    cached_lens: Sequence[int],
    *,
    heads: int,
    kv_heads: int,
    head_dim: int,
    slots: int,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    seed: int = 0,
) -> PagedCase:
    """Sequences of `cached` + `query` tokens each. Table entries that no sequence owns point to a page of NaN."""
    generator = torch.Generator(device).manual_seed(seed)
    contexts = [q + c for q, c in zip(query_lens, cached_lens, strict=True)]
    counts = [-(-context // slots) for context in contexts]
    pages = sum(counts) + 1
    order = torch.randperm(pages - 1, generator=torch.Generator().manual_seed(seed)).tolist()
    table = torch.full((len(contexts), max([1, *counts])), pages - 1, dtype=torch.int32)
    for b, count in enumerate(counts):
        table[b, :count] = torch.tensor([order.pop() for _ in range(count)], dtype=torch.int32)
    shape = (pages, kv_heads, slots, head_dim)
    cache = [torch.randn(shape, generator=generator, device=device).to(dtype) for _ in range(2)]
    for cache_PKSH in cache:
        cache_PKSH[-1] = float("nan")
    starts = torch.tensor([0, *query_lens]).cumsum(0).int()
    return PagedCase(
        q_TNH=torch.randn((sum(query_lens), heads, head_dim), generator=generator, device=device).to(dtype),
        key_PKSH=cache[0],
        value_PKSH=cache[1],
        query_starts_B1=starts.to(device),
        context_lens_B=torch.tensor(contexts, dtype=torch.int32, device=device),
        page_table_BM=table.to(device),
        max_query_tokens=max([0, *query_lens]),
        max_context_tokens=max([0, *contexts]),
        scale=head_dim**-0.5,
    )


def sampling_inputs(rows: int, *, device: str = "cpu", seed: int = 0, **changes: Any) -> SamplingInputs:
    """Rows that sample at temperature 1 without any filter; `changes` name fields, a number holds for all rows."""
    defaults: dict[str, float] = {
        "temperature_B": 1.0,
        "top_p_B": 1.0,
        "min_p_B": 0.0,
        "presence_B": 0.0,
        "frequency_B": 0.0,
        "repetition_B": 1.0,
    }
    fields: dict[str, Any] = {k: torch.full((rows,), v, device=device) for k, v in defaults.items()}
    fields["top_k_B"] = torch.zeros(rows, dtype=torch.int32, device=device)
    fields["uniform_B"] = torch.rand(rows, generator=torch.Generator(device).manual_seed(seed), device=device)
    for name, value in changes.items():
        if name != "num_logprobs" and not isinstance(value, torch.Tensor):
            value = torch.tensor(value, dtype=fields[name].dtype, device=device).expand(rows).contiguous()
        fields[name] = value
    return SamplingInputs(**fields)


def assert_drawn_as_defined(
    logits_BV: torch.Tensor, inputs: SamplingInputs, token_ids_B: torch.Tensor
) -> None:
    """Every drawn token is the definition's, or one whose interval begins or ends within rounding of the uniform.

    The definition is `sampling.reference` in float64; an implementation in float32 may fall on the other side
    of an edge (of a filter's threshold, or between two tokens) that lies within a few roundings of the exact
    place.
    """
    expected_B = sampling.reference(logits_BV, inputs)
    adjusted_BV = sampling.adjust(logits_BV, inputs)
    for b in (token_ids_B != expected_B).nonzero().flatten().tolist():
        drawn, temperature = int(token_ids_B[b]), float(inputs.temperature_B[b])
        assert temperature > 0, f"row {b}: {drawn} instead of {int(expected_B[b])} without randomness"
        intervals = []
        for nudge in (-EDGE, 0.0, EDGE):
            kept_V = sampling.kept(
                adjusted_BV[b] / temperature,
                top_k=int(inputs.top_k_B[b]),
                top_p=float(inputs.top_p_B[b]) * (1 + nudge) if inputs.top_p_B[b] < 1 else 1.0,
                min_p=float(inputs.min_p_B[b]) * (1 + nudge),
            )
            mass_V = kept_V.double().softmax(0).cumsum(0)
            before = float(mass_V[drawn - 1]) if drawn > 0 else 0.0
            intervals.append((kept_V[drawn] > float("-inf"), before - EDGE, float(mass_V[drawn]) + EDGE))
        uniform = float(inputs.uniform_B[b])
        assert any(kept and low <= uniform <= high for kept, low, high in intervals), (
            f"row {b}: token {drawn} for uniform {uniform}, expected {int(expected_B[b])}: {intervals}"
        )
