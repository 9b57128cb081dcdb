"""The control port: token, report, drain, flush, and the log of the prefix cache."""

from __future__ import annotations

import asyncio
import functools
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

import api_node
import fake_core
import http_calls
import waiting
from drift_engine import wire
from drift_engine.api import token_gate
from drift_engine.api.kv_events import Gone, KvLog

TOKEN = {"x-drift-token": api_node.CONTROL_TOKEN}
CHAT: Any = {"model": "small", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
def node() -> Iterator[api_node.ApiNode]:
    with api_node.node() as running:
        yield running


def stored(sequence: int, blocks: list[int], parent: int | None) -> wire.KvEvents:
    return wire.KvEvents(sequence, [wire.Stored(blocks, parent, list(range(16 * len(blocks))), 16)])


def test_everything_needs_the_token(node: api_node.ApiNode) -> None:
    paths = [
        ("GET", "/control/v1/report"),
        ("POST", "/control/v1/drain"),
        ("POST", "/control/v1/flush"),
        ("PUT", "/control/v1/split"),
        ("PUT", "/control/v1/targets"),
        ("GET", "/kv/v1/events"),
        ("GET", "/kv/v1/state"),
    ]
    for method, path in paths:
        for headers in ({}, {"x-drift-token": "wrong"}, {"authorization": "Bearer wrong"}):
            reply = http_calls.call(node.control_url, method, path, headers=headers)
            assert (reply.status, reply.error["code"]) == (401, "invalid_control_token")
        assert http_calls.call(node.url, method, path, headers=TOKEN).status == 404, "not on the public port"
    assert node.context.health.draining is False
    bearer = {"authorization": f"Bearer {api_node.CONTROL_TOKEN}"}
    assert http_calls.get(node.control_url, "/control/v1/report", bearer).status == 200


def test_report(node: api_node.ApiNode) -> None:
    http_calls.post(node.url, "/v1/chat/completions", CHAT)
    raw = http_calls.get(node.control_url, "/control/v1/report", TOKEN).raw
    report = msgspec.json.decode(raw, type=wire.Report)
    assert (report.node, report.model, report.ready, report.draining) == ("node-0", "small", True, False)
    assert (report.in_flight, report.running, report.kv_pages_total) == (0, 0, 1024)
    assert report.tbt_p50_ms > 0
    assert report.ahead == fake_core.AHEAD
    with node.stalled():
        asking = threading.Thread(target=http_calls.post, args=(node.url, "/v1/chat/completions", CHAT))
        asking.start()
        node.until(lambda: bool(node.core.running))
        raw = http_calls.get(node.control_url, "/control/v1/report", TOKEN).raw
        assert msgspec.json.decode(raw, type=wire.Report).in_flight == 1
    asking.join(10)


def test_what_passes_cost_is_in_the_report(node: api_node.ApiNode) -> None:
    costs = wire.Costs(
        (wire.SplitCost(1, 3, (1e-9, 2e-9, 1e-5, 1e-3), (1e-8, 1e-5, 1e-2), 1.25),),
        wire.SplitCost(4, 4, (1e-9, 2e-9, 5e-6, 1e-3), (1e-8, 1e-5, 5e-3)),
    )
    node.call(lambda: node.core.send(costs))
    http_calls.post(node.url, "/v1/chat/completions", CHAT)  # comes behind it
    raw = http_calls.get(node.control_url, "/control/v1/report", TOKEN).raw
    report = msgspec.json.decode(raw, type=wire.Report)
    assert (report.costs, report.whole) == (costs.splits, costs.whole)
    assert report.max_running == node.context.options.max_running


def test_drain_waits_for_those_in_flight(node: api_node.ApiNode) -> None:
    replies: list[http_calls.Reply] = []
    asking = threading.Thread(
        target=lambda: replies.append(http_calls.post(node.url, "/v1/chat/completions", CHAT))
    )
    with node.stalled():
        asking.start()
        node.until(lambda: bool(node.core.running))
        found = http_calls.post(node.control_url, "/control/v1/drain", {"timeout_s": 0.05}, TOKEN).json
        assert (found["drained"], found["in_flight"], found["finished"]) == (False, 1, 0)
        assert http_calls.get(node.url, "/readyz").status == 503
        assert http_calls.post(node.url, "/v1/chat/completions", CHAT).status == 503
    found = http_calls.post(node.control_url, "/control/v1/drain", None, TOKEN).json
    assert (found["drained"], found["in_flight"]) == (True, 0)
    asking.join(10)
    assert [reply.status for reply in replies] == [200]
    bad = http_calls.post(node.control_url, "/control/v1/drain", {"timeout_s": -1}, TOKEN)
    assert (bad.status, bad.error["param"]) == (400, "timeout_s")


def test_flush(node: api_node.ApiNode) -> None:
    assert http_calls.post(node.control_url, "/control/v1/flush", None, TOKEN).status == 200
    node.until(lambda: node.core.flushes == 1)


def test_events_are_followed_from_a_number(node: api_node.ApiNode) -> None:
    first = stored(1, [11, 12], None)
    node.call(lambda: node.core.send(first))
    node.call(lambda: node.core.send(wire.KvEvents(2, [wire.Removed([12]), wire.Cleared()])))
    host, port = node.control_url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=20)
    connection.request("GET", "/kv/v1/events?after=0", headers=TOKEN)
    response = connection.getresponse()
    lines = [json.loads(response.readline()) for _ in range(3)]
    assert [line["sequence"] for line in lines] == [1, 2, 3]
    assert [line["type"] for line in lines] == ["Stored", "Removed", "Cleared"]
    assert (lines[0]["block_hashes"], lines[0]["parent_hash"]) == ([11, 12], None)
    node.call(lambda: node.core.send(stored(4, [13], None)))
    assert json.loads(response.readline())["sequence"] == 4
    connection.close()
    state = http_calls.get(node.control_url, "/kv/v1/state", TOKEN).json
    assert state == {"sequence": 4, "page_tokens": 16, "blocks": [[13, None]]}


