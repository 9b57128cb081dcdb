"""The CPU path: right against the definitions, and the same bits for a row whatever it is computed with."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st

from drift_kernels import attention, cpu

HEADS = [
    (4, 2, 16),
    (4, 4, 32),
    (12, 4, 64),
    (14, 2, 64),
    (3, 1, 80),
    (8, 1, 128),
]  # query heads, kv heads, head dim


@pytest.fixture(autouse=True)
def _restored_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@dataclass(frozen=True)
class Sequence:
    """Queries, keys and values of one sequence, [tokens, heads, head dim]."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor

    @staticmethod
    def make(
        tokens: int, heads: tuple[int, int, int], seed: int, dtype: torch.dtype = torch.float32
    ) -> Sequence:
        generator = torch.Generator().manual_seed(seed)
        query_heads, kv_heads, head_dim = heads
        return Sequence(
            *(
                torch.randn(tokens, count, head_dim, generator=generator).to(dtype)
                for count in (query_heads, kv_heads, kv_heads)
            )
        )


class Pool:
    """Paged keys and values of some sequences, placed at random among stale values."""

    def __init__(self, sequences: list[Sequence], slots: int, seed: int, stale: float = 3.0) -> None:
        needed = [-(-len(s.k) // slots) for s in sequences]
        pages = sum(needed) + 3
        free = random.Random(seed).sample(range(pages), pages)
        _, kv_heads, head_dim = sequences[0].k.shape
        self.key = torch.full((pages, kv_heads, slots, head_dim), stale, dtype=sequences[0].k.dtype)
        self.value = self.key.clone()
        self.table = torch.zeros(len(sequences), max(needed) + seed % 3, dtype=torch.int32)
        for b, sequence in enumerate(sequences):
            own = [free.pop() for _ in range(needed[b])]
            self.table[b, : needed[b]] = torch.tensor(own)
            for i, page in enumerate(own):
                part = slice(i * slots, (i + 1) * slots)
                filled = len(sequence.k[part])
                self.key[page, :, :filled] = sequence.k[part].transpose(0, 1)
                self.value[page, :, :filled] = sequence.v[part].transpose(0, 1)

    def prefill(
        self, sequences: list[Sequence], contexts: list[int], queries: list[int]
    ) -> list[torch.Tensor]:
        """The last `queries[b]` of the first `contexts[b]` tokens of each sequence."""
        parts = [s.q[c - n : c] for s, c, n in zip(sequences, contexts, queries, strict=True)]
        starts = [0, *torch.tensor(queries).cumsum(0).tolist()]
        out = cpu.prefill_attention(
            torch.cat(parts),
            self.key,
            self.value,
            torch.tensor(starts, dtype=torch.int32),
            torch.tensor(contexts, dtype=torch.int32),
            self.table,
            max_query_tokens=max(queries),
            max_context_tokens=max(contexts),
            scale=0.2,
        )
        return list(torch.split(out, queries))

    def decode(self, sequences: list[Sequence], contexts: list[int]) -> torch.Tensor:
        return cpu.decode_attention(
            torch.stack([s.q[c - 1] for s, c in zip(sequences, contexts, strict=True)]),
            self.key,
            self.value,
            torch.tensor(contexts, dtype=torch.int32),
            self.table,
            max_context_tokens=max(contexts),
            scale=0.2,
        )


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize(("width", "outputs"), [(64, 128), (96, 64), (64, 261), (768, 2304), (2048, 768)])
@pytest.mark.parametrize("packed", [False, True])
def test_a_row_of_a_product_is_the_same_in_every_batch(
    width: int, outputs: int, threads: int, packed: bool
) -> None:
    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(0)
    x, plain = torch.randn(133, width, generator=generator), torch.randn(outputs, width, generator=generator)
    weight = cpu.pack(plain) if packed else plain
    bias = torch.randn(outputs, generator=generator)
    whole = cpu.linear(x, weight, bias)
    torch.testing.assert_close(whole, F.linear(x, plain, bias), atol=1e-3, rtol=1e-4)
    for rows in (1, 2, 3, 4, 5, 7, 9, 11, 13, 27, 64, 131):
        chosen = torch.randperm(133, generator=generator)[:rows]
        assert torch.equal(cpu.linear(x[chosen], weight, bias), whole[chosen]), rows


@pytest.mark.parametrize("packed", [False, True])
def test_half_precision_products_are_close(packed: bool) -> None:
    x, weight, bias = torch.randn(5, 64), torch.randn(96, 64), torch.randn(96)
    rounded = weight.bfloat16()
    y = cpu.linear(x.bfloat16(), cpu.pack(rounded) if packed else rounded, bias.bfloat16())
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), F.linear(x, weight, bias), atol=0.3, rtol=0.05)


