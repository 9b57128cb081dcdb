"""What the processes of a node say to each other, as typed data.

The api process sends `ToCore` messages and the core process answers with `FromCore` messages over one local
ZeroMQ pair, each message one msgpack frame (`encode`, `decode_to_core`, `decode_from_core`). The router and the
operator read the same report and event types over HTTP. This module is free of torch, so they can import it.

Times named `*_s` on these messages are `time.monotonic()` seconds of the node's machine: both processes share it.
"""

from __future__ import annotations

import enum
from typing import Annotated, Any

import msgspec

UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for foreign bytes that are no such document: also where a text in it is no UTF-8, and where it
is nested a thousand levels deep."""


Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
"""Of a report that somebody else wrote: what is beyond can't always be made a float, or printed. Refused as it is
read."""


class Role(enum.StrEnum):
    """What a node does. Only MIXED is served today; the others are the seam for disaggregation."""

    MIXED = "mixed"
    PREFILL = "prefill"
    DECODE = "decode"


class Mode(enum.StrEnum):
    """How a node shares its device between prefill and decode."""

    AUTO = "auto"  # whichever of the next two serves the present load better
    MUX = "mux"  # decode on one part of the device, prefill by layers on the other
    FUSED = "fused"  # decode rows and prefill chunks in one pass
    OVERLAP = "overlap"  # as mux, on two lanes that share all of the device
    PREFILL_FIRST = "prefill-first"  # baseline: whole prompts before any decode
    BATCH_TABLE = "batch-table"  # baseline: SGLang's split by the number of decode rows
    MUXWISE = "muxwise"  # baseline: MuxWise's policy
    SOLO_PREFILL = "solo-prefill"  # baseline: whole prompts before any decode, one at a time
    SOLO_DECODE = "solo-decode"  # baseline: no prefill while anything decodes


class Slack(enum.StrEnum):
    """When a token is late."""

    STRICT = "strict"  # later than one TBT target after the last one
    CHAIN = "chain"  # the k-th after the first: later than k targets after it, within a bound


class Split(msgspec.Struct, frozen=True):
    """Two disjoint parts of a device, in streaming multiprocessors (on a CPU: cores)."""

    decode_sms: Int64
    prefill_sms: Int64


class Sharing(enum.StrEnum):
    """What keeps the two parts of a device apart."""

    CORES = "cores"  # of a CPU: the threads of each part are pinned to its own
    BALANCED = "balanced"  # green contexts with workqueues of their own
    BY_COUNT = "by-count"  # green contexts
    OVERLAP = "overlap"  # only the streams' priorities: both parts are the whole device
    SIMULATED = "simulated"  # nothing: they only take their time
    NONE = "none"  # it has no parts


class Activity(enum.StrEnum):
    """What a device does at a moment."""

    DECODE = "decode"  # decode steps alone
    PREFILL = "prefill"  # prefills alone
    FUSED = "fused"  # both in one pass
    MUX = "mux"  # both on their parts of the device


class FinishReason(enum.StrEnum):
    STOP = "stop"  # an end-of-sequence or stop token, or the grammar is complete
    LENGTH = "length"  # max_tokens or the context limit
    CANCELLED = "cancelled"  # the client went away, or a stop string was found by the api process
    ABORTED = "aborted"  # the node gave the request up: see `Output.error`


class GrammarKind(enum.StrEnum):
    JSON_SCHEMA = "json_schema"
    JSON_OBJECT = "json_object"
    REGEX = "regex"
    LARK = "lark"


class Grammar(msgspec.Struct, frozen=True):
    """A constraint on the generated text, in llguidance's terms."""

    kind: GrammarKind
    text: str = ""


class Sampling(msgspec.Struct, frozen=True, omit_defaults=True):
    """How the tokens of one request are drawn. Bounds are checked by the api process."""

    max_tokens: int
    min_tokens: int = 0
    temperature: float = 1.0  # 0 is greedy
    top_p: float = 1.0
    top_k: int = 0  # 0 is off
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0  # the api process draws one where the client gave none
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    logprobs: int | None = None  # None: no log probabilities; k: the drawn token's and the k likeliest
    logit_bias: dict[int, float] = {}
    grammar: Grammar | None = None


class Targets(msgspec.Struct, frozen=True):
    """A node's promise. The time to the first token grows with the prompt's uncached tokens."""

    ttft_ms: float
    ttft_per_token_ms: float
    tbt_ms: float


class Slo(msgspec.Struct, frozen=True, omit_defaults=True):
    """Targets of one request; None takes the node's."""

    ttft_ms: float | None = None
    tbt_ms: float | None = None


class Submit(msgspec.Struct, frozen=True, tag=True):
    """A request. `token_ids` is the prompt; `salt` keeps tenants' cached prefixes apart.

    With `drawn_token_ids` it goes on as if it had drawn them here. Outputs bring what comes behind them; one without
    tokens says that they had ended the answer.
    """

    request_id: str
    token_ids: list[int]
    sampling: Sampling
    arrival_s: float
    slo: Slo = Slo()
    priority: int = 0  # higher is served first
    salt: str = ""
    role: Role = Role.MIXED
    drawn_token_ids: list[int] = []
    traced: bool = False  # its outputs tell when its prompt was computed


