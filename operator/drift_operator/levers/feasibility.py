"""Could the promise be kept at all? By one request alone on an empty node, whatever the number of nodes.

In: what passes cost, and the lengths that were asked for. A class of lengths whose prefill alone takes longer than
its target is infeasible; the promise is, where more requests are of such classes than may miss it. More nodes are no
help, so these classes are no reason for any.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from drift_engine import wire
from drift_operator.driftservice import Slo
from drift_operator.levers import capacity
from drift_operator.levers.attainment import Length
from drift_operator.levers.figures import significant

MARGIN = 0.95
"""What was infeasible is feasible again at this share of its target: coefficients that are learned anew with every
pass must not make it flutter. Estimate: a calibrated model is off by less than 5 %."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`lengths` are the upper edges of the classes that miss their target alone."""

    feasible: bool | None = None
    """None: nothing is known of the nodes' speed."""
    lengths: frozenset[float] = frozenset()
    decode: bool = True
    """One row alone decodes in time."""
    prefill: bool = True
    """The shortest prompt alone is prefilled in time."""
    message: str = "no node has told its speed yet"

    def helped(self, edge: float) -> bool:
        """Whether more nodes can help requests of this class."""
        return self.decode and self.prefill and edge not in self.lengths


def judge(
    reports: Sequence[wire.Report],
    lengths: Mapping[float, Length],
    reused_tokens: float,
    slo: Slo,
    before: Verdict,
) -> Verdict:
    """By the fastest node. `lengths` is what was asked for lately, by upper edge; `reused_tokens` of a usual one."""
    costs = [cost for r in reports for cost in (r.whole, *(r.costs if r.whole is None else ())) if cost]
    if not costs:
        return Verdict()
    context_tokens = reused_tokens + _mean_tokens(lengths)
    tbt_s = min(capacity.step_s(cost, 1, context_tokens) for cost in costs)
    allowed_s = slo.tbt.target_ms / 1000 * (1.0 if before.decode else MARGIN)
    if tbt_s > allowed_s:
        message = (
            f"a token takes {_ms(tbt_s)} alone on an empty node with {context_tokens:.0f} tokens of context; "
            f"the promise is {slo.tbt.target_ms} ms"
        )
        return Verdict(False, decode=False, message=message)
    shortest_s = min(capacity.prefill_s(cost, 1, 0, alone=True) for cost in costs)
    if shortest_s > capacity.budget_s(slo, 1) * (1.0 if before.prefill else MARGIN):
        return Verdict(False, prefill=False, message=_said(1, shortest_s, slo))
    infeasible: dict[float, tuple[float, float]] = {}
    for edge, length in sorted(lengths.items()):
        if not length.requests:
            continue
        tokens = max(1.0, length.uncached_tokens / length.requests)
        alone_s = min(capacity.prefill_s(cost, tokens, reused_tokens, alone=True) for cost in costs)
        if alone_s > capacity.budget_s(slo, tokens) * (MARGIN if edge in before.lengths else 1.0):
            infeasible[edge] = (tokens, alone_s)
    requests = sum(length.requests for length in lengths.values())
    share = sum(lengths[edge].requests for edge in infeasible) / requests if requests else 0.0
    allowed = 1 - slo.ttft.attainment
    feasible = share <= allowed * (MARGIN if before.feasible is False else 1.0)
    if not infeasible:
        message = "every length that was asked for can be served in time by an empty node"
        return Verdict(True, message=message)
    tokens, alone_s = infeasible[min(infeasible)]
    shares = f"{_share(share)} of the requests are as long, {_share(allowed)} may miss it"
    message = f"{_said(tokens, alone_s, slo)}; {shares}"
    return Verdict(feasible, frozenset(infeasible), message=message)


def _mean_tokens(lengths: Mapping[float, Length]) -> float:
    requests = sum(length.requests for length in lengths.values())
    return sum(length.uncached_tokens for length in lengths.values()) / requests if requests else 1.0


def _said(tokens: float, alone_s: float, slo: Slo) -> str:
    shown = round(significant(tokens))
    size = f"a prompt of {shown} token{'s' if shown > 1 else ''}"
    promise_ms = 1000 * capacity.budget_s(slo, shown)
    return f"{size} takes {_ms(alone_s)} alone on an empty node; the promise is {promise_ms:g} ms"


def _ms(value_s: float) -> str:
    return f"{significant(1000 * value_s):g} ms"


def _share(value: float) -> str:
    return f"{significant(100 * value):g} %"
