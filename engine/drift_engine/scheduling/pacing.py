"""Whether a first token waits for the decode step that its row joins.

A prefill that runs beside decode ends in the middle of a step. Its row waits for the end of that step and then for a
step of its own, so the gap behind a first token that is told at once is longer than any other. Where that would break
the TBT target and the TTFT target leaves the time, the token is told with the step at work: a fraction of a step
later, as it is where a prefill's last chunk shares a pass with decode rows.
"""

from __future__ import annotations

from typing import NamedTuple


class Step(NamedTuple):
    """A decode step at work, as predicted when it was launched."""

    ends_s: float
    step_s: float


def waits(step: Step | None, deadline_s: float, tbt_target_s: float, now_s: float) -> bool:
    """`deadline_s` is the first token's."""
    if step is None or step.ends_s > deadline_s:
        return False
    return max(0.0, step.ends_s - now_s) + step.step_s > tbt_target_s