class Cancel(msgspec.Struct, frozen=True, tag=True):
    request_id: str


class FlushCache(msgspec.Struct, frozen=True, tag=True):
    """Forget every cached prefix that no running request uses."""


class SetBounds(msgspec.Struct, frozen=True, tag=True):
    """Which splits the planner may take until a time; the last word counts. `epoch` numbers the words."""

    epoch: int
    decode_sms_min: int
    decode_sms_max: int
    until_s: float


class SetTargets(msgspec.Struct, frozen=True, tag=True):
    """The node's promise from now on, also to running requests without targets of their own."""

    targets: Targets


class Shutdown(msgspec.Struct, frozen=True, tag=True):
    """End the core now. Draining is the api process's affair: it stops submitting and waits."""


ToCore = Submit | Cancel | FlushCache | SetBounds | SetTargets | Shutdown


class Loading(msgspec.Struct, frozen=True, tag=True):
    """Progress of start-up; `done` of `total` are in the stage's own unit (bytes, tensors)."""

    stage: str
    done: int
    total: int


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The core serves from here on."""

    architecture: str
    parameters: int
    vocab_size: int
    max_model_len_tokens: int
    eos_token_ids: tuple[int, ...]
    device: str  # "cpu", "cuda" or "sim"
    hardware: str  # as the device names itself
    dtype: str
    threads: int
    page_tokens: int
    kv_pages: int
    kv_bytes: int
    mode: Mode
    load_s: float
    splits: tuple[Split, ...] = ()  # into which the device can be split; empty: not at all
    sharing: Sharing = Sharing.NONE
    sharing_reason: str = ""  # why this and nothing better


class TokenLogprobs(msgspec.Struct, frozen=True, array_like=True):
    """Log probabilities under the model's own distribution (before penalties and temperature)."""

    logprob: float
    top_ids: tuple[int, ...] = ()
    top_logprobs: tuple[float, ...] = ()


class SplitCost(msgspec.Struct, frozen=True):
    """What passes of each phase take on its part of the device when they run alone, in seconds: the formulas of the
    latency model, whose coefficients are neither negative nor ever grow with the number of SMs."""

    decode_sms: Int64
    prefill_sms: Int64
    prefill_s: tuple[float, float, float, float]  # a, b, c, d of a*sum(n*n) + b*sum(n*r) + c*sum(n) + d
    decode_s: tuple[float, float, float]  # a, b, c of a*sum(context) + b*rows + c
    contention: float = 1.0  # by which a decode step usually takes longer beside a prefill


class Costs(msgspec.Struct, frozen=True, tag=True):
    """What the core knows of its speed by now. Told when that changed, and at most once a second."""

    splits: tuple[SplitCost, ...]  # one for each split that the mode may take, as far as anything is known
    whole: SplitCost | None  # each phase alone on all of the device; None: nothing is known yet


