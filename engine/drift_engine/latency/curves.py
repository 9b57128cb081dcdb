"""One formula over all sizes of lanes: an estimate for every SM count that was measured, and the rest from those.

More SMs are never slower: every coefficient is kept from growing with the SM count. Where two estimates contradict
each other, they meet where their uncertainties say; where one just found that its speed changed, it is right.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from operator import ge, mul

from drift_engine.latency import online
from drift_engine.latency.costs import Coefficients, Features
from drift_engine.latency.interpolation import Shape, weights
from drift_engine.latency.online import Estimate
from drift_engine.latency.snapshots import EstimateState

Seed = Callable[[Features, float], Coefficients]

_SWEEPS = 4  # over all pairs; estimates that meet rarely disturb a third, so one is nearly always enough


class Curve:
    def __init__(
        self, reference: Features, seed: Seed, prior: Callable[[int], Coefficients] | None = None
    ) -> None:
        """`reference` holds the features of a common load, `seed` makes coefficients of a first pass."""
        self._reference = reference
        self._seed = seed
        self._prior = prior
        self._shape: Shape | None = self._prior_s if prior else None
        self._known: list[int] = []  # SM counts, ascending
        self._estimates: dict[int, Estimate] = {}
        self._at: dict[int, Coefficients | None] = {}  # cache of `at` since the last change

    def at(self, sms: int) -> Coefficients | None:
        """Coefficients on a lane of `sms` SMs; None when there is neither a measurement nor a prior."""
        try:
            return self._at[sms]
        except KeyError:
            found = self._at[sms] = self._find(sms)
            return found

    def observe(self, features: Features, sms: int, seconds: float) -> None:
        """Learns from a pass on a lane of `sms` SMs."""
        estimate = self._estimates.get(sms)
        if estimate is None:
            estimate = self._derived(sms) if self._known else self._first(features, sms, seconds)
            insort(self._known, sms)
            self._estimates[sms] = estimate
        if estimate.observe(features, seconds):
            self._push_from(sms)
        elif not self._is_ordered_around(sms):
            self._settle()
        self._at.clear()

    def start(self, coefficients: Mapping[int, Coefficients]) -> None:
        """Replaces everything by a calibration's coefficients by SM count."""
        self._estimates = {
            sms: Estimate(values, online.SPREAD_FITTED, self._reference)
            for sms, values in coefficients.items()
        }
        self._known = sorted(self._estimates)
        self._settle()
        self._at.clear()

    def states(self) -> tuple[EstimateState, ...]:
        return tuple(self._estimates[sms].state(sms) for sms in self._known)

    def restore(self, states: Iterable[EstimateState]) -> None:
        self._estimates = {state.sms: Estimate.restored(state) for state in states}
        self._known = sorted(self._estimates)
        self._settle()
        self._at.clear()

    def _prior_s(self, sms: int) -> float:
        assert self._prior is not None
        seconds: float = sum(map(mul, self._prior(sms), self._reference))
        return seconds

    def _find(self, sms: int) -> Coefficients | None:
        assert sms > 0
        if not self._known:
            return self._prior(sms) if self._prior else None
        found = [0.0] * len(self._reference)
        for index, weight in weights(sms, self._known, self._shape):
            known = self._estimates[self._known[index]].coefficients
            found = [value + weight * add for value, add in zip(found, known, strict=True)]
        return tuple(found)

    def _first(self, features: Features, sms: int, seconds: float) -> Estimate:
        """A prior's proportions are better than its speed: one pass is enough to correct the latter."""
        prior = self._prior(sms) if self._prior else ()
        predicted_s = sum(map(mul, prior, features))
        if predicted_s <= 0:
            return Estimate(self._seed(features, seconds), online.SPREAD_SEEDED, self._reference)
        scaled = tuple(value * seconds / predicted_s for value in prior)
        return Estimate(scaled, online.SPREAD_PRIOR, self._reference)

    def _derived(self, sms: int) -> Estimate:
        coefficients = self._find(sms)
        assert coefficients is not None  # other SM counts are known
        return Estimate(coefficients, online.SPREAD_DERIVED, self._reference)

    def _is_ordered_around(self, sms: int) -> bool:
        index = bisect_left(self._known, sms)
        around = self._known[max(0, index - 1) : index + 2]
        return all(
            all(map(ge, self._estimates[fewer].coefficients, self._estimates[more].coefficients))
            for fewer, more in pairwise(around)
        )

    def _settle(self) -> None:
        """Makes every coefficient non-increasing in the SM count."""
        estimates = [self._estimates[sms] for sms in self._known]
        for _ in range(_SWEEPS):
            settled = True
            for fewer, more in pairwise(estimates):
                for index in range(len(self._reference)):
                    if fewer.coefficients[index] < more.coefficients[index]:
                        _meet(fewer, more, index)
                        settled = False
            if settled:
                return
        for more, fewer in pairwise(reversed(estimates)):
            fewer.coefficients = tuple(map(max, fewer.coefficients, more.coefficients))

    def _push_from(self, sms: int) -> None:
        """The estimate at `sms` is fresher than all others: those that contradict it follow."""
        index = self._known.index(sms)
        for fewer, more in pairwise(self._known[index:]):
            slow, fast = self._estimates[fewer], self._estimates[more]
            fast.coefficients = tuple(map(min, fast.coefficients, slow.coefficients))
        for more, fewer in pairwise(reversed(self._known[: index + 1])):
            fast, slow = self._estimates[more], self._estimates[fewer]
            slow.coefficients = tuple(map(max, slow.coefficients, fast.coefficients))


def _meet(one: Estimate, other: Estimate, index: int) -> None:
    """Both take the mean of their values, the more certain one counting more."""
    a, b = one.variance(index), other.variance(index)
    value = (one.coefficients[index] * b + other.coefficients[index] * a) / (a + b)
    one.move(index, value)
    other.move(index, value)
