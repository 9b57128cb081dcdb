"""The promise as somebody tells it while the router runs (`PUT /control/v1/promise`), in numbered words as the nodes
are told. Requests in flight keep what they were promised.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from drift_router import documents
from drift_router.discovery.pushed import MAX_EPOCH
from drift_router.documents import DocumentError
from drift_router.options import Promise


class Promised(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What requests without targets of their own are promised."""

    epoch: Annotated[int, msgspec.Meta(extra_json_schema={"minimum": 0, "maximum": MAX_EPOCH})]
    """Of the word that said so; 0: the router's options did."""
    ttft_ms: Annotated[float, msgspec.Meta(gt=0)]
    tbt_ms: Annotated[float, msgspec.Meta(gt=0)]
    ttft_per_token_ms: Annotated[float, msgspec.Meta(ge=0)] = 0.0

    @property
    def promise(self) -> Promise:
        return Promise(self.ttft_ms, self.ttft_per_token_ms, self.tbt_ms)


def at_first(promise: Promise) -> Promised:
    """As the router's options say."""
    return Promised(0, promise.ttft_ms, promise.tbt_ms, promise.ttft_per_token_ms)


def parse(body: bytes) -> Promised:
    """JSON. Raises DocumentError that names field, value and limit."""
    found = documents.read_json(body, Promised)
    if not 1 <= found.epoch <= MAX_EPOCH:
        raise DocumentError(f"epoch: {found.epoch} is not between 1 and {MAX_EPOCH}")
    return found
