"""Drift's kernels on a real GPU: equal to their references, and how fast, at the shapes of an 8B Llama.

    python benchmarks/gpu/kernels.py [--json FILE] [--dry-run]

Needs torch, triton and this repository, nothing installed. Every launcher is timed with each implementation
that it has, so that the table says which should be the default; decode attention and the matrix products also
for lanes narrower than the device (their grids are the lane's; the partition itself, a green context, is
measured elsewhere). A dry run goes through the same code on a CPU with tiny shapes. Functions return plain
dicts.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
for folder in ("kernels", "tests/support"):
    sys.path.insert(0, str(ROOT / folder))

import torch  # noqa: E402
from drift_kernels import activations, attention, linear, norms, rotary, sampling  # noqa: E402
from kernel_cases import TOLERANCE, PagedCase, paged_case, sampling_inputs  # noqa: E402

Row = dict[str, Any]


@dataclass(frozen=True)
class Model:
    """The shapes of a model and of the steps that it is measured with."""

    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp: int
    vocabulary: int
    tokens: tuple[int, ...]  # of a step
    prompts: tuple[tuple[int, int, int], ...]  # sequences, new tokens, cached tokens
    decodes: tuple[tuple[int, int], ...]  # sequences, context tokens
    sampled_rows: tuple[int, ...]

    @property
    def qkv(self) -> int:
        """Width of a packed QKV row."""
        return (self.heads + 2 * self.kv_heads) * self.head_dim


LLAMA_8B = Model(
    hidden=4096,
    heads=32,
    kv_heads=8,
    head_dim=128,
    mlp=14336,
    vocabulary=128256,
    tokens=(1, 16, 64, 256, 2048, 8192),
    prompts=((1, 512, 0), (8, 512, 0), (1, 2048, 0), (1, 8192, 0), (1, 512, 8192), (1, 2048, 30720)),
    decodes=((1, 2048), (1, 32768), (16, 2048), (64, 2048), (64, 8192), (256, 1024)),
    sampled_rows=(1, 64),
)
TINY = Model(
    hidden=64,
    heads=4,
    kv_heads=2,
    head_dim=32,
    mlp=96,
    vocabulary=300,
    tokens=(1, 5),
    prompts=((2, 9, 0), (1, 5, 20)),
    decodes=((3, 40),),
    sampled_rows=(2,),
)
PAGE_SLOTS = 16


@dataclass(frozen=True)
class Bench:
    """Where and how calls are measured."""

    device: str
    dtype: torch.dtype
    lanes: tuple[int, ...]  # SM counts, the whole device last

    @property
    def implementations(self) -> tuple[str, ...]:
        """What every launcher has here beside its reference."""
        return ("triton",) if self.device == "cuda" else ("cpu",)

    @property
    def with_library(self) -> tuple[str, ...]:
        """The same, where a library stands behind the launcher too."""
        return (*self.implementations, "library") if self.device == "cuda" else self.implementations

    def milliseconds(self, call: Callable[[], object]) -> float:
        """Median time of a call; on a GPU by CUDA events, the L2 cache emptied before each."""
        if self.device == "cuda":
            from triton.testing import do_bench

            return float(do_bench(call, warmup=10, rep=40, return_mode="median"))
        call()
        start_s = time.perf_counter()
        call()
        return (time.perf_counter() - start_s) * 1e3

    def random(self, *shape: int) -> torch.Tensor:
        """Normal numbers."""
        return torch.randn(shape, device=self.device, dtype=self.dtype)

    def row(
        self,
        operation: str,
        impl: str,
        lane_sms: int,
        call: Callable[[], object],
        gigabytes: float,
        teraflop: float,
        **shape: int,
    ) -> Row:
        """One measured line. An implementation that refuses the shape leaves its reason instead of a time."""
        line: Row = {"operation": operation, "impl": impl, "lane_sms": lane_sms, **shape}
        try:
            ms = self.milliseconds(call)
        except Exception as error:
            return line | {"error": str(error).splitlines()[0] if str(error) else type(error).__name__}
        return line | {
            "ms": round(ms, 5),
            "gb_per_s": round(gigabytes / ms * 1e3, 1),
            "tflop_per_s": round(teraflop / ms * 1e3, 2),
        }


def time_rows(bench: Bench, model: Model) -> Iterator[Row]:
    """Norm, activation and rotary embedding: bound by memory."""
    size, sms = bench.dtype.itemsize, bench.lanes[-1]
    for tokens in model.tokens:
        x, residual, weight = (
            bench.random(tokens, model.hidden),
            bench.random(tokens, model.hidden),
            bench.random(model.hidden),
        )
        gate_up = bench.random(tokens, 2 * model.mlp)
        qkv = bench.random(tokens, model.qkv)
        pages = -(-tokens // PAGE_SLOTS)
        key, value = (bench.random(pages, model.kv_heads, PAGE_SLOTS, model.head_dim) for _ in range(2))
        cos_sin = torch.randn(8192, model.head_dim, device=bench.device)
        at = torch.arange(tokens, device=bench.device, dtype=torch.int32)
        for impl in ("reference", *bench.implementations):
            yield bench.row(
                "add_rms_norm",
                impl,
                sms,
                partial(norms.add_rms_norm, x, residual, weight, 1e-5, lane_sms=sms, impl=impl),
                4 * x.numel() * size / 1e9,
                0,
                tokens=tokens,
            )
            yield bench.row(
                "swiglu",
                impl,
                sms,
                partial(activations.swiglu, gate_up, lane_sms=sms, impl=impl),
                1.5 * gate_up.numel() * size / 1e9,
                0,
                tokens=tokens,
            )
            yield bench.row(
                "rotate_and_store",
                impl,
                sms,
                partial(rotary.rotate_and_store,
                    qkv,
                    None,
                    None,
                    cos_sin,
                    at,
                    at,
                    key,
                    value,
                    model.heads,
                    model.kv_heads,
                    1e-5,
                    lane_sms=sms,
                    impl=impl,
                ),
                2 * qkv.numel() * size / 1e9,
                0,
                tokens=tokens,
            )


def time_linear(bench: Bench, model: Model) -> Iterator[Row]:
    """The matrix products of a layer and the vocabulary's, which only a step's last tokens meet."""
    products = {
        "qkv": (model.hidden, model.qkv),
        "attention out": (model.heads * model.head_dim, model.hidden),
        "gate and up": (model.hidden, 2 * model.mlp),
        "down": (model.mlp, model.hidden),
        "vocabulary": (model.hidden, model.vocabulary),
    }
    for name, (width, outputs) in products.items():
        weight = bench.random(outputs, width)
        for tokens in model.tokens:
            if name == "vocabulary" and tokens > 64:
                continue
            x = bench.random(tokens, width)
            gigabytes = (weight.numel() + x.numel() + tokens * outputs) * bench.dtype.itemsize / 1e9
            for impl in bench.with_library:
                for sms in bench.lanes if impl == "triton" else bench.lanes[-1:]:
                    yield bench.row(
                        f"linear {name}",
                        impl,
                        sms,
                        partial(linear.linear, x, weight, None, lane_sms=sms, impl=impl),
                        gigabytes,
                        2 * tokens * width * outputs / 1e12,
                        tokens=tokens,
                    )


def time_attention(bench: Bench, model: Model) -> Iterator[Row]:
    """Prefill with and without a cached prefix, decode for every lane."""
    heads = {"heads": model.heads, "kv_heads": model.kv_heads, "head_dim": model.head_dim}
    layout: dict[str, Any] = {**heads, "slots": PAGE_SLOTS, "dtype": bench.dtype, "device": bench.device}
    kv_bytes = 2 * model.kv_heads * model.head_dim * bench.dtype.itemsize
    for sequences, new, cached in model.prompts:
        case = paged_case([new] * sequences, [cached] * sequences, **layout)
        pairs = sequences * (new * cached + new * (new + 1) / 2)
        for impl in bench.with_library if cached == 0 else bench.implementations:
            yield bench.row(
                "prefill",
                impl,
                bench.lanes[-1],
                partial(run_prefill, case, impl=impl, lane_sms=bench.lanes[-1]),
                sequences * (new + cached) * kv_bytes / 1e9,
                4 * pairs * model.heads * model.head_dim / 1e12,
                sequences=sequences,
                new_tokens=new,
                cached_tokens=cached,
            )
    for sequences, context in model.decodes:
        case = paged_case([1] * sequences, [context - 1] * sequences, **layout)
        for impl in bench.implementations:
            for sms in bench.lanes:
                yield bench.row(
                    "decode",
                    impl,
                    sms,
                    partial(run_decode, case, impl=impl, lane_sms=sms),
                    sequences * context * kv_bytes / 1e9,
                    4 * sequences * context * model.heads * model.head_dim / 1e12,
                    sequences=sequences,
                    context_tokens=context,
                )


def time_sampling(bench: Bench, model: Model) -> Iterator[Row]:
    """Rows that are greedy, that only draw, and that use every filter."""
    kinds: dict[str, dict[str, float]] = {
        "greedy": {"temperature_B": 0.0},
        "draw": {"temperature_B": 0.8},
        "filters": {"temperature_B": 0.8, "top_k_B": 50, "top_p_B": 0.9, "min_p_B": 0.05},
    }
    for rows in model.sampled_rows:
        logits = torch.randn(rows, model.vocabulary, device=bench.device) * 3
        for kind, changes in kinds.items():
            inputs = sampling_inputs(rows, device=bench.device, **changes)
            for impl in bench.implementations:
                yield bench.row(
                    f"sample {kind}",
                    impl,
                    bench.lanes[-1],
                    partial(sampling.sample, logits, inputs, lane_sms=bench.lanes[-1], impl=impl),
                    logits.numel() * 4 / 1e9,
                    0,
                    rows=rows,
                )


def run_prefill(case: PagedCase, impl: str, lane_sms: int) -> torch.Tensor:
    """`attention.prefill` of a case."""
    return attention.prefill(
        case.q_TNH,
        case.key_PKSH,
        case.value_PKSH,
        case.query_starts_B1,
        case.context_lens_B,
        case.page_table_BM,
        max_query_tokens=case.max_query_tokens,
        max_context_tokens=case.max_context_tokens,
        scale=case.scale,
        lane_sms=lane_sms,
        impl=impl,
    )


def run_decode(case: PagedCase, impl: str, lane_sms: int) -> torch.Tensor:
    """`attention.decode` of a case."""
    return attention.decode(
        case.q_TNH,
        case.key_PKSH,
        case.value_PKSH,
        case.context_lens_B,
        case.page_table_BM,
        max_context_tokens=case.max_context_tokens,
        scale=case.scale,
        lane_sms=lane_sms,
        impl=impl,
    )


def parity(bench: Bench) -> Iterator[Row]:
    """Every implementation against the reference on odd shapes: the largest error beside the tolerance of the dtype."""
    sms = bench.lanes[-1]
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        here = Bench(bench.device, dtype, bench.lanes)
        x, residual, weight = here.random(37, 1234), here.random(37, 1234), here.random(1234)
        packed = here.random(19, 2 * 1025)
        calls: dict[str, tuple[tuple[str, ...], Callable[[str], torch.Tensor]]] = {
            "add_rms_norm": (
                here.implementations,
                lambda impl: norms.add_rms_norm(x, residual, weight, 1e-5, lane_sms=sms, impl=impl)[0],
            ),
            "swiglu": (
                here.implementations,
                lambda impl: activations.swiglu(packed, lane_sms=sms, impl=impl),
            ),
        }
        for tokens, width, outputs in ((1, 512, 640), (50, 1000, 384), (300, 512, 1111)):
            a, b, bias = (
                here.random(tokens, width),
                here.random(outputs, width) / width**0.5,
                here.random(outputs),
            )
            calls[f"linear {tokens}x{width}x{outputs}"] = (
                here.with_library,
                lambda impl, a=a, b=b, bias=bias: linear.linear(a, b, bias, lane_sms=sms, impl=impl),
            )
        for heads, kv_heads, head_dim, slots in (
            (8, 8, 32, 1),
            (12, 4, 64, 16),
            (14, 2, 80, 5),
            (32, 4, 128, 256),
        ):
            name = f"{heads}/{kv_heads}x{head_dim} page {slots}"
            layout: dict[str, Any] = {
                "heads": heads,
                "kv_heads": kv_heads,
                "head_dim": head_dim,
                "slots": slots,
            }
            layout |= {"dtype": dtype, "device": bench.device}
            with_prefix = paged_case([70, 1, 33, 200], [0, 300, 64, 11], **layout)
            pure = paged_case([70, 1, 200], [0, 0, 0], **layout)
            one_each = paged_case([1] * 5, [0, 700, 64, 63, 1500], **layout)
            norm = here.random(head_dim)
            qkv, cos_sin = (
                here.random(9, (heads + 2 * kv_heads) * head_dim),
                torch.randn(99, head_dim, device=bench.device),
            )
            at = torch.arange(9, device=bench.device, dtype=torch.int32)
            calls[f"prefill {name}"] = (
                here.implementations,
                lambda impl, case=with_prefix: run_prefill(case, impl, sms),
            )
            if dtype != torch.float32 and bench.device == "cuda":
                calls[f"prefill pure {name}"] = (
                    ("triton", "library"),
                    lambda impl, case=pure: run_prefill(case, impl, sms),
                )
            calls[f"decode {name}"] = (
                here.implementations,
                lambda impl, case=one_each: run_decode(case, impl, sms),
            )
            calls[f"rotary {name}"] = (
                here.implementations,
                lambda impl, qkv=qkv, norm=norm, cos_sin=cos_sin, at=at, shape=(heads, kv_heads, slots): (
                    rotated(qkv, norm, cos_sin, at, *shape, sms, impl)
                ),
            )
        for name, (implementations, call) in calls.items():
            for impl in implementations:
                yield compare(name, impl, dtype, call)


def rotated(
    qkv: torch.Tensor,
    norm: torch.Tensor,
    cos_sin: torch.Tensor,
    at: torch.Tensor,
    heads: int,
    kv_heads: int,
    slots: int,
    lane_sms: int,
    impl: str,
) -> torch.Tensor:
    """Queries, keys and values of `rotary.rotate_and_store` in one flat tensor."""
    key, value = torch.zeros(2, 9, kv_heads, slots, norm.shape[0], device=qkv.device, dtype=qkv.dtype)
    q = rotary.rotate_and_store(
        qkv, norm, norm, cos_sin, at, at, key, value, heads, kv_heads, 1e-6, lane_sms=lane_sms, impl=impl
    )
    return torch.cat((q.flatten(), key.flatten(), value.flatten()))


def compare(name: str, impl: str, dtype: torch.dtype, call: Callable[[str], torch.Tensor]) -> Row:
    """One line of parity; an implementation that fails leaves its error."""
    line: Row = {"operation": name, "impl": impl, "dtype": str(dtype).removeprefix("torch.")}
    try:
        actual, expected = call(impl).float(), call("reference").float()
        error = float(((actual - expected).abs() / (1 + expected.abs())).max())
    except Exception as failure:
        return line | {
            "ok": False,
            "error": str(failure).splitlines()[0] if str(failure) else type(failure).__name__,
        }
    return line | {"ok": error <= TOLERANCE[dtype], "error": error, "tolerance": TOLERANCE[dtype]}


def sampling_parity(bench: Bench) -> Iterator[Row]:
    """Share of rows whose token is the definition's; float32 sums may move one in some thousand rows over an edge."""
    rows, vocabulary = 256, 3001
    logits = torch.randn(rows, vocabulary, device=bench.device) * 3
    for changes in (
        {"temperature_B": 0.0},
        {},
        {"top_k_B": 20},
        {"top_p_B": 0.8},
        {"min_p_B": 0.1, "top_k_B": 50, "top_p_B": 0.9},
    ):
        inputs = sampling_inputs(rows, device=bench.device, **changes)
        expected = sampling.sample(logits, inputs, lane_sms=bench.lanes[-1], impl="reference").token_ids_B
        for impl in bench.implementations:
            actual = sampling.sample(logits, inputs, lane_sms=bench.lanes[-1], impl=impl).token_ids_B
            equal = float((actual == expected).float().mean())
            yield {
                "operation": f"sample {sorted(changes)}",
                "impl": impl,
                "ok": equal >= 0.98,
                "equal_share": equal,
            }


