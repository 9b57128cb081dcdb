"""PD multiplexing: Drift's own policy on two lanes (`two_lanes`), and the same where the lanes overlap.

After MuxWise (arXiv 2504.14489 v3, section 3): the smallest decode part whose predicted step keeps its time,
everything else to prefill.
"""

from __future__ import annotations

from dataclasses import replace

from drift_engine import wire
from drift_engine.latency.loads import Load
from drift_engine.scheduling import admission, fused, overtaking, slack, splits
from drift_engine.scheduling.admission import Room
from drift_engine.scheduling.predictions import Predictions
from drift_engine.scheduling.two_lanes import Chosen, Policy
from drift_engine.scheduling.views import State

CONSTANT_SHARE = 0.1
"""Prompts are prefilled together until what a pass costs whatever its length is this share of it. With all that wait
in one pass, four prompts of 512 tokens had a mean TTFT of 4.8 s (117M, one core of two); one by one it is 3.0 s."""

PROBE_TOKENS = (128, 256)
"""Where that constant is read off: short enough that attention does not count, long enough for full products."""

_PROBES = tuple(Load.prefill([(tokens, 0)]) for tokens in PROBE_TOKENS)


def split(state: State, room: Room, prefill: Load, latency: Predictions, now_s: float) -> Chosen:
    """The fewest decode SMs whose step keeps the time that the rows have; more for a step that is in a hurry, or that
    would outlast all prefill there is."""
    allowed_s = fused.allowed_s(state, room, latency, now_s)
    usual_s = slack.usual_s(room.decoding, pressed=state.pressed)
    base = splits.settled(state, room.decode, max(allowed_s, usual_s), prefill, latency, now_s)
    found = base
    if allowed_s < usual_s:
        found = splits.urgent(state, base, room.decode, allowed_s, prefill, latency)
    return Chosen(splits.balanced(state, found, room.decode, _in_line(state, room, prefill), latency), base)


def _in_line(state: State, room: Room, prefill: Load) -> Load:
    """This prefill and those that follow it on its lane, as far as one pass of them."""
    work = Load.prefill(fused.pending(state, room))
    for cut in state.lanes.cuts:
        work += cut.load + cut.rest
    return work if work.new_tokens > prefill.new_tokens else prefill


def batch_tokens(state: State, room: Room, latency: Predictions) -> int:
    """How many tokens a prefill takes up: the next prompt, and others beside it only as long as that makes the whole
    more efficient. More would only make the first wait for the last."""
    most, sms = state.limits.max_step_tokens, state.lanes.sms
    waiting = [w.tokens - w.cached_tokens for w in state.waiting[:1]]
    under_way = admission.prefilling(room)
    first = under_way[-1].remaining_tokens if under_way else sum(waiting)
    short_s, long_s = [latency.pass_s(probe, sms) for probe in _PROBES]
    if short_s is None or long_s is None or long_s <= short_s:
        return most
    token_s = (long_s - short_s) / (PROBE_TOKENS[1] - PROBE_TOKENS[0])
    constant_s = max(0.0, short_s - token_s * PROBE_TOKENS[0])
    saturating = int(constant_s / token_s * (1 / CONSTANT_SHARE - 1))
    return min(most, max(first, saturating))


MUX = Policy(
    wire.Mode.MUX, split, batch_tokens, overtaking.between_layers, overtakes=overtaking.between_passes
)

OVERLAP = replace(MUX, mode=wire.Mode.OVERLAP)
"""Two lanes over the same SMs: nothing is divided, so the latency model's contention has to tell what a neighbour
costs. The splits of `splits.usable` are the only difference."""
