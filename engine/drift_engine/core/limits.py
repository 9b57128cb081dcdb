"""What the core was started with."""

from __future__ import annotations

from dataclasses import dataclass

from drift_engine import wire


@dataclass(frozen=True, slots=True)
class CoreLimits:
    """Bounds of a request and of a step, and what the loop must know of its model."""

    max_running: int
    max_model_len_tokens: int
    max_step_tokens: int
    chunk_tokens: int | None
    eos_token_ids: frozenset[int]
    layers: int
    kept_spans: int = 0  # of the timeline
    slack: wire.Slack = wire.Slack.STRICT
    min_dwell_s: float = 0.0
    batch_table: str = ""
    batch_table_context_tokens: int = 1024
