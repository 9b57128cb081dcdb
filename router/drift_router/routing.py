"""From a request to a node and back: asks index and policy, and keeps the accounts that they live on.

The data plane calls one method at each turn of a request. Nothing here touches a socket.
"""

from __future__ import annotations

import enum
import random
from collections.abc import Callable

import msgspec

from drift_router import lessons, recent_decisions, wishes
from drift_router.admission import Admission, tenant_of
from drift_router.counters import Counters, Resumption, Tally, add
from drift_router.dataplane import heads, prompts
from drift_router.dataplane.prompts import Prompt
from drift_router.dataplane.requests import Headers, Request
from drift_router.dataplane.upstreams import Loss
from drift_router.gossip import Outbox, Word
from drift_router.index import hints
from drift_router.index.aliases import Aliases
from drift_router.index.prefixes import PrefixIndex
from drift_router.keys import Keys
from drift_router.lessons import Question
from drift_router.nodes.breaker import Failure
from drift_router.nodes.peers import Peers
from drift_router.nodes.registry import Handle, Registry
from drift_router.options import Promise, RouterOptions
from drift_router.policies import choosing
from drift_router.recent_decisions import RecentDecisions
from drift_router.sessions import Sessions
from drift_router.snapshots import Ask, Decision, IndexState, Policy
from drift_router.wishes import Wish

BYTES_PER_TOKEN = 4.0
"""Of a prompt's JSON, until nodes have counted some: English text in the usual vocabularies."""

BYTES_PER_TOKEN_GAIN = 0.05
"""Weight of one counted prompt. Estimate."""

MIN_COUNTED_TOKENS = 64
"""A shorter prompt is mostly template."""

FAILURES = {
    Loss.CONNECT: Failure.CONNECT,
    Loss.RESET: Failure.RESET,
    Loss.BROKEN: Failure.BROKEN,
    Loss.GARBAGE: Failure.GARBAGE,
    Loss.LATE: Failure.TIMEOUT,
}

LATE_SHARE = 0.01
"""Of a request's gaps that may be longer than its target: its own P99 is what counts, as in `drift bench`."""

OK = 200
TOO_MANY = 429
DRAINING = 503
SERVER_ERROR = 500

LEAST_TOLD_BYTES = 2048
"""Of a prompt whose blocks other workers are told of: 500 tokens are computed in some 20 ms, and telling of a shorter
one's blocks would cost 11 us on top of 3 (benchmarks/router/gossiping.py)."""


class Outcome(enum.StrEnum):
    """How a request ended."""

    DONE = "done"
    CANCELLED = "cancelled"  # its client left
    REFUSED = "refused"  # an error was answered instead
    BROKEN = "broken"  # the answer broke off


class Dispatch(msgspec.Struct):
    """A request on a node."""

    slot: int
    name: str
    ours: bool
    handle: Handle
    promised_tokens: int
    aliases: Aliases | None
    """Of a vLLM node that tells of its cache."""
    status: int = 0


