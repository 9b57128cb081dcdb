"""Two waiting requests that begin alike run one after the other, so that the second finds the first one's prefix.

In one pass both would compute it. Behind the first, the second computes the rest alone and is done no later than both
would have been together. Prompts are compared by marks: hashes of their first 1, 2, 4, ... pages, made once when a
request comes, so a decision costs one look-up for each request.

A request waits for no other than those that are ahead of it or being prefilled, and for nobody once it has aged
(`order.aged_s`).
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import xxhash

from drift_engine.scheduling import order
from drift_engine.scheduling.views import State, Waiting

WORTH_SHARE = 0.25
"""Of its own prefill that a request must save to wait. Doubling marks may see half of what is shared. Estimate."""


def marks(token_ids: Sequence[int], salt: str, page_tokens: int) -> tuple[int, ...]:
    """Of the prompt's first 1, 2, 4, ... pages; equal where all tokens so far are, and the tenant is."""
    digest = xxhash.xxh3_64(salt.encode())
    found, start, stop = [], 0, page_tokens
    while stop <= len(token_ids):
        digest.update(array("i", token_ids[start:stop]).tobytes())
        found.append(digest.intdigest())
        start, stop = stop, 2 * stop
    return tuple(found)


def serialised(state: State, now_s: float) -> tuple[Waiting, ...]:
    """The waiting requests without those that do better to wait for another's prefill."""
    if not state.computing and len(state.waiting) < 2:
        return state.waiting
    ahead: set[int] = set()
    for computing in state.computing:
        ahead.update(computing)
    page_tokens, kept = state.memory.page_tokens, []
    for request in state.waiting:
        mark = _worth(request, page_tokens)
        if mark in ahead and now_s < order.aged_s(request.arrival_s, request.deadline_s):
            continue
        kept.append(request)
        ahead.update(request.marks)
    return tuple(kept)


def _worth(request: Waiting, page_tokens: int) -> int | None:
    """The first mark that saves enough; who shares a longer one shares it too."""
    enough = request.cached_tokens + WORTH_SHARE * (request.tokens - request.cached_tokens)
    covered = page_tokens
    for mark in request.marks:
        if covered >= enough:
            return mark
        covered *= 2
    return None
