"""What a request would see on each node: the time to its first token, in seconds, and whether its tokens would be
late.

    T_i = (queued_i + uncached_i) / R_i + fixed_i + barrier_i        uncached_i = tokens - trust_i * matched_i
    B_i = tbt_i + tbt_per_request_i                                  barrier_i = 0.15 k / (1 - k)

queued_i is what the node says goes before a prompt of that length: long ones that are late or have time to spare let
short ones pass. R_i is the prefill rate at the node's present split: a node that gives most of itself to decode looks
as slow for prompts as it is, and a warming node slower. k is the share of the KV cache that is held once the request
is admitted: without room there, a request waits however short the queue.

Nodes are compared by a cost that is more careful in two ways:

    cost_i = (queued_i + uncached_i + 0.05 * assigned_i / weight_i) / sqrt(R_i * R_median) + fixed_i + barrier_i

A rate is half believed. Each was measured on other prompts and a moment ago; taken at their word, the node whose rate
is overestimated the most gets requests into its queue while others are idle. And work that was sent lately counts a
little (FORECAST_SHARE), which is all there is to see where nodes answer at once.

The budget for the first token is the promise for the part of the prompt that no node holds, and the same on all
nodes: who is sent away from its cache has no longer to wait for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from drift_router.snapshots import Ask, Node, Score

UNKNOWN_RATE_TOKENS_PER_S = 8000.0
"""Of nodes none of which has told its rate. An 8B model prefills three to five times as fast on one H200, a 70B model
on two half as fast. Estimate: what matters is that it is the same for all."""

BARRIER_S = 0.15
"""The barrier of a cache that is half full; smg's least_load has the same."""

FULLEST = 0.98
"""The barrier rises no further, to 7.35 s: a full node may be the only one."""

TBT_TOLERANCE = 1.25
"""Above so many TBT targets a node counts as late. A node that keeps its promise fills its steps up to the target, so
that its P99 lies there whenever it computes prompts; that it is busy shows in its rate. Estimate."""

FORECAST_SHARE = 0.05
"""Of the work that a node was sent lately, in seconds per unit of its share: what it counts beside the predicted
time. Where nodes answer at once no queue ever shows who gets the most, and this does. In
`benchmarks/router/quality.py` hit rate and balance are nearly the same from 0.02 to 0.1; at 0.5 balance costs hits,
at 0 one node may get everything."""


class Outlook(NamedTuple):
    """Of one request on one node."""

    ttft_s: float
    """Predicted from what the node told: what promises are held against."""
    cost_s: float
    """What nodes are compared by."""
    late: float
    """By what share the TBT target would be missed; 0: not at all."""
    held_tokens: float
    """Of the prompt, as far as the node is trusted."""
    rate: float
    """In tokens a second, as far as it is believed and the node is warm."""
    node: Node


def predict(ask: Ask, nodes: Sequence[Node], matches: Mapping[int, int]) -> list[Outlook]:
    """In the order of `nodes`. `matches` are the request's, or nothing for a policy that does not look at caches."""
    tokens = ask.tokens
    late_s = ask.tbt_s * TBT_TOLERANCE
    usual = usual_rate(nodes)
    found: list[Outlook] = []
    append, sqrt = found.append, math.sqrt
    make = tuple.__new__  # this is the hot loop: Outlook(...) costs twice as much
    for node in nodes:
        rate = (node.prefill_tokens_per_s if node.timed else 0.0) or usual
        believed = sqrt(rate * usual)
        if node.warmth < 1.0:
            warmth = max(node.warmth, 1e-3)
            rate *= warmth
            believed *= warmth
        held_tokens = node.trust * matches[node.slot] if node.slot in matches else 0.0
        uncached = tokens - held_tokens
        if uncached < 1.0:
            uncached = 1.0
        queued_tokens = node.queued_tokens
        if queued_tokens:
            for length, ahead_tokens in node.ahead:
                if uncached <= length:
                    queued_tokens = ahead_tokens
                    break
        work_tokens = queued_tokens + uncached
        other_s = node.fixed_s
        full = node.kv_usage
        if node.kv_tokens:
            full += tokens / node.kv_tokens
        if full > 0.0:
            if full > FULLEST:
                full = FULLEST
            other_s += BARRIER_S * full / (1.0 - full)
        late = 0.0
        if node.tbt_s:
            tbt_s = node.tbt_s + node.tbt_per_request_s
            if tbt_s > late_s:
                late = tbt_s / late_s - 1.0
        forecast = FORECAST_SHARE * node.assigned_tokens / (node.weight or 1.0)
        cost_s = (work_tokens + forecast) / believed + other_s
        append(make(Outlook, (work_tokens / rate + other_s, cost_s, late, held_tokens, believed, node)))
    return found


def usual_rate(nodes: Sequence[Node]) -> float:
    """The median of those that were measured; else of what rates are at least, which differ by chance."""
    known = sorted([node.prefill_tokens_per_s for node in nodes if node.timed and node.prefill_tokens_per_s])
    if not known:
        known = sorted([node.prefill_tokens_per_s for node in nodes if node.prefill_tokens_per_s])
    return known[len(known) // 2] if known else UNKNOWN_RATE_TOKENS_PER_S


def uncached_tokens(ask: Ask, outlook: Outlook) -> int:
    return max(1, ask.tokens - int(outlook.held_tokens))


def budget_s(ask: Ask, most_held_tokens: float) -> float:
    """For the first token, on whichever node; so much of the prompt is held where most is."""
    return ask.ttft_s + ask.ttft_per_token_s * max(1.0, ask.tokens - most_held_tokens)


def headroom(outlook: Outlook, budget: float) -> float:
    """The share of the first token's budget that is left, or by what share a promise is missed (negative)."""
    share = 1.0 - outlook.ttft_s / budget
    return min(share, -outlook.late) if outlook.late else share


def scores(ask: Ask, outlooks: Sequence[Outlook]) -> tuple[Score, ...]:
    """What a decision was made from, to explain it."""
    if not outlooks:
        return ()
    budget = budget_s(ask, max([outlook.held_tokens for outlook in outlooks]))
    return tuple(
        Score(
            name=outlook.node.name,
            matched_tokens=ask.matched_tokens.get(outlook.node.slot, 0),
            uncached_tokens=uncached_tokens(ask, outlook),
            ttft_s=outlook.ttft_s,
            ttft_budget_s=budget,
            tbt_s=outlook.node.tbt_s + outlook.node.tbt_per_request_s,
            headroom=headroom(outlook, budget),
            cost_s=outlook.cost_s,
        )
        for outlook in outlooks
    )
