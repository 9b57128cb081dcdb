"""How a router is asked to run: one JSON document, so that a terminal, a pod and a test start it the same way."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated

import msgspec

from drift_engine.errors import OptionsError
from drift_engine.options import TOKEN_VARIABLE
from drift_engine.tracing.options import TracingOptions
from drift_router.snapshots import Policy

Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Positive = Annotated[int, msgspec.Meta(ge=1)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=86_400)]

_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_SERVICE = re.compile(f"{_LABEL}/{_LABEL}")


class Promise(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What requests without targets of their own are promised. Defaults are those of the DriftService resource."""

    ttft_ms: Annotated[float, msgspec.Meta(gt=0)] = 400.0
    """Most milliseconds to the first token."""
    ttft_per_token_ms: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """Added for each prompt token that no node holds."""
    tbt_ms: Annotated[float, msgspec.Meta(gt=0)] = 80.0
    """Most milliseconds between two tokens."""


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one client may make the router hold."""

    head_bytes: Positive = 32 * 1024
    """Of a request's line and headers. 8 KiB is usual; traces, cookies and proxies add to it."""
    headers: Positive = 128
    """Of one request."""
    body_bytes: Positive = 8 * 1024 * 1024
    """As the nodes' own: a million tokens as text."""
    held_body_bytes: Positive = 256 * 1024 * 1024
    """Of all requests in flight together; one more is answered 503."""
    connections: Positive = 16_384
    """Of clients; one more is closed."""
    pipelined: Positive = 16
    """Requests on one connection that wait for the one before; then it is not read."""
    buffered_bytes: Positive = 256 * 1024
    """Of an answer that its client does not read; then its node is not read."""


