"""Fits the GPU profiles of `drift_engine.hardware` to public tables of single operations, and checks whole passes.

    python -m benchmarks.hardware.fit TABLES --sample SAMPLE.csv --json benchmarks/hardware/results/h200_fit.json

TABLES is a folder with the parquet files of one GPU from ai-dynamo/aiconfigurator (see `tables`), SAMPLE its silicon
data. Writes `h200.json`, and `h100.json` scaled from it, into the engine's package. Needs pyarrow, which the engine
does not; runs in seconds.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from benchmarks import machine
from benchmarks.engine import results
from benchmarks.hardware import scaling, search, serving, tables
from benchmarks.hardware.tables import Array, Table

from drift_engine.hardware import profiles

SOURCES = (
    "ai-dynamo/aiconfigurator @095f58a, Apache-2.0, Copyright (c) 2026 NVIDIA CORPORATION & AFFILIATES: tables "
    "measured with vLLM 0.22.0 (GEMM, attention) and SGLang 0.5.14 (all-reduce in a CUDA graph) on an NVIDIA H200",
    "scaling: decode coefficients of MuxWise's authors for H800, ykcombat/sglang @56f74d24; estimate",
    "contention: MuxWise, arXiv 2504.14489 v3 (decode at most 30 % slower on H100); estimate",
    "bytes_per_s, flops_per_s, memory_bytes: NVIDIA's data sheets",
)

CONTENTION = profiles.Contention(per_demand=1.5, bound=1.3)
"""The bound is the largest slowdown that MuxWise saw on an H100. An 8B model's prefill uses 0.1 (on half of an H200)
to 0.2 of the bandwidth, a larger one's less; 1.5 makes decode beside them 8 to 20 % slower, the middle of 0 to 30."""


def gemm_s(table: Table, coefficients: Sequence[float]) -> Array:
    m, n, k = table["m"], table["n"], table["k"]
    launch_s, per_depth_s, flops_per_s, bytes_per_s, sharpness = coefficients
    compute_s = 2 * m * n * k / flops_per_s
    memory_s = 2 * (n * k + m * k + m * n) / bytes_per_s
    busy_s: Array = (compute_s**sharpness + memory_s**sharpness) ** (1 / sharpness)
    return launch_s + k * per_depth_s + busy_s


def context_attention_s(table: Table, coefficients: Sequence[float]) -> Array:
    rows, tokens, heads, dim = (table[name] for name in ("batch_size", "isl", "num_heads", "head_dim"))
    launch_s, per_score_s, per_score_value_s, bytes_per_s = coefficients
    scores = rows * heads * tokens**2 / 2
    moved_bytes = 4 * rows * tokens * dim * (heads + table["num_key_value_heads"])
    return launch_s + scores * (per_score_s + dim * per_score_value_s) + moved_bytes / bytes_per_s


def generation_attention_s(table: Table, coefficients: Sequence[float]) -> Array:
    row_heads = table["batch_size"] * table["num_key_value_heads"]
    launch_s, bytes_per_s, per_row_head_s, sharpness = coefficients
    memory_s = _kv_bytes(table) / bytes_per_s
    busy_s: Array = (memory_s**sharpness + (row_heads * per_row_head_s) ** sharpness) ** (1 / sharpness)
    return launch_s + busy_s


def all_reduce_s(table: Table, coefficients: Sequence[float]) -> Array:
    launch_s, bytes_per_s = coefficients
    return launch_s + table["message_size"] / bytes_per_s


def _kv_bytes(table: Table) -> Array:
    tokens = table["batch_size"] * (table["step"] + table["isl"])
    return 4 * tokens * table["num_key_value_heads"] * table["head_dim"]


