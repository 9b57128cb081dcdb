"""A whole simulated run: arrivals to nodes, in the order of simulated time, and what became of each request.

Nodes do not know of each other, so each runs alone up to the next arrival or other event; only those with something
to do before it run at all. Where what follows depends on when an answer ends (a session's next turn, a request that
is handed on), the node that is next in time goes one event further.

Nodes may come, leave and die meanwhile (`add`, `drain`, `fail`). A request whose node died goes on elsewhere, behind
the tokens that its client has; one that nobody takes waits for PATIENCE_S. Every request ends exactly once.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from drift_engine import wire
from drift_engine.bench.records import RequestRecord
from drift_engine.bench.traces import Arrival
from drift_engine.latency.snapshots import Snapshot
from drift_engine.simulation import dispatching, prompts
from drift_engine.simulation.handing_on import Link
from drift_engine.simulation.nodes import Answer, NodeSpec, SimulatedNode

PATIENCE_S = 30.0
"""For which a request waits where there is no node, as the router's does."""

Ended = Callable[[RequestRecord], None]
Action = Callable[[float], None]


@dataclass(slots=True)
class _Turn:
    """A request on its way, over one node or several."""

    arrival: Arrival
    due_s: float
    token_ids: list[int]
    output_tokens: int
    clipped_prompt: bool
    clipped_output: bool
    times_s: list[float] = field(default_factory=list)  # of tokens from the nodes before this one
    cached_tokens: int | None = None  # on the first node
    homeless_until_s: float | None = None  # when nobody took it, and it gives up


