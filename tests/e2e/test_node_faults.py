"""What a real node does when it can't start, when a part of it dies, and when it is told to stop."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import processes
import real_node

COMPLETIONS = "/v1/completions"
LONG = 1900

# start ----------------------------------------------------------------------------------------------------


def change_config(folder: Path, **fields: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **fields}))


def truncate(folder: Path) -> None:
    weights = folder / "model.safetensors"
    os.truncate(weights, weights.stat().st_size // 2)


def nothing(folder: Path) -> None:
    pass


FAULTS: dict[str, tuple[Callable[[Path], object], dict[str, Any], int, list[str]]] = {
    # what is done to the model's folder, options, exit status, words of the line
    "no folder": (shutil.rmtree, {}, 1, ["FOLDER does not exist", "hf://"]),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), {}, 1, ["FOLDER", "safetensors"]),
    "truncated weights": (truncate, {}, 1, ["FOLDER/model.safetensors", "truncated"]),
    "unknown architecture": (
        lambda folder: change_config(folder, architectures=["WizardForCausalLM"], model_type="wizard"),
        {},
        1,
        ["WizardForCausalLM", "LlamaForCausalLM"],
    ),
    "no tokenizer": (
        lambda folder: (folder / "tokenizer.json").unlink(),
        {},
        1,
        ["FOLDER/tokenizer.json", "save it"],
    ),
    "damaged tokenizer": (
        lambda folder: (folder / "tokenizer.json").write_text("{"),
        {},
        1,
        ["FOLDER/tokenizer.json", "can't be read"],
    ),
    "option": (nothing, {"speed": "high"}, 2, ["speed"]),
    "small cache": (nothing, {"kv_bytes": 1000}, 1, ["kv_bytes", "1000", "at least 2"]),
}

Failures = dict[str, Future[tuple[int, str]]]


@pytest.fixture(scope="module")
def failures(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Failures]:
    """All of them side by side: most of each is the import of torch."""

    def fail(fault: str) -> tuple[int, str]:
        inflict, options, _, _ = FAULTS[fault]
        folder = tmp_path_factory.mktemp("faults") / "model"
        shutil.copytree(model, folder)
        inflict(folder)
        status, line = real_node.fails(folder.parent / "node", folder, **options)
        return status, line.replace(str(folder), "FOLDER")

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield {fault: pool.submit(fail, fault) for fault in FAULTS}


@pytest.mark.parametrize("fault", FAULTS)
def test_node_that_can_not_start_says_why_in_a_line(failures: Failures, fault: str) -> None:
    _, _, expected, words = FAULTS[fault]
    status, line = failures[fault].result(real_node.DEADLINE_S)
    assert status == expected
    assert all(word in line for word in words), line


@pytest.mark.parametrize("option", ["port", "control_port"])
def test_port_in_use(model: Path, tmp_path: Path, option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        status, line = real_node.fails(tmp_path, model, **{option: port})
    assert (status, line) == (
        2,
        f"{option}: {port} on 127.0.0.1 is in use: stop the program that uses it or choose another port "
        "(0 takes a free one)",
    )


# keys, and a disk without room for the log ----------------------------------------------------------------

KEYS = ("first key", "second key")


@pytest.fixture(scope="module")
def guarded_node(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[real_node.RealNode]:
    with real_node.started(
        tmp_path_factory.mktemp("guarded"),
        model,
        stderr=Path("/dev/full"),
        log_level="debug",
        api_key_sha256=[hashlib.sha256(key.encode()).hexdigest() for key in KEYS],
    ) as node:
        yield node
        node.signal()
        assert node.ended() == 0


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def test_full_disk_for_logs_costs_lines_and_nothing_else(guarded_node: real_node.RealNode) -> None:
    """At the most talkative level; its end, without a word of why, is asserted by the fixture."""
    body = guarded_node.completion(max_tokens=50)
    first = guarded_node.post(COMPLETIONS, body, **bearer(KEYS[0]))
    with ThreadPoolExecutor(8) as pool:
        others = pool.map(lambda _: guarded_node.post(COMPLETIONS, body, **bearer(KEYS[0])), range(24))
        assert all(other.json["choices"] == first.json["choices"] for other in others)
    guarded_node.settles()


def test_api_keys(guarded_node: real_node.RealNode) -> None:
    node = guarded_node
    body = node.completion("some prompt of a tenant " * 5)
    for headers in ({}, bearer("wrong"), bearer(""), {"authorization": f"Basic {KEYS[0]}"}):
        for reply in (node.post(COMPLETIONS, body, **headers), node.get("/v1/models", **headers)):
            assert (reply.status, reply.error["code"]) == (401, "invalid_api_key")
            assert reply.headers["www-authenticate"] == "Bearer"
    assert node.get("/v1/models", **bearer(KEYS[1])).status == 200
    assert [node.get(path).status for path in ("/healthz", "/readyz", "/metrics")] == [200] * 3
    cached = [
        node.post(COMPLETIONS, body, **bearer(key)).json["usage"]["prompt_tokens_details"]["cached_tokens"]
        for key in (KEYS[0], KEYS[1], KEYS[0])
    ]
    assert cached[:2] == [0, 0], "keys do not share cached prefixes"
    assert cached[2] > 0


# ends -----------------------------------------------------------------------------------------------------


@pytest.fixture
def own_node(model: Path, tmp_path: Path) -> Iterator[real_node.RealNode]:
    """A node for one test, which may end it."""
    with real_node.started(tmp_path / "node", model) as node:
        yield node


def test_killed_core_ends_requests_and_node_with_the_reason(own_node: real_node.RealNode) -> None:
    node = own_node
    with (
        ThreadPoolExecutor(1) as pool,
        node.stream(node.completion(max_tokens=LONG)) as stream,
    ):
        whole = pool.submit(node.post, COMPLETIONS, node.completion(max_tokens=LONG))
        events = iter(stream)
        assert next(events)["choices"]
        real_node.until(lambda: node.report()["running"] == 2, "both requests to run")
        os.kill(node.core_pid, signal.SIGKILL)
        *answered, last = events
        assert all("error" not in event for event in answered)
        reply = whole.result(real_node.DEADLINE_S)
    assert reply.status == 503  # so that a router asks another node
    assert last == {"error": reply.error}
    assert (reply.error["type"], reply.error["code"]) == ("server_error", "unavailable")
    assert "SIGKILL" in reply.error["message"]
    assert node.ended() == 1
    assert node.error() == ("the core process was ended by SIGKILL; the machine may have run out of memory")


def test_killed_node_takes_its_core_along(own_node: real_node.RealNode) -> None:
    core_pid = own_node.core_pid
    with own_node.stream(own_node.completion(max_tokens=LONG)) as stream:
        assert next(iter(stream))
        own_node.signal(signal.SIGKILL)
        assert processes.ends(core_pid)
    assert own_node.ended() == -signal.SIGKILL


def test_signal_during_a_stream_lets_it_finish(own_node: real_node.RealNode) -> None:
    node = own_node
    with node.stream(node.completion(max_tokens=500)) as stream:
        events = iter(stream)
        first = next(events)
        node.signal()
        *_, last = [first, *events]
    assert last["choices"][0]["finish_reason"] == "length"
    assert node.ended() == 0
    assert "error" not in node.stderr()


def test_second_signal_ends_it_at_once(own_node: real_node.RealNode) -> None:
    node = own_node
    with node.stream(node.completion(max_tokens=LONG, n=8)) as stream:
        assert next(iter(stream))
        node.signal()
        real_node.until(lambda: node.get("/readyz").json["status"] == "draining", "the node to drain")
        node.signal()
        assert node.ended() == 128 + signal.SIGTERM


def test_signal_while_it_loads(model: Path, tmp_path: Path) -> None:
    node = real_node.RealNode(tmp_path, model)
    try:
        node.wait_listening()
        node.signal()
        assert node.ended() == 0
    finally:
        node.kill()


def test_drain_through_the_control_port(own_node: real_node.RealNode) -> None:
    node = own_node
    alone = node.tokens(max_tokens=400)
    with ThreadPoolExecutor(2) as pool:
        stream = pool.submit(node.tokens, max_tokens=400)
        real_node.until(lambda: node.report()["running"] == 1, "the request to run")
        drain = pool.submit(node.control, "POST", "/control/v1/drain", {"timeout_s": real_node.DEADLINE_S})
        real_node.until(lambda: bool(node.report()["draining"]), "the node to drain")
        refused = node.post(COMPLETIONS, node.completion())
        assert (refused.status, refused.error["code"]) == (503, "unavailable")
        assert int(refused.headers["retry-after"]) >= 1
        assert "draining" in refused.error["message"]
        assert [node.get(path).status for path in ("/healthz", "/readyz")] == [200, 503]
        assert stream.result(real_node.DEADLINE_S) == alone
        done = drain.result(real_node.DEADLINE_S).json
    assert (done["drained"], done["in_flight"], done["finished"]) == (True, 0, 1)
    assert node.settled()
    node.signal(signal.SIGINT)
    assert node.ended() == 0


def test_drain_has_an_end(model: Path, tmp_path: Path) -> None:
    """Requests that take longer are told so."""
    with real_node.started(tmp_path, model, drain_timeout_s=0.1) as node:
        with node.stream(node.completion(max_tokens=LONG, n=8)) as stream:
            events = iter(stream)
            assert next(events)
            node.signal()
            *_, last = events
        assert (last["error"]["type"], last["error"]["code"]) == ("server_error", "unavailable")
        assert "0.1 s is up" in last["error"]["message"]
        assert node.ended() == 0


def test_core_killed_while_the_node_drains(own_node: real_node.RealNode) -> None:
    """Nobody waits for the rest of the drain's time."""
    node = own_node
    with node.stream(node.completion(max_tokens=LONG, n=8)) as stream:
        events = iter(stream)
        assert next(events)
        core_pid = node.core_pid
        node.signal()
        real_node.until(lambda: node.get("/readyz").json["status"] == "draining", "the node to drain")
        os.kill(core_pid, signal.SIGKILL)
        *_, last = events
    assert "SIGKILL" in last["error"]["message"]
    assert node.ended() == 1
