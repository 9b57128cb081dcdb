"""What one worker does changes what another one decides."""

from __future__ import annotations

import msgspec
import pytest

from drift_engine import hashing
from drift_router import gossip
from drift_router.counters import Counters
from drift_router.dataplane.requests import Request
from drift_router.gossip import MAX_HELD_WORDS, MAX_WORD_BYTES, Outbox, Word
from drift_router.index.prefixes import PrefixIndex, Ties
from drift_router.nodes.addresses import Address
from drift_router.nodes.peers import LASTS_S, Load
from drift_router.nodes.registry import Registry
from drift_router.options import RouterOptions
from drift_router.routing import Dispatch, Outcome, Routing
from drift_router.snapshots import Decision, Reason
from drift_router.wishes import Wish
from node_reports import report

NODES = [Address(name, f"http://{name}:1", f"http://{name}:2") for name in "abc"]
OTHERS = [Address(name, f"http://{name}:1") for name in "abc"]
TEXT = "all that was said before " * 100


class Side:
    """A worker without a socket. Its slots are its own: nodes come in another order in each."""

    def __init__(self, worker: int, nodes: list[Address]) -> None:
        self.index = PrefixIndex(1 << 20)
        self.registry = Registry(self.index, self.index.forget, seed=1)
        self.registry.set_nodes(nodes, 0.0)
        for slot, address in self.registry.addresses().items():
            if address.control_url is None:
                self.registry.answered(slot, 0.0)
            else:
                self.index.restore(slot, [])
                self.registry.reported(slot, report(node=address.name), 0.0)
        options = RouterOptions(workers=2, session_header="x-session")
        counters = Counters.fresh(0.4, 0.08)
        self.outbox = Outbox(worker)
        self.routing = Routing(options, self.registry, self.index, None, counters, self.outbox, seed=1)

    def slot(self, name: str) -> int:
        return next(slot for slot, address in self.registry.addresses().items() if address.name == name)

    def wish(self, text: str, session: str = "") -> Wish:
        body = msgspec.json.encode({"model": "m", "messages": [{"role": "user", "content": text}]})
        headers = [(b"x-session", session.encode())]
        request = Request(b"POST", b"/v1/chat/completions", headers, body, newest=True, keeps_alive=True)
        wish, _ = self.routing.admit(request, 0.0)
        return wish

    def decide(self, text: str, now_s: float, session: str = "") -> tuple[str, Decision]:
        decision = self.routing.decide(self.wish(text, session), frozenset(), now_s)
        assert decision.slot is not None
        return self.registry.address(decision.slot).name, decision

    def send(self, wish: Wish, name: str, now_s: float) -> Dispatch:
        dispatch = self.routing.send(wish, Decision(self.slot(name), Reason.LOAD, 0, wish.tokens), now_s)
        assert dispatch is not None
        return dispatch


def passed(one: Side, other: Side, now_s: float) -> None:
    for word in one.routing.tell(now_s):
        datagram = gossip.encode(word)
        assert len(datagram) <= MAX_WORD_BYTES
        other.routing.heard(gossip.decode(datagram), now_s)


@pytest.mark.parametrize("nodes", [NODES, OTHERS])
def test_a_prompt_goes_where_another_worker_sent_it(nodes: list[Address]) -> None:
    one, other = Side(0, nodes), Side(1, nodes[::-1])
    dispatch = one.send(one.wish(TEXT), "b", 0.0)
    one.routing.first_byte(one.wish(TEXT), dispatch, 0.1, streamed=False)
    passed(one, other, 0.1)
    name, decision = other.decide(TEXT + "and more", 0.1)
    assert name == "b"
    assert decision.matched_tokens > 0.9 * len(TEXT) / 4


def test_a_session_stays_where_another_worker_served_it() -> None:
    one, other = Side(0, OTHERS), Side(1, OTHERS[::-1])
    dispatch = one.send(one.wish("short", "s1"), "b", 0.0)
    one.routing.first_byte(one.wish("short"), dispatch, 0.1, streamed=False)
    passed(one, other, 0.1)
    assert other.decide("something else", 0.1, session="s1")[0] == "b"


def test_what_a_node_taught_one_worker_finds_the_pages_of_all_nodes() -> None:
    one, other = Side(0, NODES), Side(1, NODES[::-1])
    pages = [hashing.SAMPLE * number for number in range(1, 9)]
    wish = one.wish(TEXT)
    dispatch = one.send(wish, "a", 0.0)
    listed = b",".join(b"%d:%x" % (place, page) for place, page in enumerate(pages))
    one.routing.answered(wish, dispatch, 200, [(b"x-drift-pages", b"16;128;0;" + listed)])
    passed(one, other, 0.0)
    other.index.stored(other.slot("c"), pages)
    later_s = 60.0  # what was sent to "a" counts as held there no longer
    for slot, address in other.registry.addresses().items():
        other.registry.reported(slot, report(node=address.name), later_s)
    name, decision = other.decide(TEXT, later_s)
    assert name == "c"
    assert decision.matched_tokens > 0.9 * len(TEXT) / 4


