"""PD multiplexing: Drift's own policy on two lanes (`two_lanes`), and the same where the lanes overlap.

After MuxWise (arXiv 2504.14489 v3, section 3): the smallest decode part whose predicted step keeps its time,
everything else to prefill.
"""

from __future__ import annotations

from dataclasses import replace

from drift_engine import wire
from drift_engine.latency.loads import Load
from drift_engine.scheduling import admission, slack, splits
from drift_engine.scheduling.admission import Room
from drift_engine.scheduling.predictions import Predictions
from drift_engine.scheduling.two_lanes import Policy
from drift_engine.scheduling.views import Cut, State

MAX_INTERRUPTED = 3
"""Each holds the activations of a pass, 2 * max_step_tokens * hidden values: 67 MB for 2,048 tokens of an 8B model in
float32, 33 MB in bfloat16. Three let a short prompt through even where a medium one interrupted a long one."""

CONSTANT_SHARE = 0.1
"""Prompts are prefilled together until what a pass costs whatever its length is this share of it. With all that wait
in one pass, four prompts of 512 tokens had a mean TTFT of 4.8 s (117M, one core of two); one by one it is 3.0 s."""

PROBE_TOKENS = (128, 256)
"""Where that constant is read off: short enough that attention does not count, long enough for full products."""

_PROBES = tuple(Load.prefill([(tokens, 0)]) for tokens in PROBE_TOKENS)


def split(state: State, room: Room, prefill: Load, latency: Predictions, now_s: float) -> wire.Split:
    """The fewest decode SMs whose step keeps the time that the rows have."""
    allowed_s = slack.allowed_s(room.decoding, now_s, pressed=state.pressed)
    return splits.choose(state, room.decode, allowed_s, prefill, latency, now_s)


def batch_tokens(state: State, room: Room, latency: Predictions) -> int:
    """How many tokens a prefill takes up: the next prompt, and others beside it only as long as that makes the whole
    more efficient. More would only make the first wait for the last."""
    most, sms = state.limits.max_step_tokens, state.lanes.sms
    waiting = [w.tokens - w.cached_tokens for w in state.waiting[:1]]
    first = next((r.remaining_tokens for r in admission.prefilling(room)), sum(waiting))
    short_s, long_s = [latency.pass_s(probe, sms) for probe in _PROBES]
    if short_s is None or long_s is None or long_s <= short_s:
        return most
    token_s = (long_s - short_s) / (PROBE_TOKENS[1] - PROBE_TOKENS[0])
    constant_s = max(0.0, short_s - token_s * PROBE_TOKENS[0])
    saturating = int(constant_s / token_s * (1 / CONSTANT_SHARE - 1))
    return min(most, max(first, saturating))


def interrupts(state: State, cut: Cut, latency: Predictions, now_s: float) -> bool:
    """Whether the first waiting request is prefilled between two layers of the one that is cut.

    It would be late behind it and makes its target before it; the one that is cut makes its own all the same, or is
    late anyway but has not aged. A longer one never interrupts, so that prefills are not torn to pieces.
    """
    if len(state.lanes.cuts) > MAX_INTERRUPTED or now_s >= cut.aged_s:
        return False
    first, sms = state.waiting[0], state.lanes.sms if cut.split is None else cut.split.prefill_sms
    own_s = latency.pass_s(Load.prefill([(first.tokens - first.cached_tokens, first.cached_tokens)]), sms)
    whole_s = latency.pass_s(cut.load, sms)
    if own_s is None or whole_s is None:
        return False
    left_s = whole_s * (cut.layers - cut.launched) / cut.layers
    late_behind = now_s + left_s + own_s > first.deadline_s
    in_time_before = now_s + own_s <= first.deadline_s
    allowed = now_s + left_s + own_s <= cut.deadline_s or now_s + left_s > cut.deadline_s
    return own_s < left_s and late_behind and in_time_before and allowed


MUX = Policy(wire.Mode.MUX, split, batch_tokens, interrupts)

OVERLAP = replace(MUX, mode=wire.Mode.OVERLAP)
"""Two lanes over the same SMs: nothing is divided, so the latency model's contention has to tell what a neighbour
costs. The splits of `splits.usable` are the only difference."""
