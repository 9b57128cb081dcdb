"""How many decode steps are planned at once where the device can look ahead and be recalled.

Nothing is decided between two steps that only repeat: the same rows, on the same part, until one of them may end or
the pages are used up. What nobody could foresee, a new request or a prefill that ended, recalls the rest. While a
request waits that may run, every step decides anew: who is next goes by deadlines, and there may be room for it.
"""

from __future__ import annotations

from collections.abc import Sequence

from drift_engine.scheduling.admission import Room
from drift_engine.scheduling.plans import Chunk
from drift_engine.scheduling.views import State


def steps(state: State, room: Room, begin: Sequence[Chunk] = ()) -> int:
    """Of a pass over the room's decode rows: at least 1, at most what the device takes.

    `begin` are chunks of the same plan, whose pages are not to be had.
    """
    rows, memory = room.decoding, state.memory
    most = state.limits.lookahead_steps
    if most == 1 or not rows or room.preempted or state.waiting:
        return 1
    most = min(most, min(row.blind_tokens for row in rows))
    # `room.pages` is what is left when every row had its next token: a row fills a page in `page_tokens` steps, and
    # may stand before a new one.
    pages = room.pages - sum(memory.growth(chunk.reused_tokens, chunk.tokens) for chunk in begin)
    covered = max(0, pages // len(rows) - 1) * memory.page_tokens
    return max(1, min(most, covered))
