"""A real node with a simulated GPU: everything around the device is what users get, and what it says is checkable."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import core_harness
import http_calls
import real_node
from drift_engine import options
from drift_engine.core import simulated
from drift_engine.errors import EngineError

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
FORM = {
    "type": "object",
    "properties": {
        "city": {"enum": ["Paris", "Rome"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 14},
    },
    "required": ["city", "days"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Iterator[real_node.RealNode]:
    folder = tmp_path_factory.mktemp("sim")
    with real_node.started(folder, model, device="sim", mode="mux", max_running=32) as node:
        yield node
        node.signal()
        assert node.ended() == 0
        assert "Traceback" not in node.stderr()


@pytest.fixture
def node(shared: real_node.RealNode) -> Iterator[real_node.RealNode]:
    yield shared
    shared.settles()
    assert len(shared.processes()) == 2


def chat(node: real_node.RealNode, text: str = "What is Drift?", **fields: Any) -> dict[str, Any]:
    body = {"model": node.model, "messages": [{"role": "user", "content": text}], "max_tokens": 40, **fields}
    reply = node.post(CHAT, body)
    assert reply.status == 200, reply.raw
    found: dict[str, Any] = reply.json
    return found


def flush(node: real_node.RealNode) -> None:
    assert node.control("POST", "/control/v1/flush").status == 200


def test_it_runs_without_torch(node: real_node.RealNode) -> None:
    for pid in node.processes():
        assert "torch" not in Path(f"/proc/{pid}/maps").read_text()


def test_it_says_what_it_is(node: real_node.RealNode) -> None:
    report = node.report()
    assert len(report["legal_splits"]) == 15
    assert [split["decode_sms"] for split in report["legal_splits"]] == list(range(8, 128, 8))
    assert {split["decode_sms"] + split["prefill_sms"] for split in report["legal_splits"]} == {132}
    said = node.get("/metrics").raw.decode()
    assert "simulated h200 with llama-8b" in said or "simulated h200 with llama-8b" in json.dumps(report)


def test_chat_and_completions(node: real_node.RealNode) -> None:
    answer = chat(node, ignore_eos=True)
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 40
    content = answer["choices"][0]["message"]["content"]
    assert content.isprintable()
    reply = node.post(COMPLETIONS, node.completion("the lazy dog", max_tokens=30)).json
    assert reply["usage"]["completion_tokens"] == 30
    assert reply["choices"][0]["text"] != content
    other = node.post(COMPLETIONS, node.completion("the lazy cat", max_tokens=30)).json
    assert other["choices"][0]["text"] != reply["choices"][0]["text"]


def test_streams_say_the_same(node: real_node.RealNode) -> None:
    whole = node.post(COMPLETIONS, node.completion(max_tokens=50)).json["choices"][0]["text"]
    with node.stream(node.completion(max_tokens=50)) as events:
        parts = [choice["text"] for event in events for choice in event["choices"]]
    assert "".join(parts) == whole
    assert len(parts) > 10
    said = chat(node, ignore_eos=True)["choices"][0]["message"]["content"]
    body = {
        "model": node.model,
        "messages": [{"role": "user", "content": "What is Drift?"}],
        "max_tokens": 40,
    }
    with node.stream({**body, "ignore_eos": True}, CHAT) as events:
        deltas = [c["delta"].get("content") or "" for event in events for c in event["choices"]]
    assert "".join(deltas) == said


def test_answers_depend_on_the_prompt_alone(node: real_node.RealNode) -> None:
    """Asked again, beside twenty others of the same stem, and after a flush."""
    stem = list(range(20, 100)) * 3
    prompts = [[*stem, 100 + index, *range(150, 150 + 7 * index)] for index in range(21)]

    def ask(prompt: list[int]) -> tuple[str, int]:
        reply = node.post(COMPLETIONS, node.completion(prompt, max_tokens=12))
        assert reply.status == 200, reply.raw
        details = reply.json["usage"].get("prompt_tokens_details") or {}
        return reply.json["choices"][0]["text"], details.get("cached_tokens", 0)

    flush(node)
    first, cold = ask(prompts[0])
    again, warm = ask(prompts[0])
    assert again == first
    assert cold == 0
    assert warm >= len(prompts[0]) - real_node.PAGE_TOKENS
    alone = [ask(prompt)[0] for prompt in prompts]
    assert alone[0] == first
    assert len(set(alone)) == len(prompts)
    for flushed in (False, True):
        if flushed:
            flush(node)
        with ThreadPoolExecutor(len(prompts)) as pool:
            assert [text for text, _ in pool.map(ask, prompts)] == alone


def test_a_schema_is_obeyed(node: real_node.RealNode) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "trip", "schema": FORM, "strict": True}}
    seen = set()
    for index in range(6):
        choice = chat(node, f"question {index}", response_format=form, max_tokens=120)["choices"][0]
        assert choice["finish_reason"] == "stop"
        jsonschema.validate(json.loads(choice["message"]["content"]), FORM)
        seen.add(choice["message"]["content"])
    assert len(seen) > 1


def test_a_schema_that_ends_before_the_least_length_does_not_end_the_node(node: real_node.RealNode) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "trip", "schema": FORM, "strict": True}}
    body = {
        "model": node.model,
        "messages": [{"role": "user", "content": "soon"}],
        "response_format": form,
        "min_tokens": 100,
        "max_tokens": 120,
    }
    assert node.post(CHAT, body).status in (200, 400)
    chat(node)


def test_stops_and_least_lengths(node: real_node.RealNode) -> None:
    whole = node.post(COMPLETIONS, node.completion(max_tokens=40)).json["choices"][0]["text"]
    stop = whole[len(whole) // 2 :][:4]
    cut = node.post(COMPLETIONS, node.completion(max_tokens=40, stop=stop)).json["choices"][0]
    assert (cut["text"], cut["finish_reason"]) == (whole[: whole.index(stop)], "stop")
    words = [token for token, _ in node.tokens(max_tokens=40)]
    assert len(words) == 40
    # Half of all answers would end within 90 tokens.
    prompts = [[7, 8, index] for index in range(8)]
    body = node.completion(prompts, max_tokens=120, min_tokens=120, ignore_eos=False)
    choices = node.post(COMPLETIONS, body).json["choices"]
    assert [choice["finish_reason"] for choice in choices] == ["length"] * len(prompts)


def test_log_probabilities(node: real_node.RealNode) -> None:
    for top in (0, 3):
        choice = chat(node, logprobs=True, top_logprobs=top, max_tokens=5, ignore_eos=True)["choices"][0]
        entries = choice["logprobs"]["content"]
        assert len(entries) == 5
        assert all(len(entry["top_logprobs"]) <= top for entry in entries)


def test_bounds_move_the_split_under_load(node: real_node.RealNode) -> None:
    ended = threading.Event()

    def load(which: int) -> int:
        asked = 0
        while not ended.is_set():
            prompt = [(which * 7 + asked * 11 + place) % 300 + 3 for place in range(1200)]
            prompt[0] = 10 + which
            prompt[1:3] = [20 + asked % 200, 30 + asked // 200]  # no two begin alike
            reply = node.post(COMPLETIONS, node.completion(prompt, max_tokens=60))
            assert reply.status == 200, reply.raw
            asked += 1
        return asked

    def split() -> int | None:
        found = node.report()["split"]
        return None if found is None else int(found["decode_sms"])

    with ThreadPoolExecutor(6) as pool:
        loads = [pool.submit(load, which) for which in range(6)]
        try:
            real_node.until(lambda: split() is not None, "a split")
            for epoch, sms in enumerate((64, 104, 32), 1):
                asked = {"epoch": epoch, "bounds": {"min": sms, "max": sms}, "ttl_s": 60}
                reply = node.control("PUT", "/control/v1/split", asked)
                assert reply.status == 200, reply.raw
                real_node.until(lambda sms=sms: split() == sms, f"{sms} SMs for decode")  # type: ignore[misc]
                assert http_calls.metric(node.url, "drift_split_sms", phase="decode") == sms
                assert http_calls.metric(node.url, "drift_split_sms", phase="prefill") == 132 - sms
        finally:
            ended.set()
        assert all(one.result(real_node.DEADLINE_S) > 0 for one in loads)
    illegal = node.control("PUT", "/control/v1/split", {"epoch": 9, "decode_sms": 12, "ttl_s": 5})
    assert illegal.status == 400
    assert "8, 16, 24" in illegal.error["message"]


def test_drain_and_stop(model: Path, tmp_path: Path) -> None:
    """Who runs is answered, who comes is refused, and nothing is left."""
    with real_node.started(tmp_path, model, device="sim", sim_hardware="h100") as node:
        with ThreadPoolExecutor(2) as pool, node.stream(node.completion(max_tokens=1000)) as events:
            line = iter(events)
            next(line)
            drain = pool.submit(
                node.control, "POST", "/control/v1/drain", {"timeout_s": real_node.DEADLINE_S}
            )
            real_node.until(lambda: bool(node.report()["draining"]), "the node to drain")
            refused = node.post(COMPLETIONS, node.completion())
            assert refused.status == 503
            assert sum(len(event["choices"]) for event in line) > 0
            done = drain.result(real_node.DEADLINE_S).json
        assert (done["drained"], done["in_flight"], done["finished"]) == (True, 0, 1)
        node.signal()
        assert node.ended() == 0


def test_what_cannot_be_simulated_is_one_line(model: Path, tmp_path: Path) -> None:
    status, line = real_node.fails(tmp_path, model, device="sim", sim_hardware="tpu")
    assert (status, line) == (1, "hardware: 'tpu' is unknown; known: h100, h200")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"sim_model": "gpt-2"}, "known: llama-120m, llama-34b, llama-70b, llama-8b"),
        ({"sim_model": "llama-70b"}, "take more GPUs"),
        (
            {"kv_bytes": 1000},
            "kv_bytes: 1000 bytes hold 0 pages of 16 tokens of llama-8b; at least 2 are needed",
        ),
        (
            {"max_model_len_tokens": 10**6},
            "max_model_len_tokens: 1000000 is above the model's longest context",
        ),
    ],
    ids=lambda value: None if isinstance(value, str) else next(iter(value)),
)
def test_reasons_not_to_start(fields: dict[str, Any], said: str, model: Path) -> None:
    asked = options.NodeOptions(model=str(model), device="sim", **fields)
    with pytest.raises(EngineError) as raised:
        simulated.start(asked, model, core_harness.Mailbox())
    assert said in str(raised.value)


def test_sizes_are_those_of_the_simulated_model(model: Path) -> None:
    mailbox = core_harness.Mailbox()
    small = simulated.start(options.NodeOptions(model=str(model), device="sim"), model, mailbox).ready
    assert (small.device, small.hardware) == ("sim", "simulated h200 with llama-8b")
    assert small.parameters > 7e9
    assert small.max_model_len_tokens == real_node.CONTEXT_TOKENS
    assert small.kv_bytes // small.kv_pages >= 16 * 131_072
    few = options.NodeOptions(model=str(model), device="sim", kv_bytes=10 * 16 * 131_072 + 5)
    ready = simulated.start(few, model, mailbox).ready
    assert (ready.kv_pages, ready.kv_bytes, ready.max_model_len_tokens) == (10, 10 * 16 * 131_072, 160)
