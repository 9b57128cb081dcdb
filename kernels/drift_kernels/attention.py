"""Causal attention over the paged KV cache: for prompts (`prefill`), for one new token per sequence (`decode`).

Keys and values were written to the pages by `rotary.rotate_and_store`, those of this step included; a cached
prefix is pages that were already there. Page numbers of a sequence stand in its row of the page table, in
order of position.

T packed tokens, B sequences, N query heads, K kv heads, H head dim, P pages, S slots per page, M pages per
sequence.
"""

import torch

from drift_kernels import contracts, dispatch, grids


def prefill(
    q_TNH: torch.Tensor,
    key_PKSH: torch.Tensor,
    value_PKSH: torch.Tensor,
    query_starts_B1: torch.Tensor,
    context_lens_B: torch.Tensor,
    page_table_BM: torch.Tensor,
    *,
    max_query_tokens: int,
    max_context_tokens: int,
    scale: float,
    lane_sms: int,
    impl: str = "auto",
) -> torch.Tensor:
    """Attention of ragged queries: [T, N, H] -> [T, N, H].

    Sequence b owns the rows `query_starts[b]:query_starts[b + 1]`. Its query i sits at position
    `context_lens[b] - query_len + i` and sees the positions up to its own; `context_lens` counts cached and
    new tokens. `max_query_tokens` and `max_context_tokens` bound both lengths, so that no size is read back
    from the device. Rows past `query_starts[B]` are padding, their result is undefined. `impl="library"` is
    torch's own variable-length flash attention, for the pure prompt case only: CUDA, half precision, nothing
    cached in front of any sequence's queries; it needs keys and values gathered from the pages, which is part
    of its cost.
    """
    _check(q_TNH, key_PKSH, value_PKSH, context_lens_B, page_table_BM, max_context_tokens)
    sequences = context_lens_B.shape[0]
    contracts.tensor("query_starts", query_starts_B1, (sequences + 1,), torch.int32)
    assert 0 <= max_query_tokens <= max_context_tokens, f"{max_query_tokens=} exceeds {max_context_tokens=}"
    chosen = dispatch.choose(impl, q_TNH, "library")
    tables = (query_starts_B1, context_lens_B, page_table_BM)
    if q_TNH.shape[0] == 0 or sequences == 0:
        return torch.empty_like(q_TNH)
    if chosen == "triton":
        from drift_kernels import prefill_triton

        return prefill_triton.prefill(q_TNH, key_PKSH, value_PKSH, *tables, max_query_tokens, scale, lane_sms)
    if chosen == "library":
        return _library_prefill(q_TNH, key_PKSH, value_PKSH, *tables, max_query_tokens, scale)
    if chosen == "cpu":
        from drift_kernels import cpu

        return cpu.prefill_attention(
            q_TNH,
            key_PKSH,
            value_PKSH,
            *tables,
            max_query_tokens=max_query_tokens,
            max_context_tokens=max_context_tokens,
            scale=scale,
        )
    return reference_prefill(q_TNH, key_PKSH, value_PKSH, *tables, scale)


def decode(
    q_BNH: torch.Tensor,
    key_PKSH: torch.Tensor,
    value_PKSH: torch.Tensor,
    context_lens_B: torch.Tensor,
    page_table_BM: torch.Tensor,
    *,
    max_context_tokens: int,
    scale: float,
    lane_sms: int,
    impl: str = "auto",
    split_count: int | None = None,
) -> torch.Tensor:
    """Attention of one query per sequence at its last position: [B, N, H] -> [B, N, H].

    A row with context length 0 is padding and gives zeros. `split_count` is into how many parts each context
    is cut so that a small batch still fills the lane; None asks `grids.decode_splits`. It changes the order
    of summation only.
    """
    _check(q_BNH, key_PKSH, value_PKSH, context_lens_B, page_table_BM, max_context_tokens)
    sequences, kv_heads = context_lens_B.shape[0], key_PKSH.shape[1]
    assert q_BNH.shape[0] == sequences, f"{q_BNH.shape[0]} queries for {sequences} sequences"
    assert split_count is None or 1 <= split_count <= grids.MAX_DECODE_SPLITS, f"{split_count=} out of range"
    chosen = dispatch.choose(impl, q_BNH)
    if sequences == 0:
        return torch.empty_like(q_BNH)
    if chosen == "triton":
        from drift_kernels import decode_triton

        splits = split_count or grids.decode_splits(lane_sms, sequences, kv_heads, max_context_tokens)
        return decode_triton.decode(
            q_BNH, key_PKSH, value_PKSH, context_lens_B, page_table_BM, splits, scale, lane_sms
        )
    if chosen == "cpu":
        from drift_kernels import cpu

        return cpu.decode_attention(
            q_BNH,
            key_PKSH,
            value_PKSH,
            context_lens_B,
            page_table_BM,
            max_context_tokens=max_context_tokens,
            scale=scale,
        )
    return reference_decode(q_BNH, key_PKSH, value_PKSH, context_lens_B, page_table_BM, scale)


