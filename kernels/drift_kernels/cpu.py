"""The CPU's implementations behind the launchers: fast, and bit for bit the same row whatever it is computed with.

A row's float32 result must not depend on the batch around it, on how a prompt was cut into chunks, or on where its
pages lie: then fused, chunked, preempted, resumed and prefix-reused runs give identical tokens. Matrix libraries don't
promise that, but they keep it inside bounds that were measured and that `tests/kernels/test_cpu.py` checks again on
every machine:

- A product's row is the same for every number of rows that is a multiple of ROWS. Rows are padded up to that.
- A product's element is the same for every number of columns. Scores are therefore taken over a whole context.
- A sum over a different number of terms may be ordered differently. Probabilities times values are therefore summed
  in blocks of BLOCK_TOKENS at fixed positions, and the blocks added in ascending order; blocks and slots past a
  query's position contribute exact zeros.

T packed tokens, B sequences, N query heads, K kv heads, H head dim, P pages, S slots per page, M pages per sequence,
X sequences * kv heads, R query rows per kv head, C context padded to whole blocks, I input and O output features.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F  # noqa: N812

ROWS = 4
"""Measured with torch 2.11 and MKL 2024.2 on an AMD EPYC (Zen 4), 2026-11, float32, 1 to 16 threads: rows differ for
1-3 rows per thread (other kernels: up to 11 rows in all with 2 threads, 27 with 16) and never for multiples of 4."""

BLOCK_TOKENS = 64
GROUP_BYTES = 2 << 20
TILE_SCORES = 1 << 19

_SHORTEST_SHARE = 0.75
"""Decode rows share a gather while the shortest context is at least this share of the longest, in blocks."""


def linear(x_TI: torch.Tensor, weight_OI: torch.Tensor, bias_O: torch.Tensor | None) -> torch.Tensor:
    """`x @ weight.T + bias` as [T, O]."""
    tokens = x_TI.shape[0]
    padding = -tokens % ROWS
    padded_TI = F.pad(x_TI, (0, 0, 0, padding)) if padding else x_TI
    y_TO = F.linear(padded_TI, weight_OI)[:tokens]
    # Not inside the product: there the library starts from the bias or adds it last, by its own choice.
    return y_TO if bias_O is None else y_TO.add_(bias_O)


def prefill_attention(
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
) -> torch.Tensor:
    """See `attention.prefill`: one sequence after the other, its queries in tiles."""
    out_TNH = torch.zeros_like(q_TNH)
    heads, kv_heads = q_TNH.shape[1], key_PKSH.shape[1]
    starts, contexts = query_starts_B1.tolist(), context_lens_B.tolist()
    for b, context in enumerate(contexts):
        start, queries = starts[b], starts[b + 1] - starts[b]
        if queries == 0:
            continue
        pages_1KM = _pages(page_table_BM[b : b + 1], [context], key_PKSH)
        k_KCH = _gather(key_PKSH, pages_1KM, context)
        v_KCH = _gather(value_PKSH, pages_1KM, context)
        v_KCH[:, context:] = 0
        tile = max(ROWS, TILE_SCORES // (k_KCH.shape[1] * heads) // ROWS * ROWS)
        for first in range(0, queries, tile):
            last = min(first + tile, queries)
            seen = context - queries + last  # tokens that the tile's last query sees
            length = _whole_blocks(seen)
            q_QNH = q_TNH[start + first : start + last]
            limits_1R = torch.arange(seen - (last - first) + 1, seen + 1).repeat_interleave(heads // kv_heads)[None]
            rows_KRH = q_QNH.unflatten(1, (kv_heads, -1)).transpose(0, 1).flatten(1, 2)
            out_KRH = _attend(rows_KRH, k_KCH[:, :length], v_KCH[:, :length], limits_1R, scale)
            out_QNH = out_KRH.unflatten(1, (last - first, -1)).transpose(0, 1).flatten(1, 2)
            out_TNH[start + first : start + last] = out_QNH
    return out_TNH


def decode_attention(
    q_BNH: torch.Tensor,
    key_PKSH: torch.Tensor,
    value_PKSH: torch.Tensor,
    context_lens_B: torch.Tensor,
    page_table_BM: torch.Tensor,
    *,
    max_context_tokens: int,
    scale: float,
) -> torch.Tensor:
    """See `attention.decode`: sequences of similar length together, as many as stay in the cache."""
    out_BNH = torch.zeros_like(q_BNH)
    kv_heads, head_dim = key_PKSH.shape[1], key_PKSH.shape[3]
    contexts = context_lens_B.tolist()
    for members in _groups(contexts, kv_heads * head_dim * 4):
        rows_b = torch.tensor(members)
        lengths = [contexts[b] for b in members]
        pages_bKM = _pages(page_table_BM[rows_b], lengths, key_PKSH)
        k_XCH = _gather(key_PKSH, pages_bKM, lengths[0])
        v_XCH = _gather(value_PKSH, pages_bKM, lengths[0])
        v_bKCH = v_XCH.unflatten(0, (-1, kv_heads))
        for v_KCH, length in zip(v_bKCH, lengths, strict=True):
            v_KCH[:, length:] = 0
        q_XRH = q_BNH[rows_b].view(len(members) * kv_heads, -1, head_dim)
        limits_b1 = context_lens_B[rows_b, None]
        out_BNH[rows_b] = _attend(q_XRH, k_XCH, v_XCH, limits_b1, scale).reshape(len(members), -1, head_dim)
    return out_BNH


def _groups(contexts: list[int], bytes_per_token: int) -> Iterator[list[int]]:
    """Rows in groups of similar length, longest first; rows without context are in none."""
    order = sorted((b for b, context in enumerate(contexts) if context), key=lambda b: -contexts[b])
    group: list[int] = []
    for b in order:
        if group:
            longest = _whole_blocks(contexts[group[0]])
            full = (len(group) + 1) * longest * bytes_per_token > GROUP_BYTES
            if full or _whole_blocks(contexts[b]) < _SHORTEST_SHARE * longest:
                yield group
                group = []
        group.append(b)
    if group:
        yield group


def _whole_blocks(tokens: int) -> int:
    return -(-tokens // BLOCK_TOKENS) * BLOCK_TOKENS


def _pages(table_bM: torch.Tensor, lengths: list[int], cache_PKSH: torch.Tensor) -> torch.Tensor:
    """Where each head's part of each page starts in the cache seen as [P * K] rows: [b, K, pages of the blocks].

    Pages past a sequence's end repeat its first one: its slots are masked, and finite as its own.
    """
    kv_heads, slots = cache_PKSH.shape[1:3]
    columns = -(-_whole_blocks(max(lengths)) // slots)
    used_b1 = torch.tensor([[-(-length // slots)] for length in lengths])
    column_M = torch.arange(columns)
    column_bM = torch.where(column_M < used_b1, column_M, 0)
    pages_bM = table_bM.long().gather(1, column_bM)
    return pages_bM[:, None, :] * kv_heads + torch.arange(kv_heads)[:, None]


def _gather(cache_PKSH: torch.Tensor, pages_bKM: torch.Tensor, longest: int) -> torch.Tensor:
    """[b * K, C, H] float32: one copy, in runs of a page's head."""
    slots, head_dim = cache_PKSH.shape[2:]
    rows = cache_PKSH.view(-1, slots * head_dim).index_select(0, pages_bKM.flatten())
    gathered_XCH = rows.view(pages_bKM.shape[0] * pages_bKM.shape[1], -1, head_dim)
    return gathered_XCH[:, : _whole_blocks(longest)].float()


