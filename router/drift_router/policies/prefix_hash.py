"""To the node that the hash of the prompt's beginning names, unless it has clearly more to do than others.

Rendezvous hashing: every node's name is hashed with the key, the highest wins. A node that comes or goes moves only
its own keys, and routers agree without a word. Loads are bounded as in consistent hashing with bounded loads, but in
seconds of work: a node takes no request while it has more than BOUND times what each would have with the request
shared out.
"""

from __future__ import annotations

from collections.abc import Sequence

import xxhash

from drift_router.policies.predicting import Outlook
from drift_router.snapshots import Ask

BOUND = 1.25
"""Of the mean. From Mirrokni and others, and every router that has it."""


def choose(ask: Ask, outlooks: Sequence[Outlook]) -> Outlook:
    """`outlooks` is not empty."""
    work_s = [(ask.tokens - outlook.held_tokens) / outlook.rate for outlook in outlooks]
    loads = [outlook.cost_s - own_s for outlook, own_s in zip(outlooks, work_s, strict=True)]
    most_s = max(min(loads), BOUND * (sum(loads) + max(work_s)) / len(loads))
    seed = ask.key & 0xFFFF_FFFF_FFFF_FFFF
    digest = xxhash.xxh3_64_intdigest
    allowed = [outlook for outlook, load_s in zip(outlooks, loads, strict=True) if load_s <= most_s]
    return max(allowed, key=lambda outlook: digest(outlook.node.name.encode(), seed))
