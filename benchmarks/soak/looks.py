"""The lines of a soak's log. Times are seconds since the traffic began."""

from __future__ import annotations

import msgspec


class Claim(msgspec.Struct, frozen=True):
    """What the DriftService's status says."""

    nodes: int
    """That are ready."""
    routers: int
    """That are available; 0 where it says that none is."""
    conditions: tuple[str, ...]
    """TYPE=STATUS:REASON each."""

    def says(self, kind: str, status: str) -> bool:
        return any(each.startswith(f"{kind}={status}:") for each in self.conditions)


class Look(msgspec.Struct, frozen=True, tag="look"):
    """What was found by asking the pods, and what the status said at that time. It holds until the next one."""

    at_s: float
    nodes: int
    routers: int
    operators: int
    claim: Claim | None
    """None: the API server did not answer."""

    def same(self, other: Look) -> bool:
        return msgspec.structs.replace(self, at_s=other.at_s) == other

    @property
    def true(self) -> bool:
        """The status says what is so. What cannot be read is not untrue."""
        claim = self.claim
        if claim is None:
            return True
        return (
            claim.nodes == self.nodes
            and claim.routers == self.routers
            and claim.says("Ready", "True") == (self.nodes > 0 and self.routers > 0)
        )

    def well(self, nodes: int, routers: int) -> bool:
        """All that is wanted serves, and the status says so."""
        return (
            self.claim is not None
            and self.true
            and (self.nodes, self.routers) == (nodes, routers)
            and self.operators > 0
            and self.claim.says("Ready", "True")
            and self.claim.says("Degraded", "False")
        )


class Memory(msgspec.Struct, frozen=True, tag="memory"):
    """Resident, of all processes of a container."""

    at_s: float
    component: str
    container: str
    rss_bytes: int


class Pressure(msgspec.Struct, frozen=True, tag="pressure"):
    """Of the whole machine, as the kernel tells it (PSI)."""

    at_s: float
    cpu: float
    """Share of the last 10 s in which something that could run waited for a processor."""


class Request(msgspec.Struct, frozen=True, tag="request"):
    at_s: float
    """When it was first sent."""
    seconds: float
    question: int
    troubles: tuple[str, ...]
    """Of attempts that failed."""
    lost: bool
    """No attempt succeeded."""
    wrong: bool
    """Its answer is another than the reference's."""
    ttft_s: float | None
    got: str = ""
    """The wrong answer."""


class Injected(msgspec.Struct, frozen=True, tag="fault"):
    at_s: float
    name: str
    victim: str
    until_s: float
    """When it was undone, or `at_s`."""
    failed: str = ""
    """Why it could not be done."""


Line = Look | Memory | Pressure | Request | Injected
