"""The CPU's implementations behind the launchers: fast, and bit for bit the same row whatever it is computed with.

A row's float32 result must not depend on the batch around it, on how a prompt was cut into chunks, or on where its
pages lie: then fused, chunked, preempted, resumed and prefix-reused runs give identical tokens. Matrix libraries do
not promise that, but they keep it inside bounds that were measured and that the tests check again on every machine:

- A product's row is the same for every number of rows that is a multiple of ROWS. Rows are padded up to that.
  (oneDNN's products with packed weights are the same from 2 rows on.)
- A product's element is the same for every number of columns. Scores are therefore taken over a whole context.
- A sum over a different number of terms may be ordered differently. Probabilities times values are therefore summed
  in blocks of BLOCK_TOKENS at fixed positions, and the blocks added in ascending order; blocks and slots past a
  query's position contribute exact zeros.

T packed tokens, B sequences, N query heads, K kv heads, H head dim, P pages, S slots per page, M pages per sequence,
X sequences * kv heads, R query rows per kv head, C context padded to whole blocks, I input and O output features.
"""

import functools
import threading
from collections.abc import Iterator

import torch
import torch.nn.functional as F  # noqa: N812

ROWS = 4
"""Measured with torch 2.11 and MKL 2024.2 on an AMD EPYC (Zen 4), 2026-11, float32, 1 to 16 threads, 16 shapes from
3 x 8 to 4096 x 6144: a row differs where a thread gets 1-3 rows (up to 11 rows in all with 2 threads, 27 with 16) and
never for a multiple of 4. Known exception: weights narrower than about 40 outputs under 3 or more threads."""

BLOCK_TOKENS = 64
"""128 is as fast but pads a context of 300 tokens to 384 instead of 320; 32 doubles the calls of a long context."""

GROUP_BYTES = 4 << 20
"""Keys (and as much in values) that decode rows gather at a time, so that the products find them in the cache.
CPU time of one thread for 1, 2, 3, 4, 8 MiB on the same machine, shared with other work, pages scattered over 150 MB:
2.3, 2.5, 2.3, 1.9, 2.2 ms for 16 rows x 300 tokens, 12 heads over 4 kv heads x 64; 7.8, 6.3, 6.1, 6.2, 6.8 ms with 12
kv heads. Half of it is reading the scattered pages. torch's own attention needs 0.75 and 2.1 ms over keys and values
that lie side by side in the cache, and with the gather in front of it 3.4 and 21 ms."""

TILE_SCORES = 1 << 20
"""Scores of one kv head's query tile times all heads, 4 MiB. Best of 2^16 to 2^21 for 256-512 queries over 512-2,048
tokens; 2^18 is 1.5 times slower over 2,048 tokens, 2^21 equal but twice the memory."""

_SHORTEST_SHARE = (
    0.75  # decode rows share a gather while the shortest context is at least this share of the longest
)


_PACKED_FOR_ROWS = 16
"""What oneDNN lays packed weights out for: decode batches. The layout that it picks serves 4 to 512 rows as well."""


def pack(weight_OI: torch.Tensor) -> torch.Tensor:
    """A copy of the weights, blocked as oneDNN's product reads them; themselves where it has no such product.

    Cold weights, 768 -> 4608, 2 threads, AMD EPYC (Zen 4), 2026-11: 2.4, 1.9 and 2.7 times as fast as MKL's product
    of plain weights for 4, 16 and 32 rows, 1.6 times for 512. The two operators are those that torch's own compiler
    calls for constant weights; no public function packs.
    """
    if not _packs(weight_OI.dtype):
        return weight_OI
    packed_OI: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight_OI, _PACKED_FOR_ROWS)
    return packed_OI


@functools.cache
def _packs(dtype: torch.dtype) -> bool:
    if not torch._C._has_mkldnn:
        return False
    bfloat16 = dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return dtype == torch.float32 or bool(bfloat16)


