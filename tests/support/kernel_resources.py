"""What the Triton kernels need of a GPU, found without one: the launchers' launches, compiled ahead of time.

The launchers run on tensors without storage, their launches are recorded instead of run, and each is compiled
for the architectures that Drift supports, with the very options of the launch. Run as a script, it rewrites
`benchmarks/kernels/resources.json`, which `tests/kernels/test_compile.py` compares with a fresh compilation.
"""

import json
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

from drift_kernels import activations, attention, linear, norms, rotary, sampling

RECORD = Path(__file__).parents[2] / "benchmarks/kernels/resources.json"

# Bytes of shared memory that one program may take (CUDA C++ programming guide, technical specifications).
SHARED_LIMIT_BYTES = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}


@dataclass(frozen=True)
class Launch:
    """One kernel launch as a launcher made it."""

    kernel: JITFunction
    arguments: dict[str, Any]
    options: dict[str, int]


@dataclass(frozen=True)
class Resources:
    """Of one compiled kernel; registers per thread, bytes of shared memory per program, of spilling per thread."""

    registers: int
    spilled_bytes: int
    shared_bytes: int
    warps: int


@contextmanager
def recorded() -> Iterator[list[Launch]]:
    """Launches made inside are appended to the list and not run."""
    launches: list[Launch] = []

    def record(self: JITFunction, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        names = [parameter.name for parameter in self.params]
        arguments = dict(zip(names, args, strict=False)) | {k: v for k, v in kwargs.items() if k in names}
        assert set(arguments) == set(names), f"{self.__name__}: arguments {sorted(arguments)} for {names}"
        launches.append(Launch(self, arguments, {k: v for k, v in kwargs.items() if k not in names}))

    with mock.patch.object(JITFunction, "run", record):
        yield launches


def compile_launch(launch: Launch, capability: int) -> Resources:
    """Compiles for `sm_<capability>` down to machine code and reads what it needs."""
    pointers = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16", torch.int32: "*i32"}
    pointers |= {torch.int64: "*i64", torch.bool: "*i1"}
    signature: dict[str, str] = {}
    constants: dict[tuple[int], Any] = {}
    attributes: dict[tuple[int], list[list[Any]]] = {}
    for i, parameter in enumerate(launch.kernel.params):
        value = launch.arguments[parameter.name]
        if parameter.is_constexpr:
            signature[parameter.name] = "constexpr"
            constants[(i,)] = value
        elif isinstance(value, torch.Tensor):
            signature[parameter.name] = pointers[value.dtype]
            attributes[(i,)] = [["tt.divisibility", 16]]
        else:
            # A specialised integer would be compiled anew for 1 and for multiples of 16, in the middle of
            # serving.
            assert isinstance(value, float) or parameter.do_not_specialize, f"{parameter.name} is specialised"
            signature[parameter.name] = "fp32" if isinstance(value, float) else "i32"
    source = ASTSource(launch.kernel, signature, constants, attributes)
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=launch.options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as cubin:
        cubin.write(compiled.asm["cubin"])
        cubin.flush()
        tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
        usage = subprocess.run(
            [tool, "--dump-resource-usage", cubin.name], check=True, capture_output=True, text=True
        ).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", usage)
    assert found, usage
    registers, stack, _, local = map(int, found.groups())
    return Resources(registers, stack + local, compiled.metadata.shared, compiled.metadata.num_warps)


def meta(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    """A tensor without storage."""
    return torch.empty(shape, dtype=dtype, device="meta")


def integers(*shape: int) -> torch.Tensor:
    """An int32 tensor without storage."""
    return meta(*shape, dtype=torch.int32)


HIDDEN, HEADS, KV_HEADS, HEAD_DIM, MLP, VOCABULARY = 4096, 32, 8, 128, 14336, 128256  # Llama 3.1 8B


def _add_rms_norm() -> None:
    norms.add_rms_norm(meta(64, HIDDEN), meta(64, HIDDEN), meta(HIDDEN), 1e-5, lane_sms=132)


def _rotate(
    dtype: torch.dtype, heads: int, kv_heads: int, head_dim: int, slots: int, with_norm: bool
) -> None:
    norm = meta(head_dim, dtype=dtype) if with_norm else None
    cache = meta(100, kv_heads, slots, head_dim, dtype=dtype)
    qkv = meta(64, (heads + 2 * kv_heads) * head_dim, dtype=dtype)
    cos_sin = meta(4096, head_dim, dtype=torch.float32)
    rotary.rotate_and_store(
        qkv,
        norm,
        norm,
        cos_sin,
        integers(64),
        integers(64),
        cache,
        cache,
        heads,
        kv_heads,
        1e-6,
        lane_sms=132,
    )


def _prefill(dtype: torch.dtype, heads: int, kv_heads: int, head_dim: int, slots: int, tokens: int) -> None:
    cache = meta(100, kv_heads, slots, head_dim, dtype=dtype)
    attention.prefill(
        meta(tokens, heads, head_dim, dtype=dtype),
        cache,
        cache,
        integers(3),
        integers(2),
        integers(2, 8192),
        max_query_tokens=tokens,
        max_context_tokens=8192,
        scale=0.1,
        lane_sms=132,
    )


def _decode(
    dtype: torch.dtype, heads: int, kv_heads: int, head_dim: int, slots: int, splits: int | None
) -> None:
    cache = meta(100, kv_heads, slots, head_dim, dtype=dtype)
    attention.decode(
        meta(4, heads, head_dim, dtype=dtype),
        cache,
        cache,
        integers(4),
        integers(4, 8192),
        max_context_tokens=8192,
        scale=0.1,
        lane_sms=132,
        split_count=splits,
    )


def _linear(tokens: int, outputs: int, lane_sms: int, dtype: torch.dtype = torch.bfloat16) -> None:
    x, weight = meta(tokens, HIDDEN, dtype=dtype), meta(outputs, HIDDEN, dtype=dtype)
    linear.linear(x, weight, meta(outputs, dtype=dtype), lane_sms=lane_sms, impl="triton")


def _sample(full: bool) -> None:
    rows, f32 = 8, torch.float32
    names = ("temperature", "top_p", "min_p", "presence", "frequency", "repetition", "uniform")
    per_row: dict[str, Any] = {f"{name}_B": meta(rows, dtype=f32) for name in names}
    inputs = sampling.SamplingInputs(
        **per_row,
        top_k_B=integers(rows),
        output_counts_BV=integers(rows, VOCABULARY) if full else None,
        prompt_mask_BV=meta(rows, VOCABULARY, dtype=torch.bool) if full else None,
        bias_BV=meta(rows, VOCABULARY, dtype=f32) if full else None,
        bitmask_BW=integers(rows, VOCABULARY // 32) if full else None,
    )
    sampling.sample(meta(rows, VOCABULARY, dtype=f32), inputs, lane_sms=132)


_BF16, _F16, _F32 = torch.bfloat16, torch.float16, torch.float32

# Representative variants: the 8B shape in every size class, and the corners of dtype, head dim, group and
# page size.
CASES: dict[str, Callable[[], None]] = {
    "norm 4096": _add_rms_norm,
    "swiglu 14336": lambda: void(activations.swiglu(meta(64, 2 * MLP), lane_sms=132)),
    "rotary 32/8x128": lambda: _rotate(_BF16, HEADS, KV_HEADS, HEAD_DIM, 16, with_norm=False),
    "rotary 14/2x80 norm float32": lambda: _rotate(_F32, 14, 2, 80, 3, with_norm=True),
    "prefill 32/8x128 long": lambda: _prefill(_BF16, HEADS, KV_HEADS, HEAD_DIM, 16, 4096),
    "prefill 32/8x128 short": lambda: _prefill(_BF16, HEADS, KV_HEADS, HEAD_DIM, 16, 8),
    "prefill 28/4x64 page 256 float16": lambda: _prefill(_F16, 28, 4, 64, 256, 512),
    "prefill 8/8x80 page 1 float32": lambda: _prefill(_F32, 8, 8, 80, 1, 512),
    "decode 32/8x128 split": lambda: _decode(_BF16, HEADS, KV_HEADS, HEAD_DIM, 16, None),
    "decode 7/1x32 float32": lambda: _decode(_F32, 7, 1, 32, 16, 1),
    "linear 8 rows": lambda: _linear(8, HIDDEN, 48),
    "linear 64 rows": lambda: _linear(64, MLP, 64),
    "linear 4096 rows": lambda: _linear(4096, MLP, 132),
    "linear float32": lambda: _linear(64, HIDDEN, 132, _F32),
    "sample plain": lambda: _sample(full=False),
    "sample with all adjustments": lambda: _sample(full=True),
}


def void(_: object) -> None:
    """Drops a result."""


def launches() -> dict[str, Launch]:
    """Every distinct launch of the cases, by the name under which it is recorded."""
    found: dict[str, Launch] = {}
    for name, call in CASES.items():
        with recorded() as made:
            call()
        for launch in made:
            found[f"{name}: {launch.kernel.__name__}"] = launch
    return found


def compile_all(capability: int) -> dict[str, Resources]:
    """Resources of every launch on `sm_<capability>`."""
    return {name: compile_launch(launch, capability) for name, launch in launches().items()}


if __name__ == "__main__":
    table = {
        f"sm_{capability}": {name: asdict(used) for name, used in compile_all(capability).items()}
        for capability in SHARED_LIMIT_BYTES
    }
    RECORD.parent.mkdir(parents=True, exist_ok=True)
    RECORD.write_text(json.dumps({"triton": triton.__version__, **table}, indent=1) + "\n")
    print(f"wrote {RECORD}")
