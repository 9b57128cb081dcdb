"""From the rows of a pass to packed arrays on the host, decode rows first: the numbers that every forward needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drift_engine.devices.base import Pass, Row
from drift_engine.devices.page_tables import PageTables
from drift_engine.devices.staging import Put
from drift_engine.models.inputs import ForwardInputs

# T packed tokens, B sequences, M pages of the longest sequence, D rows with a draw


@dataclass(frozen=True, slots=True)
class Packed:
    """The arrays of `ForwardInputs` as it describes them, and which packed tokens draw."""

    token_ids_T: NDArray[np.int64]
    positions_T: NDArray[np.int32]
    slots_T: NDArray[np.int32]
    query_starts_B1: NDArray[np.int32]
    context_lens_B: NDArray[np.int32]
    page_table_BM: NDArray[np.int32]
    drawing_D: NDArray[np.int64]
    num_decode: int
    max_query_tokens: int
    max_decode_context_tokens: int
    max_prefill_context_tokens: int


def pack(work: Pass, page_tables: PageTables, page_tokens: int) -> Packed:
    rows, decodes = work.rows, len(work.decode)
    starts = np.array([row.start for row in rows], dtype=np.int32)
    table = page_tables.gather(rows)
    if decodes == len(rows):  # one token each
        lengths = np.ones(decodes, dtype=np.int32)
        query_starts = np.arange(decodes + 1, dtype=np.int32)
        sequence_of, positions = np.arange(decodes), starts
    else:
        lengths = np.array([len(row.token_ids) for row in rows], dtype=np.int32)
        query_starts = np.zeros(len(rows) + 1, dtype=np.int32)
        np.cumsum(lengths, out=query_starts[1:])
        sequence_of = np.repeat(np.arange(len(rows)), lengths)
        positions = np.arange(query_starts[-1], dtype=np.int32) + (starts - query_starts[:-1])[sequence_of]
    contexts = starts + lengths
    return Packed(
        token_ids_T=_token_ids(rows),
        positions_T=positions,
        slots_T=table[sequence_of, positions // page_tokens] * page_tokens + positions % page_tokens,
        query_starts_B1=query_starts,
        context_lens_B=contexts,
        page_table_BM=table,
        drawing_D=query_starts[1:][[row.draw is not None for row in rows]].astype(np.int64) - 1,
        num_decode=decodes,
        max_query_tokens=int(lengths[decodes:].max(initial=0)),
        max_decode_context_tokens=int(contexts[:decodes].max(initial=0)),
        max_prefill_context_tokens=int(contexts[decodes:].max(initial=0)),
    )


def forward_inputs(packed: Packed, put: Put) -> ForwardInputs:
    return ForwardInputs(
        token_ids_T=put(packed.token_ids_T),
        positions_T=put(packed.positions_T),
        slots_T=put(packed.slots_T),
        query_starts_B1=put(packed.query_starts_B1),
        context_lens_B=put(packed.context_lens_B),
        page_table_BM=put(packed.page_table_BM),
        num_decode=packed.num_decode,
        max_query_tokens=packed.max_query_tokens,
        max_decode_context_tokens=packed.max_decode_context_tokens,
        max_prefill_context_tokens=packed.max_prefill_context_tokens,
    )


def _token_ids(rows: Sequence[Row]) -> NDArray[np.int64]:
    token_ids: list[int] = []
    for row in rows:
        token_ids.extend(row.token_ids)
    return np.array(token_ids, dtype=np.int64)