class Simulation:
    """`nodes` equal nodes at first; `run` may be called once."""

    def __init__(
        self,
        spec: NodeSpec,
        latency: Snapshot,
        *,
        nodes: int,
        routing: str | dispatching.Making = "least-load",
        link: Link | None = None,
    ) -> None:
        """`latency` is what every node has learned before its start (`nodes.calibrated`). With `link` a request has
        its first token from the first node that it is sent to and all others from the second. Raises OptionsError."""
        self.now_s = 0.0
        self.dispatcher = dispatching.make(routing) if isinstance(routing, str) else routing()
        self.nodes: list[SimulatedNode] = []
        """All that there ever were."""
        self.alive: dict[int, SimulatedNode] = {}
        """Those that are there, by their index."""
        self.gone_s: dict[int, float] = {}
        """When the others went."""
        self._spec = spec
        self._latency = latency
        self._link = link
        self._next: list[tuple[float, int, int]] = []  # heap of (when something happens, node, its version)
        self._taken_s: list[float] = []  # when each node was made
        self._versions: list[int] = []  # older entries of a node are void
        self._due: list[tuple[float, int, Arrival]] = []  # heap of (when, index, arrival)
        self._agenda: list[tuple[float, int, Action]] = []  # heap of (when, order of asking, what)
        self._asked = 0
        self._sessions: dict[str, deque[Arrival]] = {}  # turns behind the one that runs
        self._turns: dict[str, _Turn] = {}
        self._begun: set[str] = set()  # of the turns, those with a token
        self._answered_now: list[Answer] = []
        self._ended_now: list[RequestRecord] = []
        self._homeless: list[str] = []
        self.records: list[RequestRecord] = []
        for _ in range(nodes):
            self.add(0.0)
        if self.dispatcher.interval_s < math.inf:
            self.every(self.dispatcher.interval_s, self.dispatcher.look, idle=False)

    # what may be asked of it while it runs

    def at(self, at_s: float, action: Action) -> None:
        """`action(at_s)` once the nodes are as they are then; not after the last request."""
        self._asked += 1
        heapq.heappush(self._agenda, (at_s, self._asked, action))

    def every(self, interval_s: float, action: Action, *, idle: bool = True) -> None:
        """`idle`: also while there is no request anywhere."""

        def again(now_s: float) -> None:
            action(now_s)
            following_s = now_s + interval_s
            if not idle and not self._turns and self._due:  # the last time before somebody comes
                steps = (self._due[0][0] - now_s) // interval_s
                following_s = now_s + max(1.0, steps) * interval_s
            self.at(following_s, again)

        self.at(interval_s, again)

    def add(self, now_s: float, start_up_s: float = 0.0) -> int:
        """A node that serves from now on, and was made `start_up_s` ago; its index."""
        index = len(self.nodes)
        node = SimulatedNode(
            self._spec, self._latency, self, index=index, made_s=now_s, tell=self.dispatcher.listens
        )
        self.nodes.append(node)
        self._taken_s.append(now_s - start_up_s)
        self._versions.append(0)
        self.alive[index] = node
        self.dispatcher.joined(index, node, now_s)
        self._house(now_s)
        return index

    def drain(self, index: int, now_s: float) -> None:
        """It takes nothing new, and is gone once it has answered."""
        node = self.alive[index]
        if not node.draining:
            node.draining = True
            self.dispatcher.left(index, now_s)
            self._leave(node, now_s)

    def fail(self, index: int, now_s: float) -> None:
        """It is gone, with its cache; its requests go on elsewhere."""
        node = self.alive.pop(index)
        node.run(now_s)
        self._take_answers()  # of what ended just in time
        self.gone_s[index] = now_s
        broken = node.break_off()
        self._versions[index] += 1
        if not node.draining:
            self.dispatcher.left(index, now_s)
        for answer in broken:
            turn = self._turns[answer.request_id]
            self._carry(turn, answer)
            del turn.times_s[turn.output_tokens - 1 :]  # the last one was never told, or it would have ended
            self.dispatcher.broken(answer.request_id, now_s)
        for answer in broken:
            self._place(answer.request_id, now_s)

    # the run

    def run(self, arrivals: Sequence[Arrival], ended: Ended | None = None) -> list[RequestRecord]:
        """What happened to each request, in the order in which they ended. `ended` hears of each at once, of those
        on different nodes between two arrivals in any order."""
        for arrival in arrivals:
            if arrival.session is not None and arrival.session in self._sessions:
                self._sessions[arrival.session].append(arrival)
                continue
            if arrival.session is not None:
                self._sessions[arrival.session] = deque()
            heapq.heappush(self._due, (arrival.at_s, arrival.index, arrival))
        while self._due or self._turns:
            due_s = self._due[0][0] if self._due else math.inf
            asked_s = self._agenda[0][0] if self._agenda else math.inf
            next_s = self._next[0][0] if self._next else math.inf
            if min(due_s, asked_s) <= next_s:
                if asked_s <= due_s:
                    self.now_s, _, action = heapq.heappop(self._agenda)
                    action(self.now_s)
                else:
                    self._arrive(*heapq.heappop(self._due))
            else:
                _, index, version = heapq.heappop(self._next)
                if version == self._versions[index]:
                    stepwise = self._sessions or self._link is not None
                    self._advance(index, next_s if stepwise else min(due_s, asked_s))
            self._take_answers()
            for record in self._ended_now:
                self.records.append(record)
                if ended is not None:
                    ended(record)
            self._ended_now.clear()
        self.records.sort(key=lambda record: (record.due_s + record.end_s, record.index))
        return self.records

    def node_s(self) -> float:
        """Node-seconds from the first moment to the last answer, start-ups included."""
        end_s = max((record.due_s + record.end_s for record in self.records), default=0.0)
        return sum(
            max(0.0, min(end_s, self.gone_s.get(index, end_s)) - taken_s)
            for index, taken_s in enumerate(self._taken_s)
        )

    def waiting(self) -> Iterator[tuple[float, int]]:
        """Since when requests without a token wait, and the tokens of their prompts."""
        for request_id, turn in self._turns.items():
            if request_id not in self._begun:
                yield turn.due_s, len(turn.token_ids)

    # what nodes tell

    def told(self, answer: Answer, times_s: Sequence[float]) -> None:
        self._begun.add(answer.request_id)
        self.dispatcher.told(answer.request_id, times_s, answer.cached_tokens)

    def ended(self, answer: Answer) -> None:
        self._answered_now.append(answer)

    def kept(self, index: int, events: Sequence[wire.KvEvent]) -> None:
        self.dispatcher.kept(index, events)

    # a request's way

    def _arrive(self, due_s: float, index: int, arrival: Arrival) -> None:
        self.now_s = due_s
        ids = prompts.token_ids(arrival)
        most = self._spec.max_model_len_tokens
        output = prompts.output_tokens(arrival)
        clipped = ids[: most - min(output, most - 1)]
        room = most - len(clipped)
        self._turns[str(index)] = _Turn(
            arrival, due_s, clipped, min(output, room), len(clipped) < len(ids), room < output
        )
        self._place(str(index), due_s)

    def _place(self, request_id: str, now_s: float, *, handed_on: bool = False) -> None:
        turn = self._turns[request_id]
        drawn = len(turn.times_s)
        chosen = self.dispatcher.choose(dispatching.Request(request_id, turn.token_ids, now_s, drawn))
        if chosen is None:
            self._wait(request_id, turn, now_s)
            return
        turn.homeless_until_s = None
        node = self.alive[chosen]
        node.run(now_s)
        first_only = self._link is not None and not drawn
        output_tokens = 1 if first_only else turn.output_tokens
        node.submit(request_id, turn.token_ids, output_tokens, now_s, drawn_tokens=drawn, handed_on=handed_on)
        self._schedule(node)

    def _wait(self, request_id: str, turn: _Turn, now_s: float) -> None:
        self._homeless.append(request_id)
        if turn.homeless_until_s is None:
            turn.homeless_until_s = now_s + PATIENCE_S
            self.at(turn.homeless_until_s, lambda late_s: self._give_up(request_id, late_s))

    def _give_up(self, request_id: str, now_s: float) -> None:
        turn = self._turns.get(request_id)
        if turn is None or turn.homeless_until_s is None or now_s < turn.homeless_until_s:
            return
        self._homeless.remove(request_id)
        answer = Answer(request_id, len(turn.token_ids), error="no node took it")
        self._ended_now.append(self._record(answer, now_s))

    def _house(self, now_s: float) -> None:
        """There may be a node for those that wait."""
        waiting, self._homeless = self._homeless, []
        for request_id in waiting:
            self._place(request_id, now_s)

    def _advance(self, index: int, until_s: float) -> None:
        node = self.alive[index]
        node.run(until_s)
        self.now_s = max(self.now_s, node.clock.now_s())
        self._schedule(node)

    def _schedule(self, node: SimulatedNode) -> None:
        index = node.index
        self.dispatcher.changed(index, node.waiting_tokens, len(node.answers))
        self._versions[index] += 1
        if node.answers:
            heapq.heappush(self._next, (node.next_s, index, self._versions[index]))
        elif node.draining:
            self._leave(node, node.clock.now_s())

    def _leave(self, node: SimulatedNode, now_s: float) -> None:
        if not node.answers and node.index in self.alive:
            del self.alive[node.index]
            self.gone_s[node.index] = max(now_s, node.made_s)

    def _take_answers(self) -> None:
        answers, self._answered_now = self._answered_now, []
        for answer in answers:
            turn = self._turns[answer.request_id]
            end_s = answer.token_times_s[-1] if answer.token_times_s else self.now_s
            ok = answer.finish is wire.FinishReason.LENGTH
            self.dispatcher.ended(answer.request_id, end_s, ok=ok)
            told = len(turn.times_s) + len(answer.token_times_s)
            if self._link is not None and ok and told < turn.output_tokens:
                self._carry(turn, answer)
                self._hand_on(answer.request_id, end_s + self._link.seconds(answer.prompt_tokens))
            else:
                self._ended_now.append(self._record(answer, end_s))

    def _hand_on(self, request_id: str, at_s: float) -> None:
        self.at(at_s, lambda now_s: self._place(request_id, now_s, handed_on=True))

    def _carry(self, turn: _Turn, answer: Answer) -> None:
        """What its client has of it so far."""
        turn.times_s += answer.token_times_s
        if turn.cached_tokens is None and answer.token_times_s:
            turn.cached_tokens = answer.cached_tokens

    def _record(self, answer: Answer, end_s: float) -> RequestRecord:
        turn = self._turns.pop(answer.request_id)
        self._begun.discard(answer.request_id)
        self._carry(turn, answer)
        arrival = turn.arrival
        if arrival.session is not None:
            self._next_turn(arrival.session, end_s)
        ok = answer.finish is wire.FinishReason.LENGTH
        return RequestRecord(
            index=arrival.index,
            scheduled_s=arrival.at_s,
            due_s=turn.due_s,
            sent_s=0.0,
            token_times_s=tuple(time_s - turn.due_s for time_s in turn.times_s),
            token_counts=(1,) * len(turn.times_s),
            end_s=end_s - turn.due_s,
            status="ok" if ok else "failed",
            reason="" if ok else answer.error or f"ended with {answer.finish}",
            finish_reason=answer.finish,
            asked_prompt_tokens=len(turn.token_ids),
            asked_output_tokens=turn.output_tokens,
            prompt_tokens=answer.prompt_tokens,
            cached_tokens=turn.cached_tokens or 0,
            output_tokens=len(turn.times_s),
            exact_counts=True,
            forced_length=True,
            clipped_prompt=turn.clipped_prompt,
            clipped_output=turn.clipped_output,
            session=arrival.session,
        )

    def _next_turn(self, session: str, end_s: float) -> None:
        """Turns of one session follow each other: recorded times, or the end of the answer before."""
        later = self._sessions[session]
        if not later:
            del self._sessions[session]
            return
        arrival = later.popleft()
        heapq.heappush(self._due, (max(arrival.at_s, end_s), arrival.index, arrival))