def linear(x_TI: torch.Tensor, weight_OI: torch.Tensor, bias_O: torch.Tensor | None) -> torch.Tensor:
    """`x @ weight.T + bias` as [T, O]; the weights plain or packed."""
    tokens = x_TI.shape[0]
    padding = -tokens % ROWS
    padded_TI = F.pad(x_TI, (0, 0, 0, padding)) if padding else x_TI
    if weight_OI.is_mkldnn:
        product_TO: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            padded_TI, weight_OI, None, "none", [], ""
        )
    else:
        product_TO = F.linear(padded_TI, weight_OI)
    y_TO = product_TO[:tokens]
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
    """See `attention.prefill`: one sequence after the other, its queries in tiles. The two bounds are not needed."""
    out_TNH = torch.zeros_like(q_TNH)
    heads, head_dim = q_TNH.shape[1:]
    kv_heads = key_PKSH.shape[1]
    group = heads // kv_heads
    starts, contexts = query_starts_B1.tolist(), context_lens_B.tolist()
    for b, context in enumerate(contexts):
        start, queries = starts[b], starts[b + 1] - starts[b]
        if queries == 0:
            continue
        pages_KM = _pages(page_table_BM[b : b + 1], [context], key_PKSH)[0]
        k_KCH = _gather("key", key_PKSH, pages_KM, context)
        v_KCH = _gather("value", value_PKSH, pages_KM, context)
        v_KCH[:, context:] = 0
        tile = max(ROWS, TILE_SCORES // (k_KCH.shape[1] * heads))
        for first in range(0, queries, tile):
            size = min(tile, queries - first)
            seen = context - queries + first + size  # tokens that the tile's last query sees
            length = _whole_blocks(seen)
            rows = slice(start + first, start + first + size)
            q_KQGH = q_TNH[rows].view(size, kv_heads, group, head_dim).transpose(0, 1)
            q_KRH = q_KQGH.reshape(kv_heads, size * group, head_dim)
            limits_1R = torch.arange(seen - size + 1, seen + 1).repeat_interleave(group)[None]
            out_KRH = _attend(q_KRH, k_KCH[:, :length], v_KCH[:, :length], limits_1R, seen - size + 1, scale)
            out_QKGH = out_KRH.reshape(kv_heads, size, group, head_dim).transpose(0, 1)
            out_TNH[rows] = out_QKGH.reshape(size, heads, head_dim)
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
    kv_heads, _, head_dim = key_PKSH.shape[1:]
    contexts = context_lens_B.tolist()
    order = sorted((b for b, context in enumerate(contexts) if context), key=lambda b: -contexts[b])
    lengths = [contexts[b] for b in order]
    if not order:
        return out_BNH
    order_B = torch.tensor(order)
    q_BKRH = q_BNH[order_B].view(len(order), kv_heads, -1, head_dim)
    pages_BKM = _pages(page_table_BM[order_B], lengths, key_PKSH)
    sorted_BNH = torch.empty_like(q_BNH[: len(order)])
    for start, stop in _groups(lengths, kv_heads * head_dim * torch.float32.itemsize):
        own = lengths[start:stop]
        pages_XM = pages_BKM[start:stop, :, : _pages_of(own[0], key_PKSH)].flatten(0, 1)
        k_XCH = _gather("key", key_PKSH, pages_XM, own[0])
        v_XCH = _gather("value", value_PKSH, pages_XM, own[0])
        for i, length in enumerate(own):
            v_XCH[i * kv_heads : (i + 1) * kv_heads, length:] = 0
        limits_B1 = torch.tensor(own)[:, None]
        out_XRH = _attend(q_BKRH[start:stop].flatten(0, 1), k_XCH, v_XCH, limits_B1, own[-1], scale)
        sorted_BNH[start:stop] = out_XRH.reshape(len(own), -1, head_dim)
    out_BNH[order_B] = sorted_BNH
    return out_BNH


def _groups(lengths: list[int], bytes_per_token: int) -> Iterator[tuple[int, int]]:
    """Ranges of rows of similar length; `lengths` descend."""
    start, longest = 0, _whole_blocks(lengths[0])
    for row, length in enumerate(lengths):
        padded = _whole_blocks(length)
        full = (row - start + 1) * longest * bytes_per_token > GROUP_BYTES
        if row > start and (full or padded < _SHORTEST_SHARE * longest):
            yield start, row
            start, longest = row, padded
    yield start, len(lengths)


def _whole_blocks(tokens: int) -> int:
    return -(-tokens // BLOCK_TOKENS) * BLOCK_TOKENS


def _pages_of(tokens: int, cache_PKSH: torch.Tensor) -> int:
    """Pages to gather for a context: enough for whole blocks."""
    return -(-_whole_blocks(tokens) // cache_PKSH.shape[2])


def _pages(table_BM: torch.Tensor, lengths: list[int], cache_PKSH: torch.Tensor) -> torch.Tensor:
    """[B, K, M]: where each head's part of each page is in the cache seen as P * K rows.

    Past a sequence's end its first page is repeated: those slots are masked, and as finite as its own.
    """
    kv_heads, slots = cache_PKSH.shape[1:3]
    column_M = torch.arange(_pages_of(max(lengths), cache_PKSH))
    used_B1 = torch.tensor([[-(-length // slots)] for length in lengths])
    pages_BM = table_BM.long().gather(1, torch.where(column_M < used_B1, column_M, 0))
    return pages_BM[:, None, :] * kv_heads + torch.arange(kv_heads)[:, None]


class _Workspace(threading.local):
    """Where keys and values are gathered, per thread and kept up to GROUP_BYTES: fresh memory costs page faults."""

    def __init__(self) -> None:
        self.buffers: dict[str, torch.Tensor] = {}

    def take(self, name: str, elements: int, dtype: torch.dtype) -> torch.Tensor:
        buffer = self.buffers.get(name)
        if buffer is None or buffer.numel() < elements or buffer.dtype != dtype:
            with torch.inference_mode(
                False
            ):  # an inference tensor could not be written outside that mode later
                buffer = torch.empty(elements, dtype=dtype)
            if buffer.nbytes <= GROUP_BYTES:
                self.buffers[name] = buffer
        return buffer[:elements]


_workspace = _Workspace()


def _gather(name: str, cache_PKSH: torch.Tensor, pages_XM: torch.Tensor, longest: int) -> torch.Tensor:
    """[X, C, H] float32, valid until the next gather of that name: one copy, in runs of one head of a page."""
    slots, head_dim = cache_PKSH.shape[2:]
    width = slots * head_dim
    out = _workspace.take(name, pages_XM.numel() * width, cache_PKSH.dtype).view(-1, width)
    torch.index_select(cache_PKSH.view(-1, width), 0, pages_XM.flatten(), out=out)
    return out.view(pages_XM.shape[0], -1, head_dim)[:, : _whole_blocks(longest)].float()


def _attend(
    q_XRH: torch.Tensor,
    k_XCH: torch.Tensor,
    v_XCH: torch.Tensor,
    limits_BR: torch.Tensor,
    shortest: int,
    scale: float,
) -> torch.Tensor:
    """[X, R, H] in q's dtype. Row r of sequence b sees its first `limits_BR[b, r]` slots, at least `shortest`.

    One column of limits serves all rows.
    """
    heads, rows, context = q_XRH.shape[0] // limits_BR.shape[0], q_XRH.shape[1], k_XCH.shape[1]
    padding = -rows % ROWS
    scaled_XRH = F.pad(q_XRH.float() * scale, (0, 0, 0, padding))
    if limits_BR.shape[1] > 1:
        limits_BR = F.pad(limits_BR, (0, padding), value=shortest)
    scores_XRC = torch.bmm(scaled_XRH, k_XCH.transpose(1, 2))
    if shortest < context:
        hidden_B1RC = (torch.arange(shortest, context) >= limits_BR[:, :, None])[:, None]
        scores_BKRC = scores_XRC.view(-1, heads, rows + padding, context)
        scores_BKRC[..., shortest:].masked_fill_(hidden_B1RC, float("-inf"))
    weights_XRC = scores_XRC.sub_(scores_XRC.amax(-1, keepdim=True)).exp_()
    sums_XRJ = weights_XRC.view(*weights_XRC.shape[:2], -1, BLOCK_TOKENS).sum(-1)
    out_XRH = torch.bmm(weights_XRC[..., :BLOCK_TOKENS], v_XCH[:, :BLOCK_TOKENS])
    total_XR = sums_XRJ.cumsum(-1)[..., -1]  # in ascending order, which `sum` does not promise
    for j in range(1, sums_XRJ.shape[-1]):
        block = slice(j * BLOCK_TOKENS, (j + 1) * BLOCK_TOKENS)
        out_XRH.baddbmm_(weights_XRC[..., block], v_XCH[:, block])
    return out_XRH.div_(total_XR.unsqueeze(-1))[:, :rows].to(q_XRH.dtype)
