"""Computes passes with a model and its KV store: rows -> packed inputs -> logits -> drawn tokens.

The lanes of a device share one runner: weights, KV and the requests' page tables are the same for all.
"""

from __future__ import annotations

import torch

from drift_engine.devices import drawing, packing
from drift_engine.devices.base import Clock, Drawn, Pass, Results
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

    def pack(self, work: Pass) -> packing.Packed:
        return packing.pack(work, self._page_tables, self.kv.page_tokens)

    def forward(
        self, inputs: ForwardInputs, rows_B: torch.Tensor | None, *, lane_sms: int
    ) -> torch.Tensor | None:
        """Every layer, then the float32 logits of the packed tokens `rows_B`; None where none draws."""
        model = self.model
        x_TE, residual_TE = model.layers(
            model.embed(inputs), None, inputs, self.kv, 0, model.config.num_layers, lane_sms=lane_sms
        )
        return None if rows_B is None else model.logits(x_TE, residual_TE, rows_B, lane_sms=lane_sms)

    def run(self, work: Pass, *, lane_sms: int) -> Results:
        """The whole pass on the CPU, in the calling thread."""
        start_s = self._clock.now_s()
        packed = self.pack(work)
        inputs = packing.forward_inputs(packed, torch.from_numpy)
        rows_B = torch.from_numpy(packed.drawing_D) if len(packed.drawing_D) else None
        forward_start_s = self._clock.now_s()
        logits_BV = self.forward(inputs, rows_B, lane_sms=lane_sms)
        forward_s = self._clock.now_s() - forward_start_s
        drawn: dict[str, Drawn] = {}
        if logits_BV is not None:
            draws = work.draws()
            staged = drawing.stage(list(draws.values()), self.model.config.vocab_size, torch.from_numpy)
            sampled = drawing.sample(logits_BV, staged, lane_sms=lane_sms)
            drawn = dict(zip(draws, drawing.collect(sampled, list(draws.values())), strict=True))
        return Results(drawn, self._clock.now_s() - start_s, forward_s)
