"""Triton kernel of `linear.linear`: a persistent matrix product whose grid is the lane.

As many programs as the lane has SMs (times what fits on one) walk over the output's tiles. The library's
kernels plan their waves for the whole device and lose their tail in a partition; here the tile's width is
chosen for the lane.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from drift_kernels.attention_triton import precision


class Tile(NamedTuple):
    """Sizes of one compiled variant."""

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int
    per_sm: int  # programs that fit on one SM


# Rows of x up to (first), candidates for the tile. All are estimates, not yet measured on a GPU:
# - up to 16 rows the product is bound by reading the weight once: the smallest tensor-core row count, deep
#   tiles and many stages, ~100 KB of weight in flight per SM (a partition of 32-45 SMs needs 75-100 KB to
#   draw 4.8 TB/s);
# - up to 64 rows x is still small beside the weight, wider tiles save its repeated reading;
# - above, 128 x 128 and 128 x 256 with depth 64 are the shapes of public persistent Hopper kernels in bf16;
#   stages fill up to sm_80's 163 KB.
TILES: tuple[tuple[int, tuple[Tile, ...]], ...] = (
    (16, (Tile(16, 32, 256, 4, 3, 2), Tile(16, 64, 128, 4, 4, 1), Tile(16, 128, 128, 4, 4, 1))),
    (64, (Tile(64, 32, 128, 4, 4, 1), Tile(64, 64, 128, 4, 4, 1), Tile(64, 128, 64, 4, 4, 1))),
    (1 << 62, (Tile(128, 64, 64, 4, 4, 1), Tile(128, 128, 64, 8, 4, 1), Tile(128, 256, 64, 8, 3, 1))),
)

# Tiles of this many tile rows share their columns' weights in L2 before the walk moves on; the value of
# Triton's own matrix product tutorial.
GROUP_ROWS = 8


def choose_tile(tokens: int, outputs: int, lane_sms: int, element_bytes: int) -> Tile:
    """The candidate with the least time in whole waves over the lane; among equals the wider, which reads x less.

    A wave costs what its tile multiplies, and a narrow tile somewhat more per column: its arithmetic
    intensity is lower. Float32, which only tests use on a GPU, takes one small tile.
    """
    if element_bytes == 4:
        return Tile(32, 32, 32, 4, 2, 1)
    candidates = next(tiles for most_rows, tiles in TILES if tokens <= most_rows)

    def cost(tile: Tile) -> float:
        count = -(-tokens // tile.rows) * -(-outputs // tile.columns)
        waves = -(-count // (lane_sms * tile.per_sm))
        return waves * tile.per_sm * tile.rows * (tile.columns + NARROW_TILE_COST_COLUMNS)

    return min(candidates, key=lambda tile: (cost(tile), -tile.columns))


# What a tile costs beyond its columns, as columns: a 128 x 64 tile loads as much x as a 128 x 256 one for a
# quarter of the products. Estimate, not yet measured on a GPU.
NARROW_TILE_COST_COLUMNS = 16


@triton.jit(do_not_specialize=["tokens"])
def linear_kernel(
    x_ptr,
    weight_ptr,
    bias_ptr,
    y_ptr,
    tokens,
    OUTPUTS: tl.constexpr,
    WIDTH: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    GROUP_ROWS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    tile_columns: tl.constexpr = (OUTPUTS + COLUMNS - 1) // COLUMNS
    tile_rows = tl.cdiv(tokens, ROWS)
    for tile in range(tl.program_id(0), tile_rows * tile_columns, tl.num_programs(0)):
        group_first = tile // (GROUP_ROWS * tile_columns) * GROUP_ROWS
        group_rows = tl.minimum(tile_rows - group_first, GROUP_ROWS)
        within = tile % (GROUP_ROWS * tile_columns)
        row = (group_first + within % group_rows) * ROWS + tl.arange(0, ROWS)
        column = within // group_rows * COLUMNS + tl.arange(0, COLUMNS)
        # Rows and columns behind the edge read the last one instead: no mask in the loop, and nothing of them
        # is stored.
        x_row = x_ptr + tl.minimum(row, tokens - 1).to(tl.int64)[:, None] * WIDTH
        weight_row = weight_ptr + tl.minimum(column, OUTPUTS - 1).to(tl.int64)[:, None] * WIDTH
        accumulator = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
        for start in range(0, WIDTH, DEPTH):
            depth = start + tl.arange(0, DEPTH)
            if WIDTH % DEPTH == 0:
                x = tl.load(x_row + depth[None, :])
                weight = tl.load(weight_row + depth[None, :])
            else:
                x = tl.load(x_row + depth[None, :], mask=(depth < WIDTH)[None, :], other=0.0)
                weight = tl.load(weight_row + depth[None, :], mask=(depth < WIDTH)[None, :], other=0.0)
            accumulator = tl.dot(x, tl.trans(weight), accumulator, input_precision=PRECISION)
        if HAS_BIAS:
            bias = tl.load(bias_ptr + column, mask=column < OUTPUTS, other=0.0)
            accumulator += bias.to(tl.float32)[None, :]
        at = tl.cast(row, tl.int64)[:, None] * OUTPUTS + column[None, :]
        inside = (row < tokens)[:, None] & (column < OUTPUTS)[None, :]
        tl.store(y_ptr + at, accumulator.to(y_ptr.dtype.element_ty), mask=inside)


def linear(
    x_TI: torch.Tensor, weight_OI: torch.Tensor, bias_O: torch.Tensor | None, lane_sms: int
) -> torch.Tensor:
    """Contracts are the launcher's; see there."""
    tokens, width = x_TI.shape
    outputs = weight_OI.shape[0]
    y_TO = x_TI.new_empty((tokens, outputs))
    tile = choose_tile(tokens, outputs, lane_sms, x_TI.element_size())
    count = triton.cdiv(tokens, tile.rows) * triton.cdiv(outputs, tile.columns)
    linear_kernel[(min(count, lane_sms * tile.per_sm),)](
        x_TI,
        weight_OI,
        weight_OI if bias_O is None else bias_O,
        y_TO,
        tokens,
        OUTPUTS=outputs,
        WIDTH=width,
        HAS_BIAS=bias_O is not None,
        ROWS=tile.rows,
        COLUMNS=tile.columns,
        DEPTH=tile.depth,
        GROUP_ROWS=GROUP_ROWS,
        PRECISION=precision(x_TI.dtype),
        num_warps=tile.warps,
        num_stages=tile.stages,
    )
    return y_TO
