"""The table of the mode `batch-table`, kept for as long as it holds."""

from __future__ import annotations

from drift_engine import wire
from drift_engine.core.limits import CoreLimits
from drift_engine.scheduling import batch_table, views
from drift_engine.scheduling.predictions import Predictions


class KeptTable:
    """Made again only when the TBT target or the legal splits changed, or when nothing was known yet."""

    def __init__(self, mode: wire.Mode, limits: CoreLimits, latency: Predictions) -> None:
        self._mode = mode
        self._limits = limits
        self._latency = latency
        self._table: views.Table | None = None
        self._made_for: tuple[tuple[wire.Split, ...], float] | None = None

    def take(self, legal: tuple[wire.Split, ...], tbt_target_s: float) -> views.Table:
        """Empty for every other mode, and where nothing is known."""
        if self._mode is not wire.Mode.BATCH_TABLE:
            return ()
        made_for = (legal, tbt_target_s)
        if self._table is None or self._made_for != made_for:
            self._made_for = made_for
            self._table = self._make(legal, tbt_target_s)
        return self._table or ()

    def _make(self, legal: tuple[wire.Split, ...], tbt_target_s: float) -> views.Table | None:
        limits = self._limits
        if limits.batch_table:
            return batch_table.read(limits.batch_table, legal)
        return batch_table.tuned(
            legal, limits.max_running, limits.batch_table_context_tokens, tbt_target_s, self._latency
        )