def _check(
    q_TNH: torch.Tensor,
    key_PKSH: torch.Tensor,
    value_PKSH: torch.Tensor,
    context_lens_B: torch.Tensor,
    page_table_BM: torch.Tensor,
    max_context_tokens: int,
) -> None:
    tokens, heads, head_dim = q_TNH.shape
    pages, kv_heads, slots, _ = key_PKSH.shape
    sequences, pages_per_sequence = page_table_BM.shape
    contracts.heads_share(heads, kv_heads)
    contracts.tensor("queries", q_TNH, (tokens, heads, head_dim), q_TNH.dtype)
    contracts.tensor("key cache", key_PKSH, (pages, kv_heads, slots, head_dim), q_TNH.dtype)
    contracts.tensor("value cache", value_PKSH, (pages, kv_heads, slots, head_dim), q_TNH.dtype)
    contracts.tensor("context_lens", context_lens_B, (sequences,), torch.int32)
    contracts.tensor("page_table", page_table_BM, (sequences, pages_per_sequence), torch.int32)
    assert max_context_tokens <= pages_per_sequence * slots, (
        f"{max_context_tokens} tokens of context do not fit {pages_per_sequence} pages of {slots}"
    )


def gather_pages(cache_PKSH: torch.Tensor, pages: torch.Tensor, tokens: int) -> torch.Tensor:
    """The first `tokens` tokens of the given pages in order, as [tokens, K, H]."""
    return cache_PKSH[pages.long()].transpose(1, 2).flatten(0, 1)[:tokens]


def reference_prefill(
    q_TNH: torch.Tensor,
    key_PKSH: torch.Tensor,
    value_PKSH: torch.Tensor,
    query_starts_B1: torch.Tensor,
    context_lens_B: torch.Tensor,
    page_table_BM: torch.Tensor,
    scale: float,
) -> torch.Tensor:
    """The definition: one sequence after the other, every score in float32. Padding rows are zero."""
    out_TNH = torch.zeros_like(q_TNH)
    starts, contexts = query_starts_B1.tolist(), context_lens_B.tolist()
    for b, context in enumerate(contexts):
        rows = slice(starts[b], starts[b + 1])
        queries = rows.stop - rows.start
        group = q_TNH.shape[1] // key_PKSH.shape[1]
        k_CNH = gather_pages(key_PKSH, page_table_BM[b], context).float().repeat_interleave(group, dim=1)
        v_CNH = gather_pages(value_PKSH, page_table_BM[b], context).float().repeat_interleave(group, dim=1)
        scores_NQC = torch.einsum("qnh,cnh->nqc", q_TNH[rows].float(), k_CNH) * scale
        position_Q1 = torch.arange(context - queries, context, device=q_TNH.device).unsqueeze(1)
        future_QC = torch.arange(context, device=q_TNH.device) > position_Q1
        weights_NQC = scores_NQC.masked_fill(future_QC, float("-inf")).softmax(dim=-1)
        out_TNH[rows] = torch.einsum("nqc,cnh->qnh", weights_NQC, v_CNH).to(q_TNH.dtype)
    return out_TNH


def reference_decode(
    q_BNH: torch.Tensor,
    key_PKSH: torch.Tensor,
    value_PKSH: torch.Tensor,
    context_lens_B: torch.Tensor,
    page_table_BM: torch.Tensor,
    scale: float,
) -> torch.Tensor:
    """The definition: a prefill of one query per sequence; rows without context are zero."""
    live_B = (context_lens_B > 0).int()
    starts_B1 = torch.nn.functional.pad(live_B.cumsum(0, dtype=torch.int32), (1, 0))
    packed_TNH = q_BNH[live_B.bool()]
    out_BNH = torch.zeros_like(q_BNH)
    out_BNH[live_B.bool()] = reference_prefill(
        packed_TNH, key_PKSH, value_PKSH, starts_B1, context_lens_B, page_table_BM, scale
    )
    return out_BNH


def _library_prefill(
    q_TNH: torch.Tensor,
    key_PKSH: torch.Tensor,
    value_PKSH: torch.Tensor,
    query_starts_B1: torch.Tensor,
    context_lens_B: torch.Tensor,
    page_table_BM: torch.Tensor,
    max_query_tokens: int,
    scale: float,
) -> torch.Tensor:
    from torch.nn.attention.varlen import varlen_attn

    assert q_TNH.dtype in (torch.float16, torch.bfloat16), f"flash attention takes no {q_TNH.dtype}"
    tokens, slots = q_TNH.shape[0], key_PKSH.shape[2]
    # Row t of sequence b is position t - query_starts[b]: without a cached prefix, queries and context
    # coincide.
    row_T = torch.arange(tokens, device=q_TNH.device, dtype=torch.int32)
    sequence_T = (
        torch.searchsorted(query_starts_B1, row_T, right=True).sub_(1).clamp_(max=context_lens_B.shape[0] - 1)
    )
    position_T = (row_T - query_starts_B1[sequence_T]).clamp_(max=page_table_BM.shape[1] * slots - 1).long()
    page_T = page_table_BM[sequence_T, position_T // slots].long()
    k_TKH, v_TKH = key_PKSH[page_T, :, position_T % slots], value_PKSH[page_T, :, position_T % slots]
    out = varlen_attn(
        q_TNH,
        k_TKH,
        v_TKH,
        query_starts_B1,
        query_starts_B1,
        max_query_tokens,
        max_query_tokens,
        scale=scale,
        window_size=(-1, 0),  # causal
    )
    assert isinstance(out, torch.Tensor)
    return out
