"""One request's way through the router: to a node, to another where that fails, and back to its client.

Until the first byte of an answer went to the client a failed request is simply offered to another node. After it, a
stream of one of our nodes goes on at another: the tokens that the client has seen are handed over with the prompt.
"""

from __future__ import annotations

import enum
import logging
import random
from typing import TYPE_CHECKING, Protocol

from drift_router.counters import Rejection, Resumption, add
from drift_router.dataplane import heads, prompts, refusals, usages
from drift_router.dataplane.clients import Client
from drift_router.dataplane.prompts import Prompt
from drift_router.dataplane.refusals import Refusal
from drift_router.dataplane.requests import Headers, Request
from drift_router.dataplane.streams import NotMarked, Watched
from drift_router.dataplane.trails import Trail
from drift_router.dataplane.upstreams import Loss, Upstream
from drift_router.options import Patience
from drift_router.routing import Dispatch, Outcome, Routing
from drift_router.snapshots import Reason
from drift_router.wishes import Wish

if TYPE_CHECKING:
    from drift_engine.tracing.recording import Recorder

log = logging.getLogger(__name__)

ELSEWHERE = frozenset({429, 502, 503, 504})
"""Answers that say "not here, not now": another node is asked before the client hears of it."""

HELD_BYTES = 1024 * 1024
"""Of an answer in one piece: a hundred times a long one."""

OK = 200
EVENT_STREAM = b"text/event-stream"


class Stage(enum.Enum):
    QUEUED = "queued"
    CONNECTING = "connecting"
    SENT = "sent"
    RELAYING = "relaying"
    OVER = "over"


class Desk(Protocol):
    """What an exchange needs of the server that it runs in."""

    routing: Routing
    patience: Patience
    retries: int
    recorder: Recorder | None
    """Of spans; None: nobody wants any."""

    def connect(self, exchange: Exchange, slot: int) -> Upstream | None:
        """A kept connection now; or None, and `connected` is called later."""

    def wait(self, exchange: Exchange) -> None:
        """Until there is room; `offer` is called then. Raises Refusal where too many wait."""

    def overloaded(self, wish: Wish) -> Refusal:
        """What to tell a client for whom there is no room."""

    def leave(self, exchange: Exchange) -> None:
        """It waits for room no longer."""

    def over(self, exchange: Exchange) -> None: ...

    def now_s(self) -> float: ...