def h200(folder: Path) -> tuple[profiles.Hardware, dict[str, Any]]:
    """The fitted profile, and the errors of every table."""
    table = tables.gemm(folder)
    gemm = search.fit(lambda c: gemm_s(table, c), table["seconds"], [4e-6, 2e-10, 6e14, 4e12, 3.0])
    m = table["m"]
    found = {
        "gemm": search.errors(
            gemm_s(table, gemm),
            table["seconds"],
            {
                "m <= 64": m <= 64,
                "64 < m <= 256": (m > 64) & (m <= 256),
                "256 < m <= 1024": (m > 256) & (m <= 1024),
                "m > 1024": m > 1024,
                "n * k >= 8M": table["n"] * table["k"] >= 8 << 20,
            },
        )
    }
    context_table = tables.context_attention(folder)
    context = search.fit(
        lambda c: context_attention_s(context_table, c),
        context_table["seconds"],
        [9e-6, 3e-13, 3e-15, 3e12],
    )
    tokens = context_table["batch_size"] * context_table["isl"]
    found["context_attention"] = search.errors(
        context_attention_s(context_table, context),
        context_table["seconds"],
        {
            "tokens <= 512": tokens <= 512,
            "512 < tokens <= 4096": (tokens > 512) & (tokens <= 4096),
            "tokens > 4096": tokens > 4096,
            **_head_dims(context_table),
        },
    )
    generation_table = tables.generation_attention(folder)
    generation = search.fit(
        lambda c: generation_attention_s(generation_table, c),
        generation_table["seconds"],
        [9e-6, 4e12, 2e-8, 2.0],
    )
    kv_bytes, rows = _kv_bytes(generation_table), generation_table["batch_size"]
    found["generation_attention"] = search.errors(
        generation_attention_s(generation_table, generation),
        generation_table["seconds"],
        {
            "KV <= 20 MB": kv_bytes <= 20e6,
            "20 MB < KV <= 100 MB": (kv_bytes > 20e6) & (kv_bytes <= 100e6),
            "KV > 100 MB": kv_bytes > 100e6,
            "rows <= 16": rows <= 16,
            "rows >= 64": rows >= 64,
            **_head_dims(generation_table),
        },
    )
    all_reduce, reduce_table = {}, tables.all_reduce(folder)
    for gpus in sorted({int(count) for count in reduce_table["num_gpus"]}):
        mine = {name: column[reduce_table["num_gpus"] == gpus] for name, column in reduce_table.items()}
        fitted = search.fit(lambda c, mine=mine: all_reduce_s(mine, c), mine["seconds"], [3e-6, 1e11])  # type: ignore[misc]
        all_reduce[gpus] = profiles.AllReduce(*fitted)
        message_bytes = mine["message_size"]
        found[f"all_reduce x{gpus}"] = search.errors(
            all_reduce_s(mine, fitted),
            mine["seconds"],
            {"<= 1 MiB": message_bytes <= 1 << 20, "> 1 MiB": message_bytes > 1 << 20},
        )
    lanes = scaling.shares("H800")
    hardware = profiles.Hardware(
        name="h200",
        estimated=False,
        sms=132,
        sm_group=8,
        memory_bytes=141_000_000_000,
        bytes_per_s=4.8e12,
        flops_per_s={"bfloat16": 989e12, "fp8": 1979e12},
        gemm=profiles.Gemm(*gemm),
        context_attention=profiles.ContextAttention(*context),
        generation_attention=profiles.GenerationAttention(*generation),
        element_wise_launch_s=float(f"{np.median(tables.tiny_gemm(folder)['seconds']):.3g}"),
        all_reduce=all_reduce,
        scaling=profiles.Scaling(lanes["weights_saturating_share"], lanes["attention_saturating_share"]),
        contention=CONTENTION,
        sources=SOURCES,
    )
    return hardware, found


def h100(measured: profiles.Hardware) -> profiles.Hardware:
    """The SXM board: an H200's compute with the data sheet's smaller and slower memory."""
    bytes_per_s = 3.35e12
    slower = bytes_per_s / measured.bytes_per_s
    gemm, generation = measured.gemm, measured.generation_attention
    return msgspec.structs.replace(
        measured,
        name="h100",
        estimated=True,
        memory_bytes=80_000_000_000,
        bytes_per_s=bytes_per_s,
        gemm=msgspec.structs.replace(gemm, bytes_per_s=float(f"{slower * gemm.bytes_per_s:.4g}")),
        generation_attention=msgspec.structs.replace(
            generation, bytes_per_s=float(f"{slower * generation.bytes_per_s:.4g}")
        ),
        sources=(
            "estimate: h200 with the memory of an H100, by the ratio of the data sheets",
            *measured.sources,
        ),
    )


def _head_dims(table: Table) -> dict[str, Any]:
    return {f"head_dim {dim}": table["head_dim"] == dim for dim in tables.HEAD_DIMS}


def _write(hardware: profiles.Hardware) -> None:
    document = msgspec.json.format(msgspec.json.encode(hardware), indent=2)
    (profiles.FOLDER / f"{hardware.name}.json").write_bytes(document + b"\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("tables", type=Path, help="folder with the parquet tables of an H200")
    parser.add_argument("--sample", type=Path, help="silicon data to compare whole passes with (CSV)")
    parser.add_argument("--json", type=Path, help="where to write the result")
    options = parser.parse_args()
    hardware, errors = h200(options.tables)
    _write(hardware)
    _write(h100(hardware))
    result: dict[str, Any] = {
        "benchmark": "hardware/fit",
        "machine": machine.describe(),
        "sources": list(SOURCES),
        "profile": msgspec.to_builtins(hardware, str_keys=True),
        "errors": errors,
        "scaling": [scaling.shares(gpu) for gpu in scaling.ALL_SMS],
    }
    if options.sample is not None:
        result["serving"] = serving.compare(options.sample, hardware)
    results.write(result, options.json)


if __name__ == "__main__":
    main()