def test_what_the_log_forgot_is_gone(node: api_node.ApiNode) -> None:
    for sequence in range(1, 100):
        event = stored(sequence, [sequence], sequence - 1 or None)
        node.call(functools.partial(node.core.send, event))
    node.call(lambda: node.core.send(wire.KvEvents(100, [])))
    node.call(lambda: waiting.until(lambda: node.context.kv_log.sequence == 99))
    assert http_calls.get(node.control_url, "/kv/v1/events?after=3", TOKEN).status == 410
    assert http_calls.get(node.control_url, "/kv/v1/events?after=5000", TOKEN).status == 410
    bad = http_calls.get(node.control_url, "/kv/v1/events?after=x", TOKEN)
    assert bad.status == 400
    blocks = http_calls.get(node.control_url, "/kv/v1/state", TOKEN).json["blocks"]
    assert blocks == [[each, each - 1 or None] for each in range(1, 100)]


def test_the_log_alone() -> None:
    log = KvLog(limit=3)
    assert log.after(0) == []
    log.add(stored(1, [1, 2], None))
    log.add(stored(2, [3], 2))
    log.add(stored(3, [1, 2], None))  # seen again: parents still come first
    log.add(wire.KvEvents(4, [wire.Removed([3])]))
    assert log.state()["blocks"] == [[1, None], [2, 1]]
    assert [event["sequence"] for event in log.after(2)] == [3, 4]
    assert log.after(4) == []
    with pytest.raises(Gone):
        log.after(0)
    with pytest.raises(Gone):
        log.after(5)


def test_a_change_that_comes_before_the_wait_has_begun_is_not_missed() -> None:
    async def run() -> None:
        log = KvLog()
        change = asyncio.ensure_future(log.change())  # a task: it begins after what the loop has in line
        log.add(stored(1, [1], None))
        async with asyncio.timeout(20):
            await change

    asyncio.run(run())


def put(node: api_node.ApiNode, path: str, body: Any) -> http_calls.Reply:
    return http_calls.call(node.control_url, "PUT", path, body, TOKEN)


