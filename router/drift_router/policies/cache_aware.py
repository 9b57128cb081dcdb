"""To the node that would answer first, where what it holds of the prompt counts as the time that it saves.

1. Only nodes that would keep the promise, or whose rate nobody has measured, as long as there is one. If there is
   none, only idle ones: they can do nothing better, however little can be kept. If none is idle either, the request
   had better wait (OVERLOADED).
2. A session stays where it is, and a prompt among the nodes that hold nearly the most of it (STICKY_SHARE of the best
   match), on the one of least cost. That ends where it would take longer than on the node of least cost of all by
   more than the share of the prompt's work that the stay saves: for a match of half the prompt it may take half as
   long again. What is saved is not computed a second time, and the longer the queues, the more requests wait behind
   it; but a short common beginning (a system prompt) holds nobody in a queue. It ends at one TTFT target in any case.
   Nobody knows what a session's node has saved of it: it counts as all of the prompt.
3. Otherwise the node of least cost, which has the most headroom: the budget is the same on all nodes.
4. Of equal nodes one is drawn by weight.

Cost is predicted time with rates half believed and a small share of the work that a node was sent lately
(`predicting`). The second term is there for servers that answer at once or say nothing of themselves: all queues look
empty, and without it whoever computed the common beginning of all prompts first would get everything. It also spreads
cold prompts so that the caches age evenly: the node that was sent the fewest new tokens has evicted the least, and
its oldest content is what makes room, as in one cache for all. It needs no threshold for an imbalance, and nothing is
given up at one.

Where no node's cache is known for certain, a prompt of which less than KNOWN_SHARE was seen goes by a hash
(`prefix_hash`) instead of 3: routers that do not share what they have seen then agree where it belongs. The hash is
of the text up to where it begins to differ from all that was seen (`Ask.key`): a common beginning names no node.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence

from drift_router.policies import drawing, predicting, prefix_hash
from drift_router.policies.predicting import Outlook
from drift_router.snapshots import Ask, IndexState, Reason

STICKY_SHARE = 0.8
"""Of the best match. From llm-d's prefix-affinity filter; 0.5 and 1 do as well in `benchmarks/router/quality.py`."""

KNOWN_SHARE = 0.5
"""Of the prompt. Four routers with nothing but their own history reach a hit rate of 0.248 of Mooncake's
conversations with it, 0.122 without the hash, and one router 0.258 and 0.256; from 0.1 on the value matters
little."""

_COST_S = operator.attrgetter("cost_s")


def choose(ask: Ask, outlooks: Sequence[Outlook], draw: float) -> tuple[Outlook | None, Reason]:
    """`outlooks` is not empty."""
    most = max([outlook.held_tokens for outlook in outlooks])
    budget_s = predicting.budget_s(ask, most)
    able = [out for out in outlooks if not out.late and (out.ttft_s <= budget_s or not out.node.timed)]
    if not able:
        able = [out for out in outlooks if not out.node.in_flight and not out.node.queued_tokens]
    if not able:
        return None, Reason.OVERLOADED
    if len(able) < len(outlooks):
        most = max([outlook.held_tokens for outlook in able])
    cheapest = min(able, key=_COST_S)
    if ask.session_slot is not None:
        for outlook in able:
            if outlook.node.slot == ask.session_slot and _stays(
                ask, outlook, cheapest, ask.tokens - cheapest.held_tokens
            ):
                return outlook, Reason.SESSION
    holding = [outlook for outlook in able if outlook.held_tokens >= STICKY_SHARE * most]
    if len(holding) < len(able):
        chosen, _ = drawing.best(holding, draw)
        if _stays(ask, chosen, cheapest, chosen.held_tokens - cheapest.held_tokens):
            return chosen, Reason.STICKY
    if most < KNOWN_SHARE * ask.tokens and all(out.node.index is not IndexState.EXACT for out in outlooks):
        return prefix_hash.choose(ask, able), Reason.FALLBACK
    chosen, drawn = drawing.best(able, draw)
    return chosen, Reason.WEIGHT if drawn else Reason.HEADROOM


def _stays(ask: Ask, outlook: Outlook, other: Outlook, saved_tokens: float) -> bool:
    """Whether what a node saves, beside what the other one would, is worth the wait there."""
    behind_s = outlook.cost_s - other.cost_s
    if behind_s <= 0.0:
        return True
    return (
        behind_s <= ask.ttft_s and behind_s * (ask.tokens - other.held_tokens) <= saved_tokens * other.ttft_s
    )
