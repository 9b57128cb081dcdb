"""A request inside the core, from submission to its last token."""

from __future__ import annotations

from dataclasses import dataclass, field

from drift_engine import wire
from drift_engine.cache import KvCache, Match, Sequence
from drift_engine.core.grammars import Matcher
from drift_engine.devices.base import Draw, Drawn
from drift_engine.scheduling import slack, views


@dataclass(slots=True)
class Promise:
    """The node's targets; they may change while it serves."""

    targets: wire.Targets
    slack: wire.Slack = wire.Slack.STRICT

    @property
    def tbt_s(self) -> float:
        return self.targets.tbt_ms / 1e3

    def ttft_s(self, uncached_tokens: int) -> float:
        return (self.targets.ttft_ms + self.targets.ttft_per_token_ms * uncached_tokens) / 1e3


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
    marks: tuple[int, ...] = ()  # of the prompt, by `scheduling.sharing`
    request_id: str = field(init=False)
    arrival_s: float = field(init=False)
    priority: int = field(init=False)
    deadline_s: float = field(
        init=False
    )  # of its first token; of a resumed request its arrival: long overdue
    tbt_target_s: float = field(init=False)
    due_s: float = field(init=False)  # of its next token
    tokens: list[int] = field(init=False)
    stop_ids: frozenset[int] = field(init=False)
    sequence: Sequence | None = None  # None while waiting
    computed: int = 0
    first_cached_tokens: int | None = (
        None  # of its prompt, at the first admission; told with the first output
    )
    queued_s: float = 0.0  # from arrival to the first admission; told with the first output
    blocks: list[wire.Block] = field(default_factory=list)  # of a traced one: told with the next output
    cancelled: bool = False
    prompt_tokens: int = field(init=False)
    drawn_tokens: int = 0
    blind_tokens: int = field(init=False)  # that it may draw before anybody must look at them
    last_s: float | None = None  # when the last token was drawn; None: none since it was admitted
    chain_s: float = 0.0  # when the first of them was,
    chain_tokens: int = 0  # and how many came after it
    seen_version: int = -1  # of the prefix cache, in which the view of the waiting request was found
    seen: views.Waiting | None = None
    cached: Match | None = None  # when it was seen
    uncached_tokens: int = field(init=False)  # of `tokens`, when it was seen

    def __post_init__(self) -> None:
        self.tokens = list(self.submit.token_ids)
        self.prompt_tokens = self.uncached_tokens = len(self.tokens)
        own = frozenset(self.submit.sampling.stop_token_ids)
        self.stop_ids = own if self.submit.sampling.ignore_eos else own | self.eos_token_ids
        self.request_id, self.priority = self.submit.request_id, self.submit.priority
        self.arrival_s = self.submit.arrival_s
        self.blind_tokens = self._blind_tokens()
        self.settle()

    def resume(self, max_model_len_tokens: int) -> wire.FinishReason | None:
        """Takes what it drew on another node; returns why that ended it, if it did. Raises GrammarError."""
        for token_id in self.submit.drawn_token_ids:
            finish, _ = self.take(Drawn(token_id), max_model_len_tokens)
            if finish is not None:
                return finish
        self.blind_tokens = self._blind_tokens()
        self.settle()
        return None

    @property
    def told_tokens(self) -> int:
        """How many were drawn here."""
        return self.drawn_tokens - len(self.submit.drawn_token_ids)

    def settle(self) -> None:
        """What follows from the promise and the cache, which may have changed, and from what the request has.

        The first token's deadline is that of what was not cached, as whoever judges it counts.
        """
        own, promise = self.submit.slo, self.promise
        self.tbt_target_s = promise.tbt_s if own.tbt_ms is None else own.tbt_ms / 1e3
        self.deadline_s = self.arrival_s
        if not self.drawn_tokens:
            found_tokens = len(self.tokens) - self.uncached_tokens
            cached_tokens = found_tokens if self.first_cached_tokens is None else self.first_cached_tokens
            promised_s = promise.ttft_s(self.prompt_tokens - cached_tokens)
            self.deadline_s += promised_s if own.ttft_ms is None else own.ttft_ms / 1e3
        self.due_s = self._due_s()
        self.seen_version = -1

    def drew(self, tokens: int, now_s: float) -> None:
        """So many tokens were drawn and told."""
        if self.last_s is None:
            self.chain_s, self.chain_tokens = now_s, -1
        self.last_s = now_s
        self.chain_tokens += tokens
        self.blind_tokens = self._blind_tokens()
        self.due_s = self._due_s()

    def rest(self) -> None:
        """Back in the line: its chain of tokens begins anew when it goes on."""
        self.computed, self.last_s = 0, None
        self.settle()

    def waiting_view(self, cache: KvCache) -> views.Waiting:
        """What is cached is looked up once for every version of the cache."""
        if self.seen is None or self.seen_version != cache.version:
            self.cached = cached = cache.match(self.tokens, self.submit.salt, self.cached)
            if len(self.tokens) - cached.tokens != self.uncached_tokens:
                self.uncached_tokens = len(self.tokens) - cached.tokens
                self.settle()
            self.seen_version = cache.version
            self.seen = views.Waiting(
                self.request_id,
                len(self.tokens),
                cached.tokens,
                cached.idle_pages,
                self.arrival_s,
                self.deadline_s,
                self.priority,
                self.marks,
            )
        return self.seen

    @property
    def prefills(self) -> bool:
        """There is more to be computed than the token that was drawn last."""
        return self.computed < self.prompt_tokens or len(self.tokens) - self.computed > 1

    def take_blocks(self) -> list[wire.Block]:
        """What was not told of it."""
        blocks, self.blocks = self.blocks, []
        return blocks

    def left_behind(self, tokens: int) -> tuple[int, int]:
        """What is still to be computed when so many more tokens are, and behind how many."""
        computed = self.computed + tokens
        return len(self.tokens) - computed, computed

    def running_view(self) -> views.Running:
        return views.Running(
            self.request_id,
            self.computed,
            len(self.tokens) - self.computed,
            self.arrival_s,
            self.tbt_target_s,
            self.due_s,
            self.priority,
            self.blind_tokens,
            self.deadline_s,
        )

    def _due_s(self) -> float:
        if self.last_s is None:
            return self.deadline_s
        return slack.due_s(
            self.promise.slack,
            self.tbt_target_s,
            last_s=self.last_s,
            first_s=self.chain_s,
            tokens_since_first=self.chain_tokens,
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
