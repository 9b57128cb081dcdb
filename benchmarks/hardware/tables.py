"""Reads the measured tables of one GPU: where they lie, which rows count, and seconds instead of milliseconds.

The layout is that of ai-dynamo/aiconfigurator's `systems/data`. Rows count that bfloat16 models of the sizes that
are served have: GEMMs of 512 and more on both sides, attention without a window over a bfloat16 cache with heads of
64 or 128, all-reduces inside a CUDA graph.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Table = dict[str, Array]

MIN_GEMM_SIDE = 512
"""The narrowest GEMM of the shapes: 768, the 120M model's own width and the 8B's QKV on eight GPUs."""

HEAD_DIMS = (64, 128)

TINY_SIDE = 64
"""GEMMs up to here have nothing to compute or to read: their time is that of any kernel in a graph."""


def gemm(folder: Path) -> Table:
    """m, n, k."""
    table = _read(folder, "gemm_perf", {"gemm_dtype": "bfloat16"}, ("m", "n", "k"))
    return _where(table, (table["n"] >= MIN_GEMM_SIDE) & (table["k"] >= MIN_GEMM_SIDE))


def tiny_gemm(folder: Path) -> Table:
    table = _read(folder, "gemm_perf", {"gemm_dtype": "bfloat16"}, ("m", "n", "k"))
    return _where(table, np.maximum.reduce([table["m"], table["n"], table["k"]]) <= TINY_SIDE)


def context_attention(folder: Path) -> Table:
    """batch_size, isl (new tokens of each row), num_heads, num_key_value_heads, head_dim."""
    return _attention(folder, "context_attention_perf")


def generation_attention(folder: Path) -> Table:
    """The same with step, the tokens that are in the cache; isl is 1."""
    return _attention(folder, "generation_attention_perf")


def all_reduce(folder: Path) -> Table:
    """num_gpus, message_size in bytes."""
    # The backend tells a replayed graph from eager calls, whose launch takes 30 us.
    return _read(folder, "custom_allreduce_perf", {"backend": "sglang_graph"}, ("num_gpus", "message_size"))


def _attention(folder: Path, name: str) -> Table:
    columns = ("batch_size", "isl", "step", "num_heads", "num_key_value_heads", "head_dim")
    table = _read(folder, name, {"kv_cache_dtype": "bfloat16", "window_size": 0}, columns)
    return _where(table, np.isin(table["head_dim"], HEAD_DIMS))


def _where(table: Table, rows: npt.NDArray[np.bool_]) -> Table:
    return {name: column[rows] for name, column in table.items()}


def _read(folder: Path, name: str, equal: dict[str, object], columns: tuple[str, ...]) -> Table:
    """The rows that have these values, with the column `seconds`."""
    try:
        import pyarrow.parquet
    except ImportError:
        raise SystemExit("the tables are parquet files; install their reader: pip install pyarrow") from None
    found = sorted(folder.rglob(f"{name}.parquet"))
    if len(found) != 1:
        raise SystemExit(f"{folder.name}: expected one {name}.parquet, found {len(found)}")
    rows = pyarrow.parquet.read_table(found[0]).to_pydict()
    keep = np.ones(len(rows["latency"]), dtype=bool)
    for column, value in equal.items():
        keep &= np.array([cell == value for cell in rows[column]])
    table = {column: np.array(rows[column], dtype=float)[keep] for column in columns}
    table["seconds"] = np.array(rows["latency"], dtype=float)[keep] / 1e3
    return table