class Block(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A launch that computed tokens of a traced request's prompt: a pass, or the layers [first_layer, end_layer) of
    one that was cut; or several launches in a row, where a trace would have too many.
    """

    lane: str
    start_s: float
    end_s: float
    tokens: int
    """Of the request; of a cut pass told with its first layers only, so that a prompt's blocks add up."""
    decode_rows: int
    """That were in the same pass."""
    first_layer: int
    end_layer: int
    launches: int = 1


class Output(msgspec.Struct, frozen=True, omit_defaults=True):
    """New tokens of one request. The first output of a request carries `cached_tokens` of its prompt and `queued_s`.

    A stop or end-of-sequence token is among `token_ids` (it was computed and counts) and named by `stop_token`:
    its text is not part of the answer.
    """

    request_id: str
    token_ids: list[int]
    logprobs: list[TokenLogprobs] | None = None
    finish: FinishReason | None = None
    stop_token: int | None = None
    cached_tokens: int = 0
    error: str | None = None
    queued_s: float = 0.0  # from the request's arrival to its admission
    blocks: list[Block] = []  # of a traced request: what was computed of its prompt since the last output


class Ahead(msgspec.Struct, frozen=True, gc=False):
    """What goes before a prompt of up to so many uncached tokens that would come now."""

    prompt_tokens: Int64
    queued_tokens: Int64


class Stats(msgspec.Struct, frozen=True):
    """The core's state after a step. Counters only grow."""

    time_s: float
    running: int
    waiting: int
    queued_tokens: int  # uncached prompt tokens not yet computed, of waiting and running requests
    kv_pages_used: int  # held by requests or by the prefix cache
    kv_pages_held: int  # held by requests
    kv_pages_total: int
    steps_total: int = 0
    preemptions_total: int = 0
    prompt_tokens_total: int = 0
    cached_tokens_total: int = 0
    computed_prompt_tokens_total: int = 0
    generation_tokens_total: int = 0
    forward_s_total: float = 0.0  # in the model's forward, of all lanes
    overhead_s_total: float = 0.0  # everything else of the steps, sampling among it
    prefill_tokens_per_s: float = 0.0  # at the present split, over a chunk of 512; 0 before the first prefill
    tbt_per_request_s: float = 0.0  # what one more row like the last ones adds to a decode step; 0: unknown
    split: Split | None = None  # in use or last used; None: never split
    bounds_epoch: int = 0  # of the bounds that the planner keeps now; 0: none
    activity_s_total: dict[Activity, float] = {}  # how long the device did what
    prediction_errors: dict[str, float] = {}  # mean |predicted - observed| / observed, by kind of pass
    late_decode_share: float = 0.0  # of decode passes beside a prefill: longer than their predicted bound
    decode_context_tokens: int = 0  # of the running requests that decode
    ahead: tuple[
        Ahead, ...
    ] = ()  # by length, the shortest first; empty: all that is queued, whatever its length


class Step(msgspec.Struct, frozen=True, tag=True):
    """What one step of the core brought."""

    outputs: list[Output]
    stats: Stats


class Stored(msgspec.Struct, frozen=True, tag=True):
    """Pages of one chain became shareable. `block_hashes` follow `parent_hash` (None at the root)."""

    block_hashes: list[int]
    parent_hash: int | None
    token_ids: list[int]
    page_tokens: int


class Removed(msgspec.Struct, frozen=True, tag=True):
    block_hashes: list[int]


class Cleared(msgspec.Struct, frozen=True, tag=True):
    """Everything is gone."""


KvEvent = Stored | Removed | Cleared


class KvEvents(msgspec.Struct, frozen=True, tag=True):
    """Changes of the prefix cache. `sequence` numbers the first event; a gap means events were lost."""

    sequence: int
    events: list[KvEvent]


class Fault(msgspec.Struct, frozen=True, tag=True):
    """The core can't go on, or could not start. The process ends after sending it."""

    message: str


FromCore = Loading | Ready | Step | Costs | KvEvents | Fault

_encoder = msgspec.msgpack.Encoder()
_to_core: msgspec.msgpack.Decoder[ToCore] = msgspec.msgpack.Decoder(
    Submit | Cancel | FlushCache | SetBounds | SetTargets | Shutdown
)
_from_core: msgspec.msgpack.Decoder[FromCore] = msgspec.msgpack.Decoder(
    Loading | Ready | Step | Costs | KvEvents | Fault
)


def encode(message: ToCore | FromCore) -> bytes:
    """One frame."""
    return _encoder.encode(message)


def decode_to_core(frame: bytes) -> ToCore:
    """Raises msgspec.ValidationError for a frame of another protocol version."""
    return _to_core.decode(frame)


def decode_from_core(frame: bytes) -> FromCore:
    """Raises msgspec.ValidationError for a frame of another protocol version."""
    return _from_core.decode(frame)


class Report(msgspec.Struct, frozen=True):
    """`GET /control/v1/report`: what a router or an operator needs to know of a node."""

    node: str
    model: str
    role: Role
    mode: Mode
    ready: bool
    draining: bool
    in_flight: Int64  # requests accepted and not yet answered
    max_in_flight: Int64  # the most that it takes, every choice counted
    running: Int64
    waiting: Int64
    queued_tokens: Int64
    kv_usage: float
    kv_pages_total: Int64
    page_tokens: Int64
    max_model_len_tokens: Int64
    legal_splits: tuple[Split, ...]
    split: Split | None  # in use or last used
    epoch: Int64  # of the last set-point; 0: none came
    generation: Int64  # of the resource that it was made from
    applied: bool  # the core keeps that set-point's bounds now
    weight: float  # share of new requests that the operator wants here, 0 to 1
    slo: Targets
    prefill_tokens_per_s: float  # at the present split; 0 until a prefill was seen
    tbt_p50_ms: float
    tbt_p99_ms: float
    tbt_per_request_ms: float  # what one more request would add, by its latency model; 0: unknown
    kv_events_sequence: Int64
    uptime_s: float
    prompt_tokens_total: Int64 = 0
    cached_tokens_total: Int64 = 0  # of those, found in the prefix cache
    costs: tuple[SplitCost, ...] = ()  # of legal splits; those of which nothing is known are left out
    whole: SplitCost | None = None  # of the device undivided, each phase alone; None: nothing is known
    decode_context_tokens: Int64 = 0  # of the running requests that decode
    max_running: Int64 = 0  # requests that may run at once, memory permitting; 0: unknown
    bounds: tuple[Int64, Int64] | None = (
        None  # fewest and most decode SMs of that set-point; None: as the node likes
    )
    activity_s_total: dict[Activity, float] = {}  # how long the device did what, since the node's start
    ahead: tuple[Ahead, ...] = ()  # by length, the shortest first; who is longer waits for all that is queued


def to_builtins(value: Any) -> Any:
    """A wire type as plain JSON data."""
    return msgspec.to_builtins(value)
