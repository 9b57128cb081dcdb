"""What a launcher promises its kernel about a tensor: a broken promise is a traceback, not a GPU fault."""

import torch

INTEGERS = (torch.int32, torch.int64)


def tensor(name: str, value: torch.Tensor, shape: tuple[int, ...], *dtypes: torch.dtype) -> None:
    """Asserts that `value` has this shape, one of these dtypes, and no gaps."""
    like(name, value, shape, *dtypes)
    assert value.is_contiguous(), f"{name} must be contiguous, its strides are {value.stride()}"


def like(name: str, value: torch.Tensor, shape: tuple[int, ...], *dtypes: torch.dtype) -> None:
    """Asserts that `value` has this shape and one of these dtypes."""
    assert tuple(value.shape) == shape, f"{name} has shape {tuple(value.shape)}, expected {shape}"
    assert value.dtype in dtypes, f"{name} is {value.dtype}, expected {' or '.join(map(str, dtypes))}"


def heads_share(heads: int, kv_heads: int) -> None:
    """Asserts that every kv head serves the same number of query heads."""
    assert heads % kv_heads == 0, f"{heads} heads cannot share {kv_heads} kv heads"