def test_bounds_of_the_split_reach_the_core(node: api_node.ApiNode) -> None:
    reply = put(node, "/control/v1/split", {"epoch": 3, "generation": 7, "decode_sms": 2, "weight": 0.5})
    assert (reply.status, reply.json["epoch"]) == (200, 3)
    assert reply.json["legal_splits"] == [
        {"decode_sms": 1, "prefill_sms": 3},
        {"decode_sms": 2, "prefill_sms": 2},
    ]
    node.until(lambda: bool(node.core.bounds))
    told = node.core.bounds[-1]
    assert (told.epoch, told.decode_sms_min, told.decode_sms_max) == (3, 2, 2)
    http_calls.post(node.url, "/v1/chat/completions", CHAT)  # a step tells that the core keeps them
    raw = http_calls.get(node.control_url, "/control/v1/report", TOKEN).raw
    report = msgspec.json.decode(raw, type=wire.Report)
    assert (report.epoch, report.generation, report.weight, report.applied) == (3, 7, 0.5, True)
    assert report.bounds == (2, 2)


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"epoch": 2}, 409, "epoch: 2 is older than 3, which this node keeps"),
        (
            {"epoch": 4, "decode_sms": 3},
            400,
            "decode_sms: 3 is no split of this device; legal decode_sms: 1, 2",
        ),
        (
            {"epoch": 4, "bounds": {"min": 3, "max": 9}},
            400,
            "bounds: 3 to 9 is no split of this device; legal decode_sms: 1, 2",
        ),
    ],
)
def test_set_points_that_cannot_be_kept_are_refused(
    node: api_node.ApiNode, body: Any, status: int, message: str
) -> None:
    assert put(node, "/control/v1/split", {"epoch": 3, "bounds": {"min": 1, "max": 2}}).status == 200
    reply = put(node, "/control/v1/split", body)
    assert (reply.status, reply.error["message"]) == (status, message)
    node.until(lambda: bool(node.core.bounds))
    assert [bounds.epoch for bounds in node.core.bounds] == [3]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"epoch": 0}, "epoch"),
        ({"epoch": 1, "weight": 2}, "weight"),
        ({"epoch": 1, "ttl_s": 0}, "ttl_s"),
        ({"epoch": 1, "decode_sms": 0}, "decode_sms"),
        ({"epoch": 1, "bounds": {"min": 1}}, "bounds.max"),
    ],
)
def test_malformed_set_points_name_the_field(node: api_node.ApiNode, body: Any, param: str) -> None:
    reply = put(node, "/control/v1/split", body)
    assert (reply.status, reply.error["param"]) == (400, param)


def test_a_promise_changes_while_the_node_serves(node: api_node.ApiNode) -> None:
    asked = {"ttft_ms": 300, "ttft_per_token_ms": 0.5, "tbt_ms": 20}
    assert put(node, "/control/v1/targets", asked).json == {"slo": asked}
    node.until(lambda: node.core.targets is not None)
    assert node.core.targets == wire.Targets(300, 0.5, 20)
    raw = http_calls.get(node.control_url, "/control/v1/report", TOKEN).raw
    assert msgspec.json.decode(raw, type=wire.Report).slo == wire.Targets(300, 0.5, 20)
    assert put(node, "/control/v1/targets", {"ttft_ms": 0, "tbt_ms": 20}).error["param"] == "ttft_ms"


def test_a_body_from_a_stranger_is_not_read(node: api_node.ApiNode) -> None:
    host, port = node.control_url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(b"PUT /control/v1/split HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n{")
        assert connection.recv(65536).startswith(b"HTTP/1.1 401 ")


def test_a_body_is_bounded_in_size_and_time(node: api_node.ApiNode, monkeypatch: pytest.MonkeyPatch) -> None:
    body = b" " * (token_gate.MAX_BODY_BYTES + 1)
    reply = http_calls.call(node.control_url, "PUT", "/control/v1/split", body, headers=TOKEN)
    assert (reply.status, reply.error["code"]) == (413, "too_large")
    monkeypatch.setattr(token_gate, "BODY_S", 0.2)
    host, port = node.control_url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        head = f"PUT /control/v1/split HTTP/1.1\r\nhost: x\r\nx-drift-token: {api_node.CONTROL_TOKEN}\r\n"
        connection.sendall(f"{head}content-type: application/json\r\ncontent-length: 100\r\n\r\n{{".encode())
        assert connection.recv(65536).startswith(b"HTTP/1.1 408 ")
