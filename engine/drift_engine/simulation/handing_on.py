"""From a node that prefills to one that decodes: how long a prompt's KV is under way.

It is pushed layer by layer while the prefill goes on, which any link keeps up with that brings more bytes a second
than a prefill makes. So only the last layer's is on its way when the first token is there, whatever else is on the
link.
"""

from __future__ import annotations

import msgspec


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """Between any two nodes."""

    bytes_per_s: float
    latency_s: float
    kv_bytes_per_token: int
    layers: int

    def seconds(self, tokens: int) -> float:
        """From the end of a prefill until another node has all of its KV."""
        return self.latency_s + tokens * self.kv_bytes_per_token / self.layers / self.bytes_per_s
