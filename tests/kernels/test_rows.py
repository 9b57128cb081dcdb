"""On a CPU a row's norm and gate are bit for bit the same whatever rows are computed with it.

Enough rows that torch splits its work between threads, at odd places: its vector code and what it does at a share's
end need not agree (`F.silu` does not).
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from drift_kernels import activations, norms

ROWS = 1000


@pytest.fixture(autouse=True, params=[1, 2, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("width", [96, 100, 344])
def test_swiglu(width: int) -> None:
    packed = torch.randn(ROWS, 2 * width, generator=torch.Generator().manual_seed(width)) * 3
    alone = torch.cat([activations.swiglu(row[None], lane_sms=1) for row in packed])
    for rows in range(1, ROWS, 13):
        assert torch.equal(activations.swiglu(packed[:rows], lane_sms=1), alone[:rows]), rows


@pytest.mark.parametrize("width", [96, 100, 344])
def test_norm(width: int) -> None:
    x, residual = torch.randn(2, ROWS, width, generator=torch.Generator().manual_seed(width))
    weight = torch.randn(width)

    def normed(rows: slice) -> torch.Tensor:
        return norms.add_rms_norm(x[rows], residual[rows], weight, 1e-5, lane_sms=1)[0]

    alone = torch.cat([normed(slice(row, row + 1)) for row in range(ROWS)])
    for rows in range(1, ROWS, 13):
        assert torch.equal(normed(slice(rows)), alone[:rows]), rows