def run(*, dry_run: bool = False) -> dict[str, Any]:
    """All of it: {"device": ..., "parity": [...], "timings": [...]}."""
    if dry_run:
        bench, model, name = Bench("cpu", torch.float32, (1, 2)), TINY, "cpu (dry run)"
    else:
        properties = torch.cuda.get_device_properties(0)
        sms = int(properties.multi_processor_count)
        lanes = (*(lane for lane in (16, 32, 48, 64) if lane < sms), sms)
        bench, model, name = Bench("cuda", torch.bfloat16, lanes), LLAMA_8B, str(properties.name)
    torch.manual_seed(0)
    timings: list[Row] = []
    for measure in (time_rows, time_linear, time_attention, time_sampling):
        timings += measure(bench, model)
    return {
        "device": name,
        "torch": torch.__version__,
        "lanes": list(bench.lanes),
        "parity": [*parity(bench), *sampling_parity(bench)],
        "timings": timings,
    }


def main() -> int:
    """Prints or writes the result; 1 if an implementation does not equal its reference."""
    parser = argparse.ArgumentParser(description="Parity and speed of Drift's kernels.")
    parser.add_argument("--dry-run", action="store_true", help="tiny shapes on the CPU")
    parser.add_argument("--json", type=Path, help="write the result here instead of printing it")
    options = parser.parse_args()
    result = run(dry_run=options.dry_run)
    text = json.dumps(result, indent=1)
    if options.json:
        options.json.write_text(text + "\n")
    else:
        print(text)
    failed = [row for row in result["parity"] if not row["ok"]]
    for row in failed:
        print(f"not equal to its reference: {row}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