class Exchange:
    __slots__ = (
        "_attempts",
        "_broken",
        "_client",
        "_client_begun",
        "_desk",
        "_dispatch",
        "_events",
        "_excluded",
        "_forwarded",
        "_head",
        "_held",
        "_last_s",
        "_loss",
        "_prompt",
        "_request",
        "_request_id",
        "_seed",
        "_stage",
        "_status",
        "_trail",
        "_upstream",
        "_usage_tokens",
        "_watched",
        "arrival_s",
        "deadline_s",
        "wish",
    )

    def __init__(
        self, desk: Desk, client: Client, request: Request, wish: Wish, prompt: Prompt | None
    ) -> None:
        self._desk = desk
        self._client = client
        self._request = request
        self._prompt = prompt
        self.wish = wish
        self.arrival_s = desk.now_s()
        self.deadline_s = self.arrival_s + desk.patience.queue_s
        self._stage = Stage.QUEUED
        self._attempts = 0
        self._loss: Loss | None = None
        self._broken = False
        self._excluded: frozenset[int] = frozenset()
        self._dispatch: Dispatch | None = None
        self._upstream: Upstream | None = None
        self._watched: Watched | None = None
        self._usage_tokens: int | None = None
        self._seed: int | None = None
        self._events = False
        self._status = 0
        self._held = b""
        self._head: tuple[Headers, int | None] | None = None
        self._client_begun = False
        self._last_s = 0.0
        self._request_id = request.header(b"x-request-id") or b"%032x" % random.getrandbits(128)
        self._forwarded = heads.forwarded(request.headers)
        self._trail: Trail | None = None
        if desk.recorder is not None and prompt is not None:
            self._trail = Trail(desk.recorder, request, prompt, self.arrival_s)
        client.attach(self)

    @property
    def held_bytes(self) -> int:
        return len(self._request.body)

    # to a node

    def offer(self) -> None:
        """Asks for a node, and sends the request there."""
        now_s = self._desk.now_s()
        decision = self._desk.routing.decide(self.wish, self._excluded, now_s, begun=self._client_begun)
        if decision.slot is None:
            self._no_node(decision.reason)
            return
        self._dispatch = self._desk.routing.send(self.wish, decision, now_s)
        if self._dispatch is None:
            self._excluded |= {decision.slot}  # it left between two lines
            self.offer()
            return
        if self._trail is not None:
            self._trail.sent(self._dispatch.name, decision, now_s, self.drawn_tokens)
        self._stage = Stage.CONNECTING
        self.deadline_s = now_s + 2 * self._desk.patience.connect_s  # the pool gives up before
        upstream = self._desk.connect(self, decision.slot)
        if upstream is not None:
            self.connected(upstream)

    def connected(self, upstream: Upstream | Loss) -> None:
        """What became of `Desk.connect`."""
        if self._stage is not Stage.CONNECTING:
            if isinstance(upstream, Upstream):
                upstream.abort()  # the client left meanwhile
            return
        if isinstance(upstream, Loss):
            self.lost(upstream)
            return
        assert self._dispatch is not None
        self._upstream = upstream
        self._stage = Stage.SENT
        self.deadline_s = self._desk.now_s() + self._desk.patience.first_byte_s
        body = self._body()
        upstream.send(self._request_head(upstream.authority, self._dispatch, len(body)), body, self)
        if self._client.is_slow:
            upstream.pause()

    def _no_node(self, reason: Reason) -> None:
        if self._client_begun:
            self._broke(Resumption.NO_NODE)
        if reason is not Reason.OVERLOADED:
            none = refusals.unavailable("no node is ready to serve this")
            self._fail(none if self._loss is None else _told(self._loss))
        elif self._client_begun:
            # they take no more at all, and its client has waited for this token long enough
            self._fail(refusals.unavailable("every other node is full"))
        else:
            self._stage = Stage.QUEUED
            if self._trail is not None:
                self._trail.waits(self._desk.now_s())
            try:
                self._desk.wait(self)
            except Refusal as refusal:
                self._fail(refusal)

    def _request_head(self, authority: bytes, dispatch: Dispatch, length_bytes: int) -> bytes:
        headers: Headers = [(b"host", authority)]
        headers += self._desk.routing.forwarded(self._forwarded, self.wish, dispatch)
        if self._trail is not None:
            headers = self._trail.passed_on(headers, authority)
        headers.append((b"x-request-id", self._request_id))
        if length_bytes or self._request.method == b"POST":
            headers.append((b"content-length", b"%d" % length_bytes))
        if dispatch.ours and self._prompt is not None:
            headers.append((b"x-drift-want", b"pages"))
            if self._prompt.streamed and self._prompt.single:
                headers.append((b"x-drift-resumable", b"1"))
        return heads.request(self._request.method, self._request.target, headers)

    def _body(self) -> bytes:
        if self._client_begun and self._watched is not None and self._watched.token_ids:
            return prompts.resuming(
                self._request.body,
                answer_id=self._watched.answer_id,
                created=self._watched.created,
                seed=self._seed,
                token_ids=self._watched.token_ids,
            )
        return self._request.body

    # from the node

    def begins(self, status: int, headers: Headers, length_bytes: int | None) -> None:
        dispatch = self._dispatch
        assert dispatch is not None
        self._desk.routing.answered(self.wish, dispatch, status, headers)
        if self._trail is not None:
            self._trail.answered(status)
        if dispatch.aliases is not None and status == OK and self._prompt is not None:
            self._desk.routing.begun(self.wish, dispatch, self._request, self._prompt)
        if self._client_begun:
            if status != OK:
                self._elsewhere(status)
            return
        if status in ELSEWHERE and self._attempts < self._desk.retries and self._others():
            self._elsewhere(status)
            return
        self._status = status
        kept: Headers = []
        resumable = False
        for name, value in headers:
            if name.startswith(heads.OURS):
                if name == b"x-drift-seed":
                    self._seed, resumable = int(value), True
                continue
            if name == b"content-type":
                self._events = value.startswith(EVENT_STREAM)
            kept.append((name, value))
        self._watched = Watched() if resumable and self._events and status == OK else None
        self._head = heads.forwarded(kept), length_bytes

    def data(self, data: bytes) -> None:
        now_s = self._desk.now_s()
        dispatch = self._dispatch
        assert dispatch is not None
        if self._stage is Stage.SENT:
            self._stage = Stage.RELAYING
            self._desk.routing.first_byte(self.wish, dispatch, now_s, streamed=self._events)
            if self._trail is not None:
                self._trail.first_byte(now_s)
        elif self._events:
            self._desk.routing.gap(self.wish, dispatch, now_s - self._last_s, now_s)
        self._last_s = now_s
        self.deadline_s = now_s + self._desk.patience.idle_s
        if self._watched is None and usages.KEY in data:
            self._usage_tokens = usages.drawn_tokens(data)
        if self._watched is not None:
            try:
                data = self._watched.feed(data)
            except NotMarked as error:
                log.warning("node %s: %s", dispatch.name, error)
                self._break(Loss.GARBAGE)
                return
        elif not self._events and not self._client_begun:
            # nothing of an answer in one piece is shown before it is whole: until then another node can give it
            data = self._held + data
            if len(data) <= HELD_BYTES:
                self._held, data = data, b""
            else:
                self._held = b""
        if data:
            self._write(data)

    def ends(self) -> None:
        self._upstream = None
        watched = self._watched
        if watched is not None:
            try:
                rest = watched.finish()
            except NotMarked:
                self.lost(Loss.GARBAGE)
                return
            if not watched.done:
                self.lost(Loss.BROKEN)  # it took leave politely, in the middle
                return
            self._write(rest)
        elif self._held or not self._client_begun:
            held, self._held = self._held, b""
            self._write(held)
        if self._broken:
            self._broke(Resumption.RESUMED)
        self._settle(Outcome.DONE)
        self._client.finish()

    def lost(self, loss: Loss) -> None:
        """The node failed the request."""
        self._upstream, self._held = None, b""
        now_s = self._desk.now_s()
        dispatch, self._dispatch = self._dispatch, None
        assert dispatch is not None
        self._desk.routing.failed(dispatch, loss, now_s)
        if self._trail is not None:
            self._trail.lost(loss, now_s)
        if loss is Loss.CLOSED and not self._client_begun:
            self._stage = Stage.QUEUED
            self.offer()  # the same node, on another connection
            return
        self._excluded |= {dispatch.slot}
        self._attempts += 1
        self._loss = loss
        self._broken = self._client_begun
        if self._watched is not None:
            self._watched.drop()
        log.info("node %s lost a request: %s", dispatch.name, loss)
        resumable = not self._client_begun or (self._watched is not None and bool(self._watched.token_ids))
        if resumable and self._attempts <= self._desk.retries:
            if not self._client_begun:
                self._desk.routing.counters.retries += 1
            self._stage = Stage.QUEUED
            self.deadline_s = now_s + self._desk.patience.queue_s
            self.offer()
            return
        if self._client_begun:
            self._broke(Resumption.FAILED if resumable else Resumption.NOT_RESUMABLE)
        self._fail(_told(loss))

    # the client

    def client_gone(self) -> None:
        if self._upstream is not None:
            self._upstream.abort()
            self._upstream = None
        self._desk.leave(self)
        self._settle(Outcome.CANCELLED)

    def client_slow(self) -> None:
        if self._upstream is not None:
            self._upstream.pause()

    def client_ready(self) -> None:
        if self._upstream is not None:
            self._upstream.resume()

    # time

    def sweep(self, now_s: float) -> None:
        """Ends what takes too long, and takes to another node what its own will not go on with."""
        if now_s < self.deadline_s:
            if self._is_lost(now_s):
                self._break(Loss.LATE)
            return
        if self._stage is Stage.QUEUED:
            self._desk.leave(self)
            add(self._desk.routing.counters.rejected, Rejection.WAITED)
            self._fail(self._desk.overloaded(self.wish))
        elif self._client.is_slow:
            self.deadline_s = now_s + self._desk.patience.idle_s  # the silence is its, not the node's
        else:
            self._break(Loss.LATE)

    def _is_lost(self, now_s: float) -> bool:
        """Its node is, and another can go on with it."""
        if self._dispatch is None or self._upstream is None or self._client.is_slow:
            return False
        if not self._desk.routing.registry.lost(self._dispatch.handle, now_s):
            return False
        return (self._watched is not None or not self._client_begun) and self._others()

    # ends

    @property
    def drawn_tokens(self) -> int:
        """Of the answer, as far as it went: as one of our nodes named them; else as the answer's usage says, which is
        not looked for where two reads divide it; else one for each write of a stream after its first.
        """
        if self._watched is not None:
            return len(self._watched.token_ids)
        return self.wish.gaps if self._usage_tokens is None else self._usage_tokens

    def _broke(self, outcome: Resumption) -> None:
        self._broken = False
        self._desk.routing.resumed(outcome)

    def _others(self) -> bool:
        assert self._dispatch is not None
        return self._desk.routing.has_other(self._excluded | {self._dispatch.slot}, self._desk.now_s())

    def _elsewhere(self, status: int) -> None:
        log.info("node %s answered %d: another is asked", self._dispatch and self._dispatch.name, status)
        self._break(Loss.REFUSED)

    def _break(self, loss: Loss) -> None:
        if self._upstream is not None:
            self._upstream.abort()
        self.lost(loss)

    def _write(self, data: bytes) -> None:
        if self._client_begun:
            self._client.write(data)
            return
        assert self._head is not None
        headers, length = self._head
        self._head = None
        self._client_begun = True
        named = self._desk.routing.explained(self.wish, self._dispatch)
        if not any(name == b"x-request-id" for name, _ in headers):
            named = [*named, (b"x-request-id", self._request_id)]
        self._client.begin(self._status, headers + named, length, data)

    def _fail(self, refusal: Refusal) -> None:
        if not self._client_begun:
            self._settle(Outcome.REFUSED, refusal.status)
            self._client.refuse(refusal)
            return
        self._settle(Outcome.BROKEN, refusal.status)
        if self._events:
            self._client.write(refusal.event())
        self._client.finish(whole=self._events)

    def _settle(self, outcome: Outcome, status: int | None = None) -> None:
        if self._stage is Stage.OVER:
            return
        self._stage = Stage.OVER
        now_s = self._desk.now_s()
        dispatch, self._dispatch = self._dispatch, None
        drawn_tokens, told = self.drawn_tokens, status or self._status
        self._desk.routing.ended(self.wish, dispatch, outcome, told, drawn_tokens, now_s)
        if self._trail is not None:
            self._trail.ended(outcome, told, drawn_tokens, self.wish.counted_tokens, now_s)
        self._desk.over(self)


def _told(loss: Loss) -> Refusal:
    """To the client, of the last node that failed it."""
    if loss is Loss.EXHAUSTED:
        return refusals.unavailable("the router has no socket left")
    failure = refusals.late if loss is Loss.LATE else refusals.lost
    return failure(f"the node failed ({loss}) and no other could take over")
