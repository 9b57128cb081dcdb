"""How a node is asked to run. Options may say `auto`; `Config` never does (see `resolving`).

A node gets its options as one JSON document, so that the local runtime, a pod's arguments and a test start it
the same way: `python -m drift_engine.node --options '{"model": ...}'`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec

from drift_engine import wire
from drift_engine.errors import OptionsError
from drift_engine.tracing.options import TracingOptions

TOKEN_VARIABLE = "DRIFT_CONTROL_TOKEN"  # noqa: S105 - the name of a variable
"""Where nodes, routers and commands find the control token: every user of the machine can read a command line."""

Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Positive = Annotated[int, msgspec.Meta(ge=1)]


class SloOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The service's promise. Defaults are those of the DriftService resource."""

    ttft_ms: Annotated[float, msgspec.Meta(gt=0)] = 400.0
    """Most milliseconds to the first token."""
    ttft_per_token_ms: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """Added for each prompt token that is not cached."""
    tbt_ms: Annotated[float, msgspec.Meta(gt=0)] = 80.0
    """Most milliseconds between two tokens."""

    @property
    def targets(self) -> wire.Targets:
        return wire.Targets(self.ttft_ms, self.ttft_per_token_ms, self.tbt_ms)


class Share(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which part of the machine is the node's: of so many equal ones, each of which has a node."""

    place: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Which of the parts is its own; the first is 0."""
    of: Positive = 1
    """How many parts the machine has."""


class NodeOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that a node can be told. `None` means: decide from the machine and the model."""

    model: str
    """A folder's path or a URI: embedded://drift-tiny, file:///path, hf://owner/name."""
    revision: str | None = None
    """Branch, tag or commit of an hf:// model."""
    served_model_name: str | None = None
    """The name that clients use; None takes the model's own."""
    node: str = "node-0"
    """The name that it tells routers and operators."""
    role: wire.Role = wire.Role.MIXED
    """Told with its report; a node does both phases whatever it says."""

    host: str = "127.0.0.1"
    """Address that clients and routers connect to."""
    port: Port = 8000
    """0 takes a free port; the node prints the one it got."""
    control_host: str = "127.0.0.1"
    """Address of the control port."""
    control_port: Port = 0
    """For operators and routers; 0 takes a free one."""
    control_token: str = ""
    """Empty: taken from the environment (`DRIFT_CONTROL_TOKEN`); else the node makes one and tells nobody, so that
    nobody can use the control port."""
    api_key_sha256: tuple[str, ...] = ()
    """Hex SHA-256 of every accepted API key; empty accepts everybody."""

    device: Literal["auto", "cpu", "cuda", "sim"] = "auto"
    """sim: takes as long as the hardware of the next two, and says what depends on nothing but the prompt."""
    sim_hardware: str = "h200"
    """Which GPU a simulated device stands for: h200 or h100."""
    sim_model: str = "llama-8b"
    """A shipped shape, or a Hugging Face model's folder: whose times, not whose words."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of weights and KV cache."""
    share: Share = Share()
    """Its part of the machine."""
    threads: Positive | None = None
    """For computing on a CPU."""
    max_model_len_tokens: Positive | None = None
    """Longest prompt and answer together."""
    kv_bytes: Positive | None = None
    """Of the KV cache."""
    page_tokens: Annotated[int, msgspec.Meta(ge=1, le=256)] = 16
    """Tokens of a KV page: what the prefix cache is shared by."""
    prefix_cache: bool = True
    """Whether prompts that begin alike are computed once."""

    mode: wire.Mode = wire.Mode.AUTO
    """How the device is shared between prefill and decode."""
    slack: wire.Slack = wire.Slack.STRICT
    """What early tokens buy: nothing, or time for a longer step."""
    min_dwell_s: Annotated[float, msgspec.Meta(ge=0, le=600)] = 0.1
    """How long a split stands before decode gets fewer SMs. A change costs less than a millisecond (one layer that is
    under way); the default is a few decode steps, in which the prediction that asked for it has been tried."""
    batch_table: str = ""
    """For mode batch-table: ROWS:DECODE_SMS,... as in 1:16,8:32; empty: tuned with the latency model."""
    batch_table_context_tokens: Positive = 1024
    """The context of a decode row for which that table is tuned."""
    max_running: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 64
    """Requests that decode at the same time."""
    max_waiting: Annotated[int, msgspec.Meta(ge=0, le=100_000)] = 512
    """Requests that may wait beyond those; one more is answered 429."""
    chunk_tokens: Positive | None = None
    """Most tokens of one fused step; None: from the TBT target and the measured speed."""
    slo: SloOptions = SloOptions()
    """The promise."""
    timeline_file: str | None = None
    """Where to write what the lanes did, when the node stops: .json for Perfetto, .svg for a picture of the end."""
    tracing: TracingOptions = TracingOptions()
    """Spans for OpenTelemetry."""
    latency_file: str | None = None
    """Where the latency model is kept from one run to the next; None: the node calibrates at every start."""

    max_body_bytes: Positive = 8 * 1024 * 1024
    """Of one request."""
    drain_timeout_s: Annotated[float, msgspec.Meta(ge=0)] = 30.0
    """For requests in flight once the node is told to stop."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least that is logged."""


def parse(document: str | bytes) -> NodeOptions:
    """Raises OptionsError that names the field, the value and the limit."""
    try:
        return msgspec.json.decode(document, type=NodeOptions)
    except msgspec.DecodeError as error:
        raise OptionsError(f"node options: {error}") from error


def with_token(options: NodeOptions, environ: Mapping[str, str]) -> NodeOptions:
    """The environment's control token where the options have none."""
    return msgspec.structs.replace(
        options, control_token=options.control_token or environ.get(TOKEN_VARIABLE, "")
    )


def dump(options: NodeOptions) -> str:
    return msgspec.json.encode(options).decode()
