"""From a packed QKV row to attention's inputs: per-head norm, rotary embedding, and the write into the paged cache.

Comes after the QKV projection and before attention, which reads K and V from the pages only.

T packed tokens, X = (N + 2K) * H, N query heads, K kv heads, H head dim, L positions, P pages, S slots per
page.
"""

import torch

from drift_kernels import contracts, dispatch, norms


def rotate_and_store(
    qkv_TX: torch.Tensor,
    q_norm_H: torch.Tensor | None,
    k_norm_H: torch.Tensor | None,
    cos_sin_LH: torch.Tensor,
    positions_T: torch.Tensor,
    slots_T: torch.Tensor,
    key_PKSH: torch.Tensor,
    value_PKSH: torch.Tensor,
    num_heads: int,
    num_kv_heads: int,
    eps: float,
    *,
    lane_sms: int,
    impl: str = "auto",
) -> torch.Tensor:
    """Returns the rotated queries [T, N, H] and writes the rotated keys and the values of every token to its slot.

    A row of `qkv_TX` is [q heads, k heads, v heads]. `q_norm_H` and `k_norm_H` (both or neither) are the
    weights of Qwen3's per-head RMSNorm, applied before the rotation. The rotation is NeoX-style: dimension i
    turns with i + H/2 by the angle whose cosine is `cos_sin_LH[position, i]` and sine `cos_sin_LH[position, i
    + H/2]` (float32). Slot `page * S + offset` is int32 or int64; a token with slot -1 is written nowhere.
    Two tokens never share a slot.
    """
    tokens = qkv_TX.shape[0]
    pages, kv_heads, slots, head_dim = key_PKSH.shape
    dtype = qkv_TX.dtype
    contracts.heads_share(num_heads, num_kv_heads)
    assert kv_heads == num_kv_heads, f"the cache has {kv_heads} kv heads, the model {num_kv_heads}"
    assert head_dim % 2 == 0, f"head dim {head_dim} is odd"
    contracts.tensor("qkv", qkv_TX, (tokens, (num_heads + 2 * num_kv_heads) * head_dim), dtype)
    contracts.tensor("key cache", key_PKSH, (pages, kv_heads, slots, head_dim), key_PKSH.dtype)
    contracts.tensor("value cache", value_PKSH, (pages, kv_heads, slots, head_dim), key_PKSH.dtype)
    contracts.tensor("positions", positions_T, (tokens,), *contracts.INTEGERS)
    contracts.tensor("slots", slots_T, (tokens,), *contracts.INTEGERS)
    contracts.tensor("cos_sin", cos_sin_LH, (cos_sin_LH.shape[0], head_dim), torch.float32)
    assert (q_norm_H is None) == (k_norm_H is None), "q and k norms come together"
    if q_norm_H is not None and k_norm_H is not None:
        contracts.tensor("q_norm", q_norm_H, (head_dim,), dtype)
        contracts.tensor("k_norm", k_norm_H, (head_dim,), dtype)
    chosen = dispatch.choose(impl, qkv_TX)
    if chosen == "triton" and tokens > 0:
        from drift_kernels import rotary_triton

        return rotary_triton.rotate_and_store(
            qkv_TX,
            q_norm_H,
            k_norm_H,
            cos_sin_LH,
            positions_T,
            slots_T,
            key_PKSH,
            value_PKSH,
            num_heads,
            eps,
            lane_sms,
        )
    return reference(
        qkv_TX,
        q_norm_H,
        k_norm_H,
        cos_sin_LH,
        positions_T,
        slots_T,
        key_PKSH,
        value_PKSH,
        num_heads,
        num_kv_heads,
        eps,
    )


def reference(
    qkv_TX: torch.Tensor,
    q_norm_H: torch.Tensor | None,
    k_norm_H: torch.Tensor | None,
    cos_sin_LH: torch.Tensor,
    positions_T: torch.Tensor,
    slots_T: torch.Tensor,
    key_PKSH: torch.Tensor,
    value_PKSH: torch.Tensor,
    num_heads: int,
    num_kv_heads: int,
    eps: float,
) -> torch.Tensor:
    """The definition; also what runs on a CPU."""
    slots, head_dim = key_PKSH.shape[2:]
    heads_TXH = qkv_TX.view(qkv_TX.shape[0], -1, head_dim)
    q_TNH, kv_TXH = heads_TXH[:, :num_heads], heads_TXH[:, num_heads:]
    k_TKH, v_TKH = kv_TXH.chunk(2, dim=1)
    angles_T1H = cos_sin_LH[positions_T.long()].unsqueeze(1)
    if q_norm_H is not None and k_norm_H is not None:
        q_TNH, k_TKH = norms.rms_norm(q_TNH, q_norm_H, eps), norms.rms_norm(k_TKH, k_norm_H, eps)
    rotated_q_TNH = rotate(q_TNH.float(), angles_T1H).to(qkv_TX.dtype)
    rotated_k_TKH = rotate(k_TKH.float(), angles_T1H)
    kept_T = slots_T >= 0
    target_T = slots_T.long()[kept_T]
    page_T, offset_T = target_T // slots, target_T % slots
    key_PKSH[page_T, :, offset_T] = rotated_k_TKH[kept_T].to(key_PKSH.dtype)
    value_PKSH[page_T, :, offset_T] = v_TKH[kept_T].to(value_PKSH.dtype)
    return rotated_q_TNH


def rotate(x_TAH: torch.Tensor, angles_T1H: torch.Tensor) -> torch.Tensor:
    """NeoX-style rotation of every head (A of them) of every token."""
    first, second = x_TAH.chunk(2, dim=-1)
    cos, sin = angles_T1H.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