class Routing:
    def __init__(
        self,
        options: RouterOptions,
        registry: Registry,
        index: PrefixIndex,
        keys: Keys | None,
        counters: Counters,
        outbox: Outbox | None = None,
        seed: int | None = None,
    ) -> None:
        """`outbox`: there are other workers, and what they should know goes there."""
        self.registry = registry
        self.index = index
        self.counters = counters
        self.decided = RecentDecisions()
        self._options = options
        self._admission = Admission(options, keys, counters)
        self._outbox = outbox
        self._peers = Peers(registry.peers)
        self._token = options.control_token.encode()
        self._sessions = Sessions(options.session_ttl_s)
        self._random = random.Random(seed)  # noqa: S311 - ties between nodes
        self._turn = 0
        self._bytes_per_token = BYTES_PER_TOKEN
        self._promise = options.promise
        self.aliases: Callable[[int], Aliases | None] = _unknown
        """Of the vLLM node with this slot."""
        self.ask: Callable[[Question], None] = _unasked
        """A vLLM node for tokens."""

    def promise(self, promise: Promise, number: int) -> None:
        """To requests that come from now on. `number`: how often it changed."""
        self._promise = promise
        self.counters.tally = Tally.fresh(promise.ttft_ms / 1e3, promise.tbt_ms / 1e3, number)

    def accept(self, found: Keys) -> None:
        """These API keys, from now on."""
        self._admission.accept(found)

    def forget(self, slot: int) -> None:
        """The slot's node is gone, or empty."""
        self._sessions.forget(slot)

    # a request comes

    def admit(self, request: Request, now_s: float) -> tuple[Wish, Prompt | None]:
        """Who asks for what. Raises Refusal."""
        return self._admission.admit(request, self._promise, self._bytes_per_token, now_s)

    # to a node

    def decide(self, wish: Wish, excluded: frozenset[int], now_s: float, *, begun: bool = False) -> Decision:
        nodes = self.registry.snapshot(now_s)
        matched: dict[int, int] = {}
        policy, key = self._options.policy, wish.key
        if wish.blocks is None:
            policy = Policy.LEAST_LOAD
        elif wish.blocks.names:
            held = self.index.match(wish.blocks.names, now_s)
            scale, ends = wish.tokens / max(1, wish.prompt_bytes), wish.blocks.ends
            if policy is Policy.CACHE_AWARE:
                key = wish.blocks.names[min(max(held.values(), default=0), len(ends) - 1)]
            matched = {slot: round(ends[count - 1] * scale) for slot, count in held.items()}
        ask = Ask(
            tokens=wish.tokens,
            matched_tokens=matched,
            key=key,
            ttft_s=wish.ttft_s,
            ttft_per_token_s=wish.ttft_per_token_s,
            tbt_s=wish.tbt_s,
            session_slot=None if wish.session is None else self._sessions.slot(wish.session, now_s),
            excluded=excluded,
            begun=begun,
        )
        self._turn += 1
        kept = self.decided.due(now_s)
        explain = wish.explain or (kept and len(nodes) <= recent_decisions.MOST_NODES)
        decision = choosing.choose(
            policy, ask, nodes, self._random.random(), turn=self._turn, explain=explain
        )
        if kept:
            self.decided.keep(ask, decision, nodes, now_s)
        add(self.counters.decisions, decision.reason)
        return decision

    def send(self, wish: Wish, decision: Decision, now_s: float) -> Dispatch | None:
        """The books of a request that goes to a node. None: the node has just left."""
        slot = decision.slot
        assert slot is not None
        handle = self.registry.sent(slot, decision.uncached_tokens, now_s)
        if handle is None:
            return None
        if wish.decision is None and wish.blocks is not None:
            wish.tally.requests += 1
        wish.decision = decision
        address = self.registry.address(slot)
        if wish.blocks is not None:
            self.index.sent(slot, wish.blocks.names, now_s)
            self.counters.prompt_tokens += wish.tokens
            self.counters.predicted_hit_tokens += min(wish.tokens, decision.matched_tokens)
        if wish.session is not None:
            self._sessions.served(wish.session, slot, now_s)
        if self._outbox is not None:
            self._outbox.sent(
                address.name, decision.uncached_tokens, self._news(wish, slot, decision), wish.session
            )
        return Dispatch(
            slot,
            address.name,
            address.control_url is not None,
            handle,
            decision.matched_tokens,
            self.aliases(slot) if address.events_url is not None else None,
        )

    def forwarded(self, headers: Headers, wish: Wish, dispatch: Dispatch) -> Headers:
        """What of the client's headers goes to the node, and what is ours to say."""
        made: Headers = []
        for pair in headers:
            name = pair[0]
            if name in (b"host", b"x-request-id") or (
                name.startswith(heads.OURS) and not wishes.passes(name, wish)
            ):
                continue
            if name == b"authorization" and self._admission.guarded:
                continue  # of this router's door
            made.append(pair)
        if dispatch.ours and self._token:
            made.append((b"x-drift-token", self._token))
            if wish.client is not None:
                made.append((b"x-drift-tenant", tenant_of(wish.client).encode()))
        return made

    # from and to other workers

    def _news(self, wish: Wish, slot: int, decision: Decision) -> list[int]:
        """Blocks that others should know to be there soon. Where there are events, others know what was there, and
        what is new of a prompt that was mostly known is seldom asked for before its events come.
        """
        if wish.blocks is None or wish.prompt_bytes < LEAST_TOLD_BYTES:
            return []
        known = 2 * decision.matched_tokens > wish.tokens
        if known and self.index.state(slot) is not IndexState.FALLBACK:
            return []
        return wish.blocks.names

    def heard(self, word: Word, now_s: float) -> None:
        for name, load in word.loads.items():
            self._peers.told(word.worker, name, load, now_s)
        for sent in word.sent:
            slot = self.registry.peer_sent(sent.node, sent.uncached_tokens, now_s)
            if slot is None:
                continue
            if sent.blocks:
                self.index.sent(slot, sent.blocks, now_s)
            if sent.session is not None:
                self._sessions.served(sent.session, slot, now_s)
        self.index.taught(word.ties)

    def tell(self, now_s: float) -> list[Word]:
        """What they should know by now: to be called soon after news, and as long as something is `told`."""
        self._peers.forget(now_s)
        return list(self._outbox.words(self.registry.loads(), now_s)) if self._outbox is not None else []

    @property
    def told(self) -> bool:
        """To them or by them: it has to be repeated, or forgotten."""
        return bool(self._peers) or (self._outbox is not None and self._outbox.stands)

    def has_other(self, excluded: frozenset[int], now_s: float) -> bool:
        return any(node.slot not in excluded for node in self.registry.snapshot(now_s))

    # from a node

    def answered(self, wish: Wish, dispatch: Dispatch, status: int, headers: Headers) -> None:
        """The answer's head is here."""
        dispatch.status = status
        if wish.blocks is None:
            return
        cached_tokens = 0 if wish.decision is None else wish.tokens - wish.decision.uncached_tokens
        for name, value in headers if dispatch.ours else ():
            if name == b"x-drift-pages" and (told := hints.parse(value)) is not None:
                self._learned(wish, told)
                self.registry.hit(dispatch.handle, dispatch.promised_tokens, told.cached_tokens)
                self.counters.confirmed_hit_tokens += told.cached_tokens
                cached_tokens = told.cached_tokens
                wish.counted_tokens = told.prompt_tokens
        if status == OK and wish.length_class is None:
            wish.length_class = wish.tally.answered(wish.counted_tokens, cached_tokens)

    def begun(self, wish: Wish, dispatch: Dispatch, request: Request, prompt: Prompt) -> None:
        """A vLLM node answers: how it spells the prompt is asked, where that is worth it."""
        aliases, text = dispatch.aliases, wish.blocks
        if aliases is None or text is None or not prompt.single:
            return
        if not lessons.worth(self.index.unknown_bytes(text), text.text_bytes):
            return

        def learned(token_ids: list[int]) -> None:
            if (told := lessons.hints(token_ids, prompt.model, aliases)) is not None:
                self._learned(wish, told)

        if (token_ids := prompts.token_ids(prompt)) is not None:
            learned(token_ids)
            return
        shown = None if self._admission.guarded else request.header(b"authorization")
        address = self.registry.address(dispatch.slot)
        self.ask(
            Question(address.url, prompts.tokenizing(request.body), (shown or b"").decode("latin-1"), learned)
        )

    def _learned(self, wish: Wish, told: hints.Hints) -> None:
        """Which pages the prompt has."""
        assert wish.blocks is not None
        ties = self.index.learned(wish.blocks, told)
        if self._outbox is not None and wish.prompt_bytes >= LEAST_TOLD_BYTES:
            self._outbox.learned(ties)
        if told.prompt_tokens >= MIN_COUNTED_TOKENS:
            seen = wish.prompt_bytes / told.prompt_tokens
            self._bytes_per_token += BYTES_PER_TOKEN_GAIN * (seen - self._bytes_per_token)

    def first_byte(self, wish: Wish, dispatch: Dispatch, now_s: float, *, streamed: bool) -> None:
        self.registry.first_byte(dispatch.handle, now_s, timed=streamed)
        if self._outbox is not None:
            self._outbox.changed()
        if streamed and wish.ttft_by_s is None:
            ttft_s = now_s - wish.arrival_s
            uncached = wish.decision.uncached_tokens if wish.decision is not None else 0
            wish.ttft_by_s = wish.ttft_s + wish.ttft_per_token_s * uncached
            wish.tally.ttft.observe(ttft_s)
            wish.tally.ttft_judged(wish.length_class, ttft_s <= wish.ttft_by_s)

    def gap(self, wish: Wish, dispatch: Dispatch, gap_s: float, now_s: float) -> None:
        """Between two writes of tokens."""
        self.registry.token_gap(dispatch.handle, gap_s, now_s)
        wish.tally.tbt.observe(gap_s)
        wish.gaps += 1
        wish.late_gaps += gap_s > wish.tbt_s

    def failed(self, dispatch: Dispatch, loss: Loss, now_s: float) -> None:
        if self._outbox is not None:
            self._outbox.changed()
        failure = FAILURES.get(loss)
        if loss is Loss.REFUSED and dispatch.status >= SERVER_ERROR:
            failure = Failure.DRAINING if dispatch.status == DRAINING else Failure.SERVER_ERROR
        if failure is None:
            self.registry.finished(dispatch.handle, now_s)
        else:
            self.registry.failed(dispatch.handle, failure, now_s)
            self.counters.node_failed(dispatch.name, failure)

    def ended(
        self,
        wish: Wish,
        dispatch: Dispatch | None,
        outcome: Outcome,
        status: int,
        drawn_tokens: int,
        now_s: float,
    ) -> None:
        """The last that is heard of a request."""
        if dispatch is not None:
            if self._outbox is not None:
                self._outbox.changed()
            if outcome is Outcome.DONE and status >= SERVER_ERROR:
                self.registry.failed(dispatch.handle, Failure.SERVER_ERROR, now_s)
                self.counters.node_failed(dispatch.name, Failure.SERVER_ERROR)
            else:
                self.registry.finished(dispatch.handle, now_s)
        self._admission.settle(wish, drawn_tokens, now_s)
        if outcome is not Outcome.CANCELLED:
            add(self.counters.requests, status)
            wish.tally.overloaded += status == TOO_MANY
            wish.tally.failed += status >= SERVER_ERROR
        wish.tally.output_tokens += drawn_tokens
        if wish.gaps and outcome is Outcome.DONE:
            wish.tally.tbt_judged(wish.late_gaps <= LATE_SHARE * wish.gaps)

    def refused(self, status: int) -> None:
        """The router itself would not take it."""
        add(self.counters.requests, status)
        self.counters.tally.failed += status >= SERVER_ERROR

    def resumed(self, outcome: Resumption) -> None:
        """What became of a stream that broke."""
        add(self.counters.resumes, outcome)

    def explained(self, wish: Wish, dispatch: Dispatch | None) -> Headers:
        """For a trusted client that asked why."""
        if not wish.explain or wish.decision is None or dispatch is None:
            return []
        decision = wish.decision
        document = {"node": dispatch.name, **msgspec.to_builtins(decision)}
        return [(b"x-drift-decision", msgspec.json.encode(document))]

    def predicted_s(self, wish: Wish, now_s: float) -> float:
        """The time to its first token on the best node, if it were sent now."""
        return self.decide(wish, frozenset(), now_s).ttft_s


def _unknown(_: int) -> None: ...


def _unasked(_: Question) -> None: ...
