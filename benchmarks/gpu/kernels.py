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

import kernel_parity  # noqa: E402
from drift_kernels import activations, linear, norms, rotary, sampling  # noqa: E402
from kernel_cases import paged_case, sampling_inputs  # noqa: E402

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
                partial(
                    rotary.rotate_and_store,
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
                partial(case.prefill, impl=impl, lane_sms=bench.lanes[-1]),
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
                    partial(case.decode, impl=impl, lane_sms=sms),
                    sequences * context * kv_bytes / 1e9,
                    4 * sequences * context * model.heads * model.head_dim / 1e12,
                    sequences=sequences,
                    context_tokens=context,
                )


def time_sampling(bench: Bench, model: Model) -> Iterator[Row]:
    """Rows that are greedy, that only draw, and that use every filter."""
    kinds: dict[str, dict[str, Any]] = {
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
        "parity": list(kernel_parity.parity(bench.device, bench.lanes[-1])),
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
