"""How long the next step may take: what every mode asks that keeps a TBT target.

strict   a token is due one target after the last one
chain    the k-th token after the first is due k targets after it, so that early tokens buy time for a longer step;
         no single gap is planned beyond CHAIN_GAP_TARGETS

The chain promises a pace, as TPOT does: a reader does not outrun it. Whoever promises every gap takes strict.
"""

from __future__ import annotations

from collections.abc import Sequence

from drift_engine import wire
from drift_engine.scheduling.views import Running

CHAIN_GAP_TARGETS = 2.0
"""Longest gap that saved time may pay for. At the default target of 80 ms: 160 ms, below the quarter of a second from
which on readers see a stream stop. Estimate."""

LATE_SHARE = 0.75
"""A row whose time no step can keep any more asks for one of this share of its target, not for all of the device:
what is late stays late. Estimate."""

PRESSED_SHARE = 0.5
"""Under KV pressure steps aim at this share of their time, so that decode gets the larger part and finishes."""


def due_s(
    form: wire.Slack, target_s: float, *, last_s: float, first_s: float, tokens_since_first: int
) -> float:
    """When the token behind the last one is due. `first_s` begins the chain; a resumed request begins anew."""
    if form is wire.Slack.STRICT:
        return last_s + target_s
    return min(first_s + (tokens_since_first + 1) * target_s, last_s + CHAIN_GAP_TARGETS * target_s)


def allowed_s(rows: Sequence[Running], now_s: float, fastest_s: float, *, pressed: bool) -> float:
    """That a step of these decode rows may take if it starts now; `fastest_s` is how long any takes at least."""
    found_s = min([row.due_s for row in rows]) - now_s
    if found_s < fastest_s:
        late_s = max(fastest_s, LATE_SHARE * promised_s(rows))
        found_s = min([left_s for row in rows if (left_s := row.due_s - now_s) >= fastest_s], default=late_s)
        found_s = min(found_s, late_s)
    return found_s * (PRESSED_SHARE if pressed else 1.0)


def usual_s(rows: Sequence[Running], *, pressed: bool) -> float:
    """That a step may take where no row is in a hurry."""
    return promised_s(rows) * (PRESSED_SHARE if pressed else 1.0)


def promised_s(rows: Sequence[Running]) -> float:
    """The tightest TBT target, whatever time is left: what policies of others plan with."""
    return min([row.tbt_target_s for row in rows])