def _attend(
    q_XRH: torch.Tensor, k_XCH: torch.Tensor, v_XCH: torch.Tensor, limits_bR: torch.Tensor, scale: float
) -> torch.Tensor:
    """[X, R, H] in q's dtype. Row r of sequence b sees the first `limits_bR[b, r]` slots (one limit may serve all rows)."""
    rows = q_XRH.shape[1]
    padding = -rows % ROWS
    scaled_XRH = F.pad(q_XRH.float() * scale, (0, 0, 0, padding))
    scores_XRC = torch.bmm(scaled_XRH, k_XCH.transpose(1, 2))
    shortest = int(limits_bR.min())
    if limits_bR.shape[1] > 1:
        limits_bR = F.pad(limits_bR, (0, padding), value=shortest)
    hidden_b1RC = (torch.arange(shortest, k_XCH.shape[1]) >= limits_bR[:, :, None]).unsqueeze(1)
    scores_XRC.unflatten(0, (limits_bR.shape[0], -1))[..., shortest:].masked_fill_(hidden_b1RC, float("-inf"))
    scores_XRC.sub_(scores_XRC.amax(-1, keepdim=True)).exp_()
    sums_XRJ = scores_XRC.unflatten(-1, (-1, BLOCK_TOKENS)).sum(-1)
    out_XRH = torch.bmm(scores_XRC[..., :BLOCK_TOKENS], v_XCH[:, :BLOCK_TOKENS])
    total_XR = sums_XRJ[..., 0]
    for j in range(1, sums_XRJ.shape[-1]):
        block = slice(j * BLOCK_TOKENS, (j + 1) * BLOCK_TOKENS)
        out_XRH.baddbmm_(scores_XRC[..., block], v_XCH[:, block])
        total_XR = total_XR + sums_XRJ[..., j]
    return out_XRH.div_(total_XR.unsqueeze(-1))[:, :rows].to(q_XRH.dtype)
