"""A whole simulated run: arrivals to nodes, in the order of simulated time, and what became of each request.

Nodes do not know of each other, so each runs alone up to the next arrival; only those with something to do before it
run at all. Where a session's next turn waits for an answer, the node that is next in time goes one event further.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Sequence

import msgspec

from drift_engine import wire
from drift_engine.bench.records import RequestRecord
from drift_engine.bench.traces import Arrival
from drift_engine.latency.snapshots import Snapshot
from drift_engine.simulation import dispatching, prompts
from drift_engine.simulation.nodes import Answer, NodeSpec, SimulatedNode

Ended = Callable[[RequestRecord], None]


class _Turn(msgspec.Struct, frozen=True):
    """A request on its way."""

    arrival: Arrival
    due_s: float
    prompt_tokens: int
    clipped_prompt: bool
    clipped_output: bool
    output_tokens: int


class Simulation:
    """`nodes` equal nodes; `run` may be called once."""

    def __init__(self, spec: NodeSpec, latency: Snapshot, *, nodes: int, routing: str = "least-load") -> None:
        """`latency` is what every node has learned before its start (`nodes.calibrated`). Raises OptionsError."""
        self.now_s = 0.0
        self._spec = spec
        self._dispatcher = dispatching.make(routing, nodes)
        self.nodes = [SimulatedNode(spec, latency, self._answered) for _ in range(nodes)]
        self._next: list[tuple[float, int, int]] = []  # heap of (when something happens, node, its version)
        self._versions = [0] * nodes  # older entries of a node are void
        self._due: list[tuple[float, int, Arrival]] = []  # heap of (when, index, arrival)
        self._sessions: dict[str, deque[Arrival]] = {}  # turns behind the one that runs
        self._turns: dict[str, _Turn] = {}
        self._answered_now: list[Answer] = []
        self.records: list[RequestRecord] = []

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
        while self._due or self._next:
            due_s = self._due[0][0] if self._due else float("inf")
            next_s = self._next[0][0] if self._next else float("inf")
            if due_s <= next_s:
                self._dispatch(*heapq.heappop(self._due))
            else:
                _, index, version = heapq.heappop(self._next)
                if version == self._versions[index]:
                    self._advance(index, next_s if self._sessions else due_s)
            for answer in self._answered_now:
                record = self._record(answer)
                self.records.append(record)
                if ended is not None:
                    ended(record)
            self._answered_now.clear()
        self.records.sort(key=lambda record: (record.due_s + record.end_s, record.index))
        return self.records

    def _dispatch(self, due_s: float, index: int, arrival: Arrival) -> None:
        self.now_s = due_s
        ids = prompts.token_ids(arrival)
        most = self._spec.max_model_len_tokens
        output = prompts.output_tokens(arrival)
        clipped = ids[: most - min(output, most - 1)]
        room = most - len(clipped)
        self._turns[str(index)] = _Turn(
            arrival, due_s, len(clipped), len(clipped) < len(ids), room < output, min(output, room)
        )
        chosen = self._dispatcher.choose()
        node = self.nodes[chosen]
        node.run(due_s)
        node.submit(str(index), clipped, min(output, room), due_s)
        self._schedule(chosen)

    def _advance(self, index: int, until_s: float) -> None:
        node = self.nodes[index]
        node.run(until_s)
        self.now_s = max(self.now_s, node.clock.now_s())
        self._schedule(index)

    def _schedule(self, index: int) -> None:
        node = self.nodes[index]
        self._dispatcher.changed(index, node.waiting_tokens, len(node.answers))
        self._versions[index] += 1
        if node.answers:
            heapq.heappush(self._next, (node.next_s, index, self._versions[index]))

    def _answered(self, answer: Answer) -> None:
        self._answered_now.append(answer)

    def _record(self, answer: Answer) -> RequestRecord:
        turn = self._turns.pop(answer.request_id)
        arrival = turn.arrival
        end_s = answer.token_times_s[-1] if answer.token_times_s else self.now_s
        if arrival.session is not None:
            self._next_turn(arrival.session, end_s)
        ok = answer.finish is wire.FinishReason.LENGTH
        return RequestRecord(
            index=arrival.index,
            scheduled_s=arrival.at_s,
            due_s=turn.due_s,
            sent_s=0.0,
            token_times_s=tuple(time_s - turn.due_s for time_s in answer.token_times_s),
            token_counts=(1,) * len(answer.token_times_s),
            end_s=end_s - turn.due_s,
            status="ok" if ok else "failed",
            reason="" if ok else answer.error or f"ended with {answer.finish}",
            finish_reason=answer.finish,
            asked_prompt_tokens=turn.prompt_tokens,
            asked_output_tokens=turn.output_tokens,
            prompt_tokens=answer.prompt_tokens,
            cached_tokens=answer.cached_tokens,
            output_tokens=len(answer.token_times_s),
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
