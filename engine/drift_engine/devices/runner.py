"""Computes passes with a model and its KV store: rows -> packed inputs -> logits -> drawn tokens.

The lanes of a device share one runner: weights, KV and the requests' page tables are the same for all.
"""

from __future__ import annotations

from collections.abc import Sequence

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
        self.clock = clock
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
        layered = LayeredPass(self, work)
        return layered.advance(layered.layers, lane_sms=lane_sms)


class LayeredPass:
    """A pass on the CPU that is computed some layers at a time, by whatever thread."""

    def __init__(self, runner: Runner, work: Pass) -> None:
        self._runner = runner
        self._work = work
        self._inputs: ForwardInputs | None = None  # packed with the first layer
        self._rows_B: torch.Tensor | None = None
        self._state: tuple[torch.Tensor, torch.Tensor | None] | None = None
        self._done = 0

    @property
    def layers(self) -> int:
        return self._runner.model.config.num_layers

    def advance(self, stop: int, *, lane_sms: int) -> Results:
        """Computes the layers up to `stop`; with the last one also the tokens."""
        clock, model = self._runner.clock, self._runner.model
        start_s = clock.now_s()
        if self._inputs is None:
            packed = self._runner.pack(self._work)
            self._inputs = packing.forward_inputs(packed, torch.from_numpy)
            self._rows_B = torch.from_numpy(packed.drawing_D) if len(packed.drawing_D) else None
        forward_start_s = clock.now_s()
        x_TE, residual_TE = self._state or (model.embed(self._inputs), None)
        self._state = model.layers(
            x_TE, residual_TE, self._inputs, self._runner.kv, self._done, stop, lane_sms=lane_sms
        )
        self._done = stop
        logits_BV = None
        if stop == self.layers and self._rows_B is not None:
            logits_BV = model.logits(*self._state, self._rows_B, lane_sms=lane_sms)
        forward_s = clock.now_s() - forward_start_s
        drawn: dict[str, Sequence[Drawn]] = {}
        if logits_BV is not None:
            draws = self._work.draws()
            staged = drawing.stage(list(draws.values()), model.config.vocab_size, torch.from_numpy)
            sampled = drawing.sample(logits_BV, staged, lane_sms=lane_sms)
            found = drawing.collect(sampled, list(draws.values()))
            drawn = {request_id: (one,) for request_id, one in zip(draws, found, strict=True)}
        return Results(drawn, start_s, clock.now_s() - start_s, forward_s)
