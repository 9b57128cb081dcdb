"""All that is seen of one service at a moment, after what was to be done has been done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from drift_engine import wire
from drift_operator.reconciling.pods import Pod
from drift_operator.reconciling.workloads import Workload


@dataclass(frozen=True, slots=True)
class View:
    generation: int
    """Of the spec that was acted on."""
    wanted: int
    """Nodes that are to stay."""
    nodes: Workload | None
    routers: Workload | None
    node_pods: tuple[Pod, ...]
    router_pods: tuple[Pod, ...]
    reports: Mapping[str, wire.Report]
    """Of node pods, as far as they can be believed still."""
    eligible: int | None
    """Nodes that the routers may send requests to, of the router that sees fewest; None: no router said."""
    routed: bool = True
    """False: clients ask the only node itself, and no router is missing."""
    unix_s: float = 0.0
    """When it was seen."""
    lacking: tuple[str, ...] = ()
    """Kinds of objects that the spec asks for and the cluster does not have."""
    refused: tuple[str, ...] = ()
    """What the API server did not take, in its words."""

    missing: str | None = None
    """The Secret of API keys that routers wait for."""

    @property
    def serving(self) -> tuple[Pod, ...]:
        return tuple(pod for pod in self.node_pods if pod.ready and not pod.leaving)

    @property
    def leaving(self) -> tuple[Pod, ...]:
        """Without those whose time is over: nobody waits for these any more."""
        present = (pod for pod in self.node_pods if pod.leaving)
        return tuple(pod for pod in present if pod.ends_s is None or self.unix_s < pod.ends_s)

    @property
    def rolling(self) -> bool:
        """What runs is not what the spec says."""
        made = (self.nodes, self.routers) if self.routed else (self.nodes,)
        return any(each is None or each.rolling for each in made)