@pytest.mark.parametrize("heads", HEADS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_attention_is_that_of_the_definition(heads: tuple[int, int, int], dtype: torch.dtype) -> None:
    sequences = [Sequence.make(n, heads, seed=n, dtype=dtype) for n in (1, 65, 300)]
    pool = Pool(sequences, 16, seed=1)
    contexts, queries = [1, 65, 290], [1, 20, 100]
    expected = attention.reference_prefill(
        torch.cat([s.q[c - n : c] for s, c, n in zip(sequences, contexts, queries, strict=True)]),
        pool.key,
        pool.value,
        torch.tensor([0, 1, 21, 121], dtype=torch.int32),
        torch.tensor(contexts, dtype=torch.int32),
        pool.table,
        0.2,
    )
    atol, rtol = (1e-5, 1e-4) if dtype == torch.float32 else (2e-2, 2e-2)
    prefilled = pool.prefill(sequences, contexts, queries)
    torch.testing.assert_close(torch.cat(prefilled), expected, atol=atol, rtol=rtol)
    last = expected[[0, 20, 120]]
    torch.testing.assert_close(pool.decode(sequences, contexts), last, atol=atol, rtol=rtol)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_query_gets_the_same_bits_in_every_chunk_batch_and_placement(data: st.DataObject) -> None:
    torch.set_num_threads(data.draw(st.sampled_from([1, 2, 4]), label="threads"))
    heads = data.draw(st.sampled_from(HEADS), label="heads")
    lengths = data.draw(st.lists(st.integers(1, 400), min_size=1, max_size=5), label="lengths")
    slots = data.draw(st.sampled_from([1, 13, 16, 64]), label="slots")
    sequences = [Sequence.make(n, heads, seed=i) for i, n in enumerate(lengths)]
    alone = [Pool([s], 16, seed=0, stale=0.0).prefill([s], [len(s.q)], [len(s.q)])[0] for s in sequences]

    pool = Pool(sequences, slots, seed=data.draw(st.integers(0, 9), label="seed"))
    contexts = [data.draw(st.integers(1, n), label="context") for n in lengths]
    queries = [data.draw(st.one_of(st.just(1), st.integers(1, c)), label="queries") for c in contexts]
    for out, whole, context, count in zip(
        pool.prefill(sequences, contexts, queries), alone, contexts, queries, strict=True
    ):
        assert torch.equal(out, whole[context - count : context])
    for out, whole, context in zip(pool.decode(sequences, contexts), alone, contexts, strict=True):
        assert torch.equal(out, whole[context - 1])


def test_queries_in_several_tiles_get_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    sequence = Sequence.make(300, (12, 4, 64), seed=0)
    pool = Pool([sequence], 16, seed=0)
    [whole] = pool.prefill([sequence], [300], [300])
    monkeypatch.setattr(cpu, "TILE_SCORES", 12 * 320 * 7)
    [tiled] = pool.prefill([sequence], [300], [300])
    assert torch.equal(tiled, whole)


def test_decode_rows_are_grouped_by_length_within_the_cache_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "GROUP_BYTES", 2 << 20)
    lengths = [4000, 310, 300, 290, 64, 20]
    assert list(cpu._groups(lengths, bytes_per_token=4096)) == [(0, 1), (1, 2), (2, 3), (3, 4), (4, 6)]
    assert list(cpu._groups(lengths, bytes_per_token=1024)) == [(0, 1), (1, 4), (4, 6)]


def test_what_an_earlier_owner_left_behind_an_end_cannot_leak() -> None:
    """Even what is not a number: one request's overflow must stay its own."""
    sequences = [Sequence.make(n, (4, 2, 16), seed=n) for n in (5, 70)]
    clean, dirty = Pool(sequences, 16, seed=0, stale=0.0), Pool(sequences, 16, seed=0, stale=float("nan"))
    assert torch.equal(dirty.decode(sequences, [5, 70]), clean.decode(sequences, [5, 70]))
    for ours, theirs in zip(
        dirty.prefill(sequences, [5, 70], [3, 70]), clean.prefill(sequences, [5, 70], [3, 70]), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_rows_without_context_are_zero() -> None:
    sequence = Sequence.make(5, (4, 2, 16), seed=0)
    pool = Pool([sequence, sequence], 16, seed=0)
    out = pool.decode([sequence, sequence], [5, 0])
    assert out[0].abs().sum() > 0
    assert torch.equal(out[1], torch.zeros_like(out[1]))
