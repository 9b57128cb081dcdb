"""What objects depend on beside the DriftService and the operator's options: what the reconciler found out."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Facts:
    uid: str
    """Of the DriftService: its objects are owned by it, and end with it."""
    token_sha256: str
    """Hex SHA-256 of the control token. Nodes accept it as their only API key, and pods that have another restart."""
    node_replicas: int | None
    """None: somebody else writes the Deployment's, so the field is left out."""
    router_replicas: int
    kinds: frozenset[str] = frozenset()
    """Of `kinds.OPTIONAL`, those that the cluster has, as `str(kind)`."""
