"""How nodes leave: in two phases, so that no request is lost.

First a node is marked: it gets nothing new, and a Deployment that shrinks takes it before others. When its requests
have ended, or its time is up, it is released: the Deployment shrinks and the pod is deleted. The marks are on the
pods, so an operator that was restarted goes on where the last one was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from drift_operator.reconciling.pods import Drain, Pod

SETTLE_S = 3.0
"""From the mark until a node without requests may go: routers hear of it within a second (their reports' pace), and a
request that was sent before is in the next report. Estimate."""


@dataclass(frozen=True, slots=True)
class Departure:
    replicas: int
    """What the Deployment should have."""
    mark: Mapping[str, Drain]
    """Pods that begin to leave now."""
    release: tuple[str, ...]
    """Pods that go now."""


def depart(
    wanted: int,
    present: int | None,
    pods: Sequence[Pod],
    first: Sequence[str],
    in_flight: Mapping[str, int],
    drain_timeout_s: float,
    now_s: float,
) -> Departure:
    """`wanted` nodes are to stay of `present`, which the Deployment has (None: there is no Deployment yet).

    `first` are names of pods in the order in which they should leave. `in_flight` has no entry where the number is
    unknown: such a node is waited for until its time is up.
    """
    leaving = [pod for pod in pods if pod.drain is not None and not pod.terminating]
    done = [pod for pod in leaving if _done(pod, in_flight.get(pod.name), now_s)]
    surplus = (wanted if present is None else present) - wanted - len(leaving)
    order = {name: place for place, name in enumerate(first)}
    staying = sorted(
        (pod for pod in pods if not pod.leaving),
        key=lambda pod: (pod.ready, order.get(pod.name, len(order)), -pod.created_s, pod.name),
    )
    # A Deployment may have more than there are pods yet: those need no drain.
    count = max(0, min(surplus, len(staying) - wanted))
    mark = {
        pod.name: Drain(now_s, now_s + (drain_timeout_s if pod.ready else 0.0)) for pod in staying[:count]
    }
    return Departure(
        replicas=wanted + len(leaving) - len(done) + len(mark),
        mark=mark,
        release=tuple(pod.name for pod in done),
    )


def staying(present: int, pods: Sequence[Pod]) -> int:
    """Of the nodes that the Deployment has, those that nobody marked."""
    return max(0, present - sum(pod.drain is not None and not pod.terminating for pod in pods))


def _done(pod: Pod, in_flight: int | None, now_s: float) -> bool:
    assert pod.drain is not None
    if now_s >= pod.drain.until_s:
        return True
    return in_flight == 0 and now_s >= pod.drain.since_s + SETTLE_S
