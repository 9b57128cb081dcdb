"""What a single pass says about all others, where neither a prior nor a second pass is there to ask.

The time of the pass is shared out among the coefficients of its formula in the proportions that transformers usually
have. That makes a first guess proportional to the work; the next passes of other sizes replace it (see `online`).
"""

from __future__ import annotations

from drift_engine.latency.costs import Coefficients, Features

PREFILL_CONSTANT_TOKENS = 32
"""New tokens that cost as much as a prefill's constant. Estimate: reading the weights takes as long as computing some
150 tokens on an H200, a dozen on CPU cores. Low on purpose: more work is then rather over- than under-predicted."""

ATTENTION_TOKENS = 16_384
"""Context at which attention costs a prefill token as much as everything else does. Estimate: parameters divided by
2 * layers * heads * head_dim, which is 30K tokens for an 8B model and a few thousand for one of a few million."""

DECODE_CONSTANT_ROWS = 16
"""Decode rows that cost as much as a decode pass's constant. Estimate, low on purpose like the one above: 240 and 290
in the published tables of an 8B and a 70B model on 8 A100, a dozen on CPU cores."""

ROW_TOKENS = 2048
"""Context tokens that cost as much as one more decode row; 1.9K and 2.3K in the same tables."""


def seed_prefill(features: Features, seconds: float) -> Coefficients:
    """Coefficients of a prefill formula that takes `seconds` for `features`."""
    new_squared, new_times_reused, new_tokens = features[:3]
    units = new_tokens + (new_times_reused + 0.5 * new_squared) / ATTENTION_TOKENS
    per_token_s = seconds / (PREFILL_CONSTANT_TOKENS + units)
    per_pair_s = per_token_s / ATTENTION_TOKENS
    # A causal chunk sees half of itself on average, and all of what it reuses.
    return (0.5 * per_pair_s, per_pair_s, per_token_s, PREFILL_CONSTANT_TOKENS * per_token_s, 0.0)


def seed_decode(features: Features, seconds: float) -> Coefficients:
    """Coefficients of a decode formula that takes `seconds` for `features`."""
    context_tokens, rows = features[:2]
    per_row_s = seconds / (DECODE_CONSTANT_ROWS + rows + context_tokens / ROW_TOKENS)
    return (per_row_s / ROW_TOKENS, per_row_s, DECODE_CONSTANT_ROWS * per_row_s)