class Patience(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long the router waits for what."""

    head_s: Seconds = 15.0
    """From the first byte of a request to the end of its headers."""
    body_s: Seconds = 60.0
    """From there to the end of its body."""
    kept_alive_s: Seconds = 75.0
    """For the next request on a connection; more than nginx's own 60, so that a proxy closes first."""
    stalled_s: Seconds = 30.0
    """For a client that takes no byte of its answer."""
    connect_s: Seconds = 3.0
    """For a connection to a node."""
    first_byte_s: Seconds = 600.0
    """From a node, for a request that it took: a long queue is no fault."""
    idle_s: Seconds = 60.0
    """Between two bytes of a node's answer that has begun."""
    queue_s: Seconds = 10.0
    """For room under the promise; then 429."""
    leave_s: Annotated[float, msgspec.Meta(ge=0, le=86_400)] = 0.0
    """From the word to stop on: the router says that it is not ready, and serves whoever comes nevertheless. As long
    as a load balancer takes to notice; where Kubernetes is one, some seconds."""
    drain_s: Annotated[float, msgspec.Meta(ge=0, le=86_400)] = 30.0
    """From there on, for requests in flight."""


class RouterOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that a router can be told."""

    host: str = "127.0.0.1"
    """Address that clients connect to."""
    port: Port = 8000
    """0 takes a free port; the router prints the one it got."""
    admin_host: str = "127.0.0.1"
    """Address of the admin port."""
    admin_port: Port = 0
    """Health, metrics and control; 0 takes a free one."""
    control_token: str = ""
    """Shown to the nodes, and asked of whoever uses this router's own control. Empty: taken from the environment
    (`TOKEN_VARIABLE`); none there: nodes are not asked for reports or events, and nobody controls this router."""
    nodes: tuple[str, ...] = ()
    """URLs of OpenAI-compatible servers; `URL,CONTROL_URL` for one of ours; `URL,events=URL,replay=URL` for vLLM's
    that tells of its cache; with `NAME=` in front it is called so."""
    nodes_file: str | None = None
    """Watched for changes; not beside `nodes_service`."""
    nodes_service: str | None = None
    """`NAMESPACE/NAME` of a Kubernetes Service whose endpoints are the nodes; its ports are named `api` and
    `control`. Watched with the service account of the pod that the router runs in."""
    keys_file: str | None = None
    """Accepted API keys with their limits; None, and none below: whatever a client sends is the nodes' affair."""
    keys_dir: str | None = None
    """A folder, as Kubernetes mounts a Secret, whose every file is an accepted API key: its name is the client's,
    what it holds is the key. Not beside `keys_file`."""
    api_key_sha256: tuple[str, ...] = ()
    """Hex SHA-256 of accepted API keys that have no limits; not beside a file or a folder."""
    policy: Policy = Policy.CACHE_AWARE
    """Which node a request goes to."""
    promise: Promise = Promise()
    """What holds until another one is told (`PUT /control/v1/promise`)."""
    session_header: str | None = None
    """Requests with the same value of it stay together where that costs little."""
    session_ttl_s: Seconds = 3600.0
    """How long after its last request a session is remembered."""
    queue: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 1024
    """Requests that wait for room under the promise; one more is answered 429."""
    retries: Annotated[int, msgspec.Meta(ge=0, le=10)] = 2
    """Further nodes that a request is offered before its first byte, and that a broken stream is resumed on."""
    index_bytes: Positive = 512 * 1024 * 1024
    """Of the prefix index; every worker has its own."""
    workers: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    """Processes that serve the port together. More than one: a parent serves the admin port and restarts them."""
    tls_certificate: str | None = None
    """File of the certificate chain; with it clients speak TLS."""
    tls_key: str | None = None
    """File of its key; not needed where it is in the same file."""
    limits: Limits = Limits()
    """Bounds of memory."""
    patience: Patience = Patience()
    """Deadlines."""
    tracing: TracingOptions = TracingOptions()
    """Spans for OpenTelemetry."""
    log_level: str = "info"
    """The least that is logged: debug, info, warning or error."""

    def __post_init__(self) -> None:
        if self.nodes_service is not None and not _SERVICE.fullmatch(self.nodes_service):
            raise ValueError(f"nodes_service: {self.nodes_service[:80]!r} is not of the form NAMESPACE/NAME")
        if self.nodes_service is not None and self.nodes_file is not None:
            raise ValueError(
                "nodes_service: not beside nodes_file: only one of them can say which nodes there are"
            )
        if self.keys_dir is not None and self.keys_file is not None:
            raise ValueError(
                "keys_dir: not beside keys_file: only one of them can say which keys are accepted"
            )


def parse(document: str | bytes) -> RouterOptions:
    """Raises OptionsError that names the field, the value and the limit."""
    try:
        return msgspec.json.decode(document, type=RouterOptions)
    except msgspec.DecodeError as error:
        raise OptionsError(f"router options: {error}") from error


def read(document: object) -> RouterOptions:
    """From plain data. Raises OptionsError."""
    try:
        return msgspec.convert(document, RouterOptions)
    except msgspec.ValidationError as error:
        raise OptionsError(f"router options: {error}") from error


def with_token(options: RouterOptions, environ: Mapping[str, str]) -> RouterOptions:
    """The environment's control token where the options have none."""
    return msgspec.structs.replace(
        options, control_token=options.control_token or environ.get(TOKEN_VARIABLE, "")
    )


def for_worker(options: RouterOptions, port: int) -> RouterOptions:
    """One worker's part of all that is bounded. What comes from files is told to it, not read by it."""
    workers, limits = options.workers, options.limits
    return msgspec.structs.replace(
        options,
        port=port,
        nodes=(),
        nodes_file=None,
        nodes_service=None,
        keys_file=None,
        keys_dir=None,
        api_key_sha256=(),
        queue=-(-options.queue // workers),
        limits=msgspec.structs.replace(
            limits,
            connections=-(-limits.connections // workers),
            held_body_bytes=max(limits.body_bytes, limits.held_body_bytes // workers),
        ),
    )


def dump(options: RouterOptions) -> str:
    """What `parse` reads."""
    return msgspec.json.encode(options).decode()
