"""A request inside the core, from submission to its last token."""

from __future__ import annotations

from dataclasses import dataclass, field

from drift_engine import wire
from drift_engine.cache import Match, Sequence
from drift_engine.core.grammars import Matcher
from drift_engine.devices.base import Draw, Drawn
from drift_engine.scheduling import views


@dataclass(slots=True)
class Promise:
    """The node's targets; they may change while it serves."""

    targets: wire.Targets

    @property
    def tbt_s(self) -> float:
        return self.targets.tbt_ms / 1e3

    def ttft_s(self, prompt_tokens: int) -> float:
        return (self.targets.ttft_ms + self.targets.ttft_per_token_ms * prompt_tokens) / 1e3


@dataclass(slots=True, eq=False)
class Request:
    """`tokens` is the prompt and what was drawn since.

    [0, computed)              their KV is in the pages of `sequence`
    [computed, len(tokens))    still to be computed; exactly one once the prompt is in
    """

    submit: wire.Submit
    promise: Promise
    eos_token_ids: frozenset[int]
    matcher: Matcher | None = None
    tokens: list[int] = field(init=False)
    stop_ids: frozenset[int] = field(init=False)
    sequence: Sequence | None = None  # None while waiting
    computed: int = 0
    first_cached_tokens: int | None = None  # reused at the first admission; told with the first output
    queued_s: float = 0.0  # from arrival to the first admission; told with the first output
    cancelled: bool = False
    prompt_tokens: int = field(init=False)
    drawn_tokens: int = 0

    def __post_init__(self) -> None:
        self.tokens = list(self.submit.token_ids)
        self.prompt_tokens = len(self.tokens)
        own = frozenset(self.submit.sampling.stop_token_ids)
        self.stop_ids = own if self.submit.sampling.ignore_eos else own | self.eos_token_ids

    @property
    def request_id(self) -> str:
        return self.submit.request_id

    @property
    def deadline_s(self) -> float:
        """Of its next token while it waits: a resumed request's is long overdue."""
        if self.drawn_tokens:
            return self.submit.arrival_s
        own_ms = self.submit.slo.ttft_ms
        target_s = self.promise.ttft_s(self.prompt_tokens) if own_ms is None else own_ms / 1e3
        return self.submit.arrival_s + target_s

    @property
    def tbt_target_s(self) -> float:
        own_ms = self.submit.slo.tbt_ms
        return self.promise.tbt_s if own_ms is None else own_ms / 1e3

    def waiting_view(self, cached: Match) -> views.Waiting:
        return views.Waiting(
            self.request_id,
            len(self.tokens),
            cached.tokens,
            cached.idle_pages,
            self.submit.arrival_s,
            self.deadline_s,
            self.submit.priority,
        )

    def running_view(self) -> views.Running:
        return views.Running(
            self.request_id,
            self.computed,
            len(self.tokens) - self.computed,
            self.submit.arrival_s,
            self.tbt_target_s,
            self.submit.priority,
            self._blind_tokens(),
        )

    def _blind_tokens(self) -> int:
        """What is allowed next may depend on what was drawn last: on its grammar, or on how many there are."""
        sampling = self.submit.sampling
        if self.matcher is not None or self.drawn_tokens < sampling.min_tokens:
            return 1
        return max(1, sampling.max_tokens - self.drawn_tokens)

    def draw(self) -> Draw:
        """How the token behind `tokens` is to be drawn."""
        sampling = self.submit.sampling
        early = self.drawn_tokens < sampling.min_tokens
        banned = tuple(self.stop_ids) if early else ()
        bitmask = self.matcher.bitmask() if self.matcher is not None else None
        return Draw(sampling, self.tokens, self.prompt_tokens, banned, bitmask)

    def take(self, drawn: Drawn, max_model_len_tokens: int) -> tuple[wire.FinishReason | None, int | None]:
        """Appends a drawn token; returns why the request ends now, and by which stop token."""
        sampling = self.submit.sampling
        self.tokens.append(drawn.token_id)
        self.drawn_tokens += 1
        if drawn.token_id in self.stop_ids and self.drawn_tokens > sampling.min_tokens:
            return wire.FinishReason.STOP, drawn.token_id
        if self.matcher is not None and self.matcher.advance(drawn.token_id):
            return wire.FinishReason.STOP, None
        if self.drawn_tokens >= sampling.max_tokens or len(self.tokens) >= max_model_len_tokens:
            return wire.FinishReason.LENGTH, None
        return None, None