def test_what_waits_of_another_worker_is_waited_behind() -> None:
    one, other = Side(0, NODES), Side(1, NODES[::-1])
    dispatch = one.send(one.wish(TEXT * 4), "b", 0.0)
    passed(one, other, 0.0)
    (node,) = [node for node in other.registry.snapshot(0.0) if node.name == "b"]
    assert (node.queued_tokens, node.in_flight) == (one.wish(TEXT * 4).tokens, 1)
    one.registry.finished(dispatch.handle, 0.1)
    passed(one, other, 0.1)
    (node,) = [node for node in other.registry.snapshot(0.1) if node.name == "b"]
    assert (node.queued_tokens, node.in_flight) == (0, 0)
    assert [status.in_flight for status in other.registry.status(0.1)] == [0, 0, 0]


def test_every_turn_of_a_request_is_told_and_what_stands_is_repeated_until_it_ends() -> None:
    one, other, woken = Side(0, NODES), Side(1, NODES[::-1]), list[float]()
    now_s = 0.0
    one.outbox.wake = lambda: woken.append(now_s)
    wish = one.wish(TEXT)
    dispatch = one.send(wish, "b", now_s)
    one.send(one.wish(TEXT), "b", now_s)
    assert woken == [0.0]  # once: both are in the next word
    passed(one, other, now_s)
    assert [side.routing.told for side in (one, other)] == [True, True]
    now_s = 0.1
    one.routing.first_byte(wish, dispatch, now_s, streamed=True)
    passed(one, other, now_s)
    assert [node.queued_tokens for node in other.registry.snapshot(now_s) if node.name == "b"] == [
        wish.tokens
    ]
    now_s = 0.2
    one.routing.ended(wish, dispatch, Outcome.DONE, 200, 0, now_s)
    assert woken == [0.0, 0.1, 0.2]
    other.routing.tell(LASTS_S + 0.1)  # nothing was heard any more
    assert [side.routing.told for side in (one, other)] == [True, False]
    assert [node.in_flight for node in other.registry.snapshot(LASTS_S + 0.1)] == [0, 0, 0]


def test_a_report_already_has_what_another_worker_sent_before() -> None:
    side = Side(0, NODES)
    slot = side.slot("a")
    side.registry.peers("a", Load(5000, 1))
    side.registry.reported(slot, msgspec.structs.replace(report(node="a"), queued_tokens=6000), 0.0)
    assert side.registry.status(0.0)[slot].queued_tokens == 6000
    side.registry.peers("a", Load(7000, 2))
    assert side.registry.status(0.0)[slot].queued_tokens == 8000
    side.registry.peers("a", Load())
    assert side.registry.status(0.0)[slot].queued_tokens == 1000


def test_words_are_bounded_and_what_is_too_much_is_left_out() -> None:
    outbox = Outbox(0)
    names = [(1 << 64) - 1 - number for number in range(4200)]
    for _ in range(100):
        outbox.sent("n" * 253, 1 << 24, names, "\u00ff" * 256)
        outbox.learned(Ties(names, names))
    loads = {f"{'n' * 249}{number:04}": Load(1 << 40, 1 << 20) for number in range(500)}
    words = list(outbox.words(loads, 0.0))
    assert all(len(gossip.encode(word)) <= MAX_WORD_BYTES for word in words)
    assert set().union(*(word.loads for word in words)) == set(loads)
    assert 0 < sum(len(word.sent) for word in words) < 100
    assert len([word for word in words if word.sent or word.tied_blocks]) <= 2 * MAX_HELD_WORDS + 1
    assert list(outbox.words(loads, 0.01)) == []


@pytest.mark.parametrize(
    "datagram", [b"", b"\xc1", b"\x90", msgspec.msgpack.encode([1, {"a": 1}, [], [], []])]
)
def test_a_word_that_is_none_is_refused(datagram: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        gossip.decode(datagram)


def test_a_word_about_a_node_that_is_not_known_here_changes_nothing() -> None:
    side = Side(0, NODES)
    before = side.registry.snapshot(0.0)
    side.routing.heard(Word(1, {"z": Load(1, 1)}, [gossip.Sent("z", 5, [1, 2], "s")], [], []), 0.0)
    assert side.registry.snapshot(0.0) == before
