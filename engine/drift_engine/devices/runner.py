"""Runs passes on a torch device: rows -> packed inputs -> forward -> drawn tokens.

One runner owns the model's KV store. The lanes of a device share it: weights and KV are the same for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from drift_engine.devices.base import Clock, Drawn, Pass, Results, Row
from drift_engine.devices.drawing import draw_tokens
from drift_engine.devices.page_tables import PageTables
from drift_engine.models.inputs import ForwardInputs
from drift_engine.models.kv_store import KvStore
from drift_engine.models.transformer import Transformer


class Runner:
    """Stateless between passes except for the KV store and the requests' page tables."""

    def __init__(self, model: Transformer, kv: KvStore, clock: Clock, *, max_requests: int) -> None:
        self.model = model
        self.kv = kv
        self._clock = clock
        pages = -(-model.max_context_tokens // kv.page_tokens)
        self._page_tables = PageTables(max_requests, pages)

    def release(self, request_id: str) -> None:
        self._page_tables.release(request_id)

    def run(self, work: Pass, *, lane_sms: int) -> Results:
        """The whole pass: every layer, then a token for each row with a draw."""
        start_s = self._clock.now_s()
        inputs = self.inputs(work)
        forward_start_s = self._clock.now_s()
        x_TE, residual_TE = self.model.layers(
            self.model.embed(inputs),
            None,
            inputs,
            self.kv,
            0,
            self.model.config.num_layers,
            lane_sms=lane_sms,
        )
        logits_BV = self.logits(work, x_TE, residual_TE, lane_sms=lane_sms)
        forward_s = self._clock.now_s() - forward_start_s
        drawn = self.draw(work, logits_BV, lane_sms=lane_sms)
        return Results(drawn, self._clock.now_s() - start_s, forward_s)

    def logits(
        self, work: Pass, x_TE: torch.Tensor, residual_TE: torch.Tensor | None, *, lane_sms: int
    ) -> torch.Tensor | None:
        """Logits of the rows with a draw, in their order, from the state after the last layer."""
        ends = np.cumsum([len(row.token_ids) for row in work.rows]) - 1
        wanted = [int(end) for row, end in zip(work.rows, ends, strict=True) if row.draw is not None]
        if not wanted:
            return None
        rows_B = torch.tensor(wanted, dtype=torch.int64).to(x_TE.device, non_blocking=True)
        return self.model.logits(x_TE, residual_TE, rows_B, lane_sms=lane_sms)

    def draw(self, work: Pass, logits_BV: torch.Tensor | None, *, lane_sms: int) -> dict[str, Drawn]:
        """A token for each row with a draw."""
        if logits_BV is None:
            return {}
        draws = {row.request_id: row.draw for row in work.rows if row.draw is not None}
        drawn = draw_tokens(logits_BV, list(draws.values()), lane_sms)
        return dict(zip(draws, drawn, strict=True))

    def inputs(self, work: Pass) -> ForwardInputs:
        """Packs the rows, decode rows first."""
        rows = work.rows
        page_tokens = self.kv.page_tokens
        lengths = np.array([len(row.token_ids) for row in rows], dtype=np.int64)
        starts = np.array([row.start for row in rows], dtype=np.int64)
        query_starts = np.concatenate(([0], np.cumsum(lengths)))
        sequence_of = np.repeat(np.arange(len(rows)), lengths)
        offset = np.arange(query_starts[-1]) - np.repeat(query_starts[:-1], lengths)
        positions = np.repeat(starts, lengths) + offset
        table = self._page_tables.gather(rows)
        slots = table[sequence_of, positions // page_tokens] * page_tokens + positions % page_tokens
        contexts = starts + lengths
        decodes = len(work.decode)

        def to_device(values: NDArray[Any], dtype: type) -> torch.Tensor:
            return torch.from_numpy(values.astype(dtype)).to(self.model.device, non_blocking=True)

        return ForwardInputs(
            token_ids_T=to_device(_packed(rows), np.int64),
            positions_T=to_device(positions, np.int32),
            slots_T=to_device(slots, np.int32),
            query_starts_B1=to_device(query_starts, np.int32),
            context_lens_B=to_device(contexts, np.int32),
            page_table_BM=to_device(table, np.int32),
            num_decode=decodes,
            max_query_tokens=int(lengths[decodes:].max(initial=0)),
            max_decode_context_tokens=int(contexts[:decodes].max(initial=0)),
            max_prefill_context_tokens=int(contexts[decodes:].max(initial=0)),
        )


def _packed(rows: Sequence[Row]) -> NDArray[Any]:
    token_ids: list[int] = []
    for row in rows:
        token_ids.extend(row.token_ids)
    return np.array(token_ids, dtype=np.int64)
