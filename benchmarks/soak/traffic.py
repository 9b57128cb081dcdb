"""What is asked during a soak, and when: turns of agents' sessions and requests of a conversation trace.

Lengths and texts are the traces', scaled so that two cores carry them; times are a Poisson process of a bounded rate.
The questions are asked round and round, so that each one's answer has to be known only once.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import msgspec

from drift_engine.bench import shaping
from drift_engine.bench.traces import Arrival, Trace

AGENT_EVERY = 3
"""One turn of an agent in so many questions."""
AGENT_SCALE, CONVERSATION_SCALE = 0.1, 0.3
"""Agents' prompts have up to 25,000 characters, conversations 1,000 tokens in the median."""
OUTPUT_TOKENS = 16, 96
"""Least and most: long enough to be broken in the middle."""


def questions(agents: Trace, conversations: Trace, count: int) -> list[Arrival]:
    """In the order in which they are asked first. Turns of a session come in order; sessions take turns."""
    turns = _in_turn(agents.arrivals)
    rest = iter(conversations.arrivals)
    found: list[Arrival] = []
    while len(found) < count:
        agent = len(found) % AGENT_EVERY == 0
        arrival = next(turns if agent else rest, None) or next(rest if agent else turns, None)
        if arrival is None:
            break
        shaped = shaping.scale_lengths(arrival, AGENT_SCALE if arrival.text else CONVERSATION_SCALE)
        found.append(msgspec.structs.replace(shaped, index=len(found)))
    return found


def bounded(arrival: Arrival) -> Arrival:
    """With an answer that is neither too short to be broken nor too long for its share of the machine."""
    least, most = OUTPUT_TOKENS
    return msgspec.structs.replace(arrival, output_tokens=min(max(arrival.output_tokens, least), most))


def times(questions: int, rate_rps: float, seconds: float, seed: int) -> Iterator[tuple[float, int]]:
    """(when, which question) until that many seconds."""
    draw = random.Random(seed)
    at_s, place = 0.0, 0
    while (at_s := at_s + draw.expovariate(rate_rps)) < seconds:
        yield at_s, place
        place = (place + 1) % questions


def _in_turn(arrivals: tuple[Arrival, ...]) -> Iterator[Arrival]:
    """One of each session after the other."""
    sessions: dict[str | None, list[Arrival]] = {}
    for arrival in arrivals:
        sessions.setdefault(arrival.session, []).append(arrival)
    queues = [iter(turns) for turns in sessions.values()]
    while queues:
        for queue in [*queues]:
            if turn := next(queue, None):
                yield turn
            else:
                queues.remove(queue)
