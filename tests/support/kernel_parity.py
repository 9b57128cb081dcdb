"""Every implementation of every launcher against its reference, on any device: used on real GPUs.

On a CPU the same code compares the CPU's implementations. Each comparison is a plain dict with `ok`, the largest
error and the tolerance of the dtype; an implementation that fails leaves its error instead.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from drift_kernels import activations, linear, norms, rotary, sampling
from kernel_cases import TOLERANCE, paged_case, sampling_inputs

Row = dict[str, Any]

# Query heads, kv heads, head dim, slots per page.
LAYOUTS = ((8, 8, 32, 1), (12, 4, 64, 16), (14, 2, 80, 5), (32, 4, 128, 256))


def parity(device: str, lane_sms: int) -> Iterator[Row]:
    """All comparisons."""
    own = "triton" if device == "cuda" else "cpu"
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        yield from _row_wise(device, dtype, lane_sms, own)
        yield from _linear(device, dtype, lane_sms, own)
        for layout in LAYOUTS:
            yield from _attention(device, dtype, lane_sms, own, *layout)
    yield from _sampling(device, lane_sms, own)


def _row_wise(device: str, dtype: torch.dtype, lane_sms: int, own: str) -> Iterator[Row]:
    x, residual = torch.randn(2, 37, 1234, device=device).to(dtype)
    weight, packed = torch.rand(1234, device=device).to(dtype), torch.randn(19, 2050, device=device).to(dtype)
    yield _compare(
        "add_rms_norm", own, partial(norms.add_rms_norm, x, residual, weight, 1e-5, lane_sms=lane_sms)
    )
    yield _compare("swiglu", own, partial(activations.swiglu, packed, lane_sms=lane_sms))


def _linear(device: str, dtype: torch.dtype, lane_sms: int, own: str) -> Iterator[Row]:
    for tokens, width, outputs in ((1, 512, 640), (50, 1000, 384), (300, 512, 1111)):
        x, bias = (
            torch.randn(tokens, width, device=device).to(dtype),
            torch.randn(outputs, device=device).to(dtype),
        )
        weight = (torch.randn(outputs, width, device=device) / width**0.5).to(dtype)
        for impl in (own, "library"):
            call = partial(linear.linear, x, weight, bias, lane_sms=lane_sms)
            yield _compare(f"linear {tokens}x{width}x{outputs}", impl, call)


def _attention(
    device: str,
    dtype: torch.dtype,
    lane_sms: int,
    own: str,
    heads: int,
    kv_heads: int,
    head_dim: int,
    slots: int,
) -> Iterator[Row]:
    name = f"{heads}/{kv_heads}x{head_dim} page {slots}"
    layout: dict[str, Any] = {"heads": heads, "kv_heads": kv_heads, "head_dim": head_dim, "slots": slots}
    layout |= {"dtype": dtype, "device": device}
    with_prefix = paged_case([70, 1, 33, 200], [0, 300, 64, 11], **layout)
    yield _compare(f"prefill {name}", own, partial(with_prefix.prefill, lane_sms=lane_sms))
    one_each = paged_case([1] * 5, [0, 700, 64, 63, 1500], **layout)
    for splits in (None, 1, 5):
        call = partial(one_each.decode, lane_sms=lane_sms, split_count=splits)
        yield _compare(f"decode {name} splits {splits}", own, call)
    if device == "cuda" and dtype != torch.float32:
        pure = paged_case([70, 1, 200], [0, 0, 0], **layout)
        yield _compare(f"prefill without prefix {name}", "library", partial(pure.prefill, lane_sms=lane_sms))
    yield _compare(
        f"rotary {name}", own, partial(_rotated, device, dtype, lane_sms, heads, kv_heads, head_dim, slots)
    )


def _rotated(
    device: str,
    dtype: torch.dtype,
    lane_sms: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    slots: int,
    *,
    impl: str,
) -> torch.Tensor:
    """Queries, keys and values of `rotary.rotate_and_store` in one flat tensor; the last token is padding."""
    generator = torch.Generator(device).manual_seed(5)
    qkv = torch.randn(10, (heads + 2 * kv_heads) * head_dim, generator=generator, device=device).to(dtype)
    norm = torch.rand(head_dim, generator=generator, device=device).to(dtype)
    cos_sin = torch.randn(99, head_dim, generator=generator, device=device)
    at = torch.arange(10, device=device, dtype=torch.int32)
    slot = torch.where(at < 9, at, -1)
    key, value = torch.zeros(2, 9, kv_heads, slots, head_dim, device=device, dtype=dtype)
    q = rotary.rotate_and_store(
        qkv, norm, norm, cos_sin, at, slot, key, value, heads, kv_heads, 1e-6, lane_sms=lane_sms, impl=impl
    )
    return torch.cat((q.flatten(), key.flatten(), value.flatten()))


def _sampling(device: str, lane_sms: int, own: str) -> Iterator[Row]:
    """Tokens must be equal but for one in some hundred rows, which float32 sums may move over an edge."""
    rows, vocabulary = 256, 3001
    logits = torch.randn(rows, vocabulary, device=device) * 3
    kinds: tuple[dict[str, Any], ...] = (
        {"temperature_B": 0.0},
        {},
        {"top_k_B": 20},
        {"top_p_B": 0.8},
        {"min_p_B": 0.1, "top_k_B": 50, "top_p_B": 0.9},
    )
    for changes in kinds:
        inputs = sampling_inputs(rows, device=device, **changes)
        expected = sampling.sample(logits, inputs, lane_sms=lane_sms, impl="reference").token_ids_B
        actual = sampling.sample(logits, inputs, lane_sms=lane_sms, impl=own).token_ids_B
        equal = float((actual == expected).float().mean())
        yield {
            "operation": f"sample {sorted(changes)}",
            "impl": own,
            "ok": equal >= 0.98,
            "equal_share": equal,
        }


def _compare(name: str, impl: str, call: Callable[..., Any]) -> Row:
    row: Row = {"operation": name, "impl": impl}
    try:
        actual, expected = (
            result[0] if isinstance(result, tuple) else result
            for result in (call(impl=impl), call(impl="reference"))
        )
        difference = (actual.float() - expected.float()).abs() / (1 + expected.float().abs())
        error, tolerance = float(difference.max()), TOLERANCE[expected.dtype]
    except Exception as failure:  # a kernel that doesn't launch is a result too
        return row | {"ok": False, "error": f"{type(failure).__name__}: {failure}".splitlines()[0]}
    return row | {
        "dtype": str(expected.dtype).removeprefix("torch."),
        "ok": error <= tolerance,
        "error": error,
        "tolerance": tolerance,
    }
