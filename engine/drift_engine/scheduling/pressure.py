"""When the node is nearly full the objective turns: finish decodes, which gives room back, before new prefills.

After Nexus (arXiv 2507.06608), which turns its objective by KV use; here also by the rows of a step, which run out
first where answers are long, prompts short and the TBT target is loose. Under pressure every step aims at half of its
time, so decode gets the larger part of the device and chunks shrink (`slack.PRESSED_SHARE`), and a request is
admitted only where every running one keeps PRESSED_PAGES to grow into: admitting one to preempt another computes
twice.
"""

from __future__ import annotations

from drift_engine.scheduling.views import Memory

TURN_SHARE = 0.9
"""Of the pages in use by requests, or of the rows, from which on the objective is turned; cached prefixes that nobody
uses do not press. Nexus takes 0.7. Estimate."""

TURN_BACK_SHARE = 0.8
"""Below which it is turned back: the tenth between them is what some requests hold, so that one that ends, or one
that comes, does not turn it to and fro. Estimate."""

PAGES, PRESSED_PAGES = 1, 4
"""Pages that an admission leaves to each running request: one, so that the next step need not preempt; under pressure
four, with pages of 16 tokens about a quarter of a chat's answer."""


def turned(memory: Memory, running: int, max_running: int, before: bool) -> bool:
    """Whether the objective is turned now. `before`: whether it was."""
    used = memory.pages_total - memory.pages_free - memory.pages_evictable
    share = TURN_BACK_SHARE if before else TURN_SHARE
    return used > share * memory.pages_total or running > share * max_running


def kept_pages(pressed: bool) -> int:
    return PRESSED_PAGES if pressed else PAGES
