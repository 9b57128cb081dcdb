"""From a request and the nodes to a decision: who may be asked at all, and then the policy's choice.

A node that failed the request, that is full or that the operator gave weight 0 (it is leaving) is never chosen.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence

from drift_router.policies import cache_aware, drawing, predicting, prefix_hash, round_robin
from drift_router.policies.predicting import Outlook
from drift_router.snapshots import Ask, Decision, Node, Policy, Reason, Score

_TTFT_S = operator.attrgetter("ttft_s")

NOTHING: Mapping[int, int] = {}
"""What policies that do not look at caches take for matches."""


def choose(
    policy: Policy, ask: Ask, nodes: Sequence[Node], draw: float, *, turn: int = 0, explain: bool = False
) -> Decision:
    """`draw` is random, in [0, 1); `turn` counts the decisions. Neither is kept: the same arguments decide the
    same."""
    excluded = ask.excluded
    free = [
        node
        for node in nodes
        if node.in_flight < node.max_in_flight and node.weight > 0.0 and node.slot not in excluded
    ]
    serving = free or [node for node in nodes if node.weight > 0.0 and node.slot not in excluded]
    if not serving:
        return Decision(None, Reason.UNAVAILABLE, scores=_explained(ask, nodes) if explain else ())
    outlooks = _looked(policy, ask, serving, turn)
    chosen: Outlook | None = None
    if not free:
        reason = Reason.OVERLOADED
    elif policy is Policy.CACHE_AWARE:
        chosen, reason = cache_aware.choose(ask, outlooks, draw)
    elif policy is Policy.PREFIX_HASH:
        chosen, reason = prefix_hash.choose(ask, outlooks), Reason.HASH
    elif policy is Policy.LEAST_LOAD:
        chosen, reason = drawing.best(outlooks, draw)[0], Reason.LOAD
    else:
        chosen, reason = outlooks[0], Reason.TURN
    if chosen is None and free and ask.begun:
        chosen, reason = min(outlooks, key=_TTFT_S), Reason.HEADROOM
    told = chosen or min(outlooks, key=_TTFT_S)
    return Decision(
        None if chosen is None else chosen.node.slot,
        reason,
        0 if chosen is None else ask.matched_tokens.get(chosen.node.slot, 0),
        predicting.uncached_tokens(ask, told),
        told.ttft_s,
        _explained(ask, nodes) if explain else (),
    )


def _looked(policy: Policy, ask: Ask, nodes: Sequence[Node], turn: int) -> Sequence[Outlook]:
    """As far as the policy looks."""
    if policy is Policy.CACHE_AWARE:
        return predicting.predict(ask, nodes, ask.matched_tokens)
    if policy is Policy.ROUND_ROBIN:
        nodes = (round_robin.choose(nodes, turn),)
    return predicting.predict(ask, nodes, NOTHING)


def _explained(ask: Ask, nodes: Sequence[Node]) -> tuple[Score, ...]:
    """Of every node, also of those that may not be chosen."""
    return predicting.scores(ask, predicting.predict(ask, nodes, ask.matched_tokens))
