"""The status of a DriftService: is the promise kept, and what was done for it.

Written by the operator only. Ratios and milliseconds are rounded before they get here, so that a steady service
writes nothing. Every field that is ever written is declared, because the API server prunes the others silently.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from drift_operator.fields import Document, Integer, Keyed, Number, Text, Timestamp

Count = Annotated[Integer, Field(ge=0, le=1_000_000)]
Epoch = Annotated[Integer, Field(ge=0)]
Ratio = Annotated[Number, Field(ge=0, le=1)]
Milliseconds = Annotated[Number, Field(ge=0)]
Short = Annotated[str, Field(max_length=253)]

NODES_SHOWN = 64
DECISIONS_SHOWN = 10


class Condition(Document):
    """One fact about the service, in the form of KEP-1623."""

    type: Literal[
        "Ready",
        "Progressing",
        "Degraded",
        "SLOMet",
        "SLOFeasible",
        "MetricsAvailable",
        "ScalingActive",
        "ScalingLimited",
        "SplitConverged",
        "RouterReady",
        "Paused",
    ]
    """Which fact."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    reason: Annotated[
        str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z]([A-Za-z0-9_]*[A-Za-z0-9])?$")
    ]
    """One CamelCase word for machines."""
    message: Annotated[str, Field(max_length=4096)]
    """A sentence for people."""
    last_transition_time: Timestamp
    """When `status` last changed, not when it was last looked at."""
    observed_generation: Epoch | None = None
    """Of the spec that it is about."""


class TargetStatus(Document):
    """One half of the promise over the window."""

    attainment: Ratio | None = None
    """Share of requests that met the target; absent where there was no request."""
    p50_ms: Milliseconds | None = None
    """Median."""
    p99_ms: Milliseconds | None = None
    """What 99 % stay within."""
    burn_rate: Annotated[Number, Field(ge=0)] | None = None
    """How fast the allowance of missed targets is used up; 1 uses it up exactly."""
    requests: Count | None = None
    """That were judged."""


class SloStatus(Document):
    ttft: TargetStatus | None = None
    """Time to first token."""
    tbt: TargetStatus | None = None
    """Time between tokens."""


class NodeStatus(Document):
    name: Short
    """Of its pod."""
    ready: bool
    """It takes requests."""
    draining: bool = False
    """It finishes what it has and gets nothing new."""
    decode_sms: Annotated[Integer, Field(ge=0, le=1024)] | None = Field(default=None, alias="decodeSMs")
    """What decode has of its GPU now, or had when it was last split."""
    prefill_sms: Annotated[Integer, Field(ge=0, le=1024)] | None = Field(default=None, alias="prefillSMs")
    """What prefill has."""
    weight: Annotated[Number, Field(ge=0, le=1)] | None = None
    """The node's share of the requests."""
    epoch_sent: Epoch | None = None
    """Number of the last set-point that it was sent."""
    epoch_acknowledged: Epoch | None = None
    """Number of the last one that it took."""
    kv_use: Ratio | None = None
    """Share of its KV cache that requests hold."""
    hit_rate: Ratio | None = None
    """Share of prompt tokens that came from the prefix cache."""


class Decision(Document):
    time: Timestamp
    """When."""
    lever: Literal["split", "weight", "replicas"]
    """What was moved."""
    node: Short | None = None
    """Of which node; absent where it was not a node's."""
    before: Short = Field(alias="from")
    """What it was."""
    after: Short = Field(alias="to")
    """What it became."""
    reason: Short
    """One CamelCase word for machines."""
    message: Text | None = None
    """A sentence with the numbers that decided."""


class Status(Document):
    observed_generation: Epoch | None = None
    """Of the spec that this status is about."""
    conditions: Annotated[list[Condition], Field(max_length=16), Keyed("type")] | None = None
    """What holds now, fact by fact."""
    replicas: Count | None = None
    """Nodes that serve, without those that drain: what an autoscaler divides by."""
    ready_replicas: Count | None = None
    """Nodes that take requests."""
    updated_replicas: Count | None = None
    """Nodes that run the present spec."""
    available_replicas: Count | None = None
    """Nodes that have stood since they became ready."""
    draining_replicas: Count | None = None
    """Nodes that leave."""
    desired_replicas: Count | None = None
    """What the operator wants; in advisory mode it is only said."""
    selector: Text | None = None
    """Label selector of the service's node pods, for the scale subresource."""
    slo: SloStatus | None = None
    """How far the promise is kept, over `spec.slo.window`."""
    decode_sms: Short | None = Field(default=None, alias="decodeSMs")
    """Decode's SMs over all nodes: one number, or least-most where nodes differ."""
    url: Text | None = None
    """Where clients reach it."""
    nodes: Annotated[list[NodeStatus], Field(max_length=NODES_SHOWN), Keyed("name")] | None = None
    """The first 64 nodes by name."""
    decisions: Annotated[list[Decision], Field(max_length=DECISIONS_SHOWN)] | None = None
    """The last ten, newest first."""
