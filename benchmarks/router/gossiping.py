"""What it costs two workers to tell each other of their requests: CPU of both sides together, kernel included, for
each request that one of them serves. Prompts are of new sessions, each block of them news, or known on the node.

python -m benchmarks.router.gossiping --json benchmarks/router/results/gossiping.json
"""

from __future__ import annotations

import argparse
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from benchmarks import machine
from benchmarks.engine import results

from drift_engine import hashing
from drift_router import gossip
from drift_router.counters import Counters
from drift_router.dataplane.requests import Request
from drift_router.gossip import MAX_WORD_BYTES, Outbox
from drift_router.index.prefixes import PrefixIndex
from drift_router.nodes.addresses import Address
from drift_router.nodes.registry import Registry
from drift_router.options import RouterOptions
from drift_router.routing import Routing
from drift_router.snapshots import Decision, Reason
from drift_router.wishes import Wish

NODES = 8
ROUNDS = 60
PAGE_TOKENS = 16
SIZES_BYTES = {"1 KB": 1_000, "16 KB": 16_000, "48 KB": 48_000}
BATCHES = (1, 10)
"""Requests between two datagrams: 100 and 1,000 in a second."""


def made(outbox: Outbox | None) -> Routing:
    index = PrefixIndex(64 << 20)
    registry = Registry(index, index.forget, seed=1)
    registry.set_nodes([Address(f"node-{place}", f"http://n{place}:1") for place in range(NODES)], 0.0)
    for slot in registry.addresses():
        index.restore(slot, [])
        registry.answered(slot, 0.0)
    counters = Counters.fresh(0.4, 0.08)
    return Routing(RouterOptions(workers=2), registry, index, None, counters, outbox, seed=1)


def wishes(routing: Routing, size_bytes: int, count: int, *, new: bool) -> list[Wish]:
    found = []
    for number in range(count):
        text = f"session {number if new else 0} ".ljust(size_bytes, "x")
        body = msgspec.json.encode({"model": "m", "messages": [{"role": "user", "content": text}]})
        request = Request(b"POST", b"/v1/chat/completions", [], body, newest=True, keeps_alive=True)
        wish, _ = routing.admit(request, 0.0)
        found.append(wish)
    return found


def hint(number: int, size_bytes: int) -> bytes:
    """As a node tells it: one page in four."""
    tokens = size_bytes // 4
    places = range(0, tokens // PAGE_TOKENS, hashing.SAMPLE)[:128]
    names = (b"%d:%x" % (place, (number << 40 | place << 8) * hashing.SAMPLE) for place in places)
    return b"%d;%d;0;" % (PAGE_TOKENS, tokens) + b",".join(names)


def serve(routing: Routing, batch: list[tuple[Wish, bytes]], now_s: float, *, new: bool) -> None:
    for wish, hinted in batch:
        matched = 0 if new else wish.tokens
        decision = Decision(0, Reason.HEADROOM, matched, wish.tokens - matched)
        dispatch = routing.send(wish, decision, now_s)
        assert dispatch is not None
        dispatch.ours = True
        routing.answered(wish, dispatch, 200, [(b"x-drift-pages", hinted)])
        routing.first_byte(wish, dispatch, now_s, streamed=False)
        routing.registry.finished(dispatch.handle, now_s)


def measure(size_bytes: int, batch: int, *, new: bool) -> float:
    """In us a request."""
    ticks = 200 // batch
    alone, teller, listener = made(None), made(Outbox(0)), made(Outbox(1))
    with (
        tempfile.TemporaryDirectory() as folder,
        _bound(f"{folder}/0") as one,
        _bound(f"{folder}/1") as other,
    ):

        def carry(now_s: float) -> None:
            for word in teller.tell(now_s):
                one.sendto(gossip.encode(word), f"{folder}/1")
                listener.heard(gossip.decode(other.recv(MAX_WORD_BYTES)), now_s)

        least = {"alone": float("inf"), "told": float("inf")}
        for turn in range(ROUNDS):
            asked = wishes(alone, size_bytes, ticks * batch, new=new)
            first = turn * len(asked)
            batches = [
                [
                    (wish, hint(first + place if new else 0, size_bytes))
                    for place, wish in enumerate(asked[at : at + batch], at)
                ]
                for at in range(0, len(asked), batch)
            ]
            for name, routing, after in (("alone", alone, _nothing), ("told", teller, carry)):
                least[name] = min(
                    least[name], _cpu_us(routing, batches, after, float(turn), new=new) / len(asked)
                )
    return least["told"] - least["alone"]


def _cpu_us(
    routing: Routing,
    batches: list[list[tuple[Wish, bytes]]],
    after: Callable[[float], None],
    now_s: float,
    *,
    new: bool,
) -> float:
    start_s = time.process_time()
    for one in batches:
        serve(routing, one, now_s, new=new)
        after(now_s)
    return (time.process_time() - start_s) * 1e6


def _nothing(now_s: float) -> None: ...


def _bound(path: str) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.bind(path)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found = {
        f"{name}, {'new' if new else 'known'}, {batch} told at once": round(measure(size, batch, new=new), 2)
        for name, size in SIZES_BYTES.items()
        for new in (True, False)
        for batch in BATCHES
    }
    results.write(
        {"benchmark": "router/gossiping", "machine": machine.describe(), "us": found}, arguments.json
    )


if __name__ == "__main__":
    main()
