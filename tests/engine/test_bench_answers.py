"""Event streams, and what chunks say about tokens."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import vllm_answers
from drift_engine.bench import counters, sse
from drift_engine.bench.answers import Answer, AnswerError
from drift_engine.bench.sse import SseParser

STREAM = b': hi\r\n\r\ndata: {"a": 1}\r\n\r\nevent: x\ndata:two\ndata: lines\n\nid: 3\n\ndata: [DONE]\n\n'


@given(cuts=st.lists(st.integers(0, len(STREAM)), max_size=6))
def test_events_do_not_depend_on_how_bytes_arrive(cuts: list[int]) -> None:
    parser, events = SseParser(), []
    edges = [0, *sorted(cuts), len(STREAM)]
    for start, end in itertools.pairwise(edges):
        events += parser.feed(STREAM[start:end])
    assert events == [b'{"a": 1}', b"two\nlines", b"[DONE]"]


def test_an_endless_event_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 100)
    with pytest.raises(sse.EventTooLong, match="longer than 100 bytes"):
        SseParser().feed(b"data: " + b"x" * 200)


def chunk(usage: dict[str, Any] | None = None, **choice: Any) -> bytes:
    choices = [{"index": 0, "finish_reason": None, **choice}] if choice else []
    return json.dumps({"choices": choices, "usage": usage}).encode()


def fed(*events: tuple[float, bytes]) -> Answer:
    answer = Answer()
    for time_s, data in events:
        answer.feed(data, time_s)
    answer.close()
    return answer


END = (9.0, chunk(text="", finish_reason="length"))


def usage(total: int) -> dict[str, Any]:
    return {"prompt_tokens": 5, "completion_tokens": total, "prompt_tokens_details": {"cached_tokens": 4}}


def test_text_chunks_count_as_one_and_usage_confirms() -> None:
    answer = fed(
        (1.0, chunk(text="a")), (2.0, chunk(text="b")), END, (9.0, chunk(usage(2))), (9.0, b"[DONE]")
    )
    assert (answer.token_times_s, answer.token_counts, answer.exact_counts) == ([1.0, 2.0], [1, 1], True)
    assert (answer.prompt_tokens, answer.cached_tokens, answer.output_tokens) == (5, 4, 2)
    assert answer.done
    assert answer.finish_reason == "length"


def test_tokens_without_text_make_the_count_inexact() -> None:
    answer = fed((1.0, chunk(text="a")), END, (9.0, chunk(usage(3))))
    assert (answer.token_counts, answer.output_tokens, answer.exact_counts) == ([1], 3, False)


def test_no_usage_is_inexact() -> None:
    answer = fed((1.0, chunk(text="a")), END)
    assert (answer.output_tokens, answer.exact_counts) == (None, False)


def test_usage_with_every_chunk_counts_tokens_without_text() -> None:
    answer = fed(
        (1.0, chunk(usage(1), text="")),
        (2.0, chunk(usage(4), text="abc")),
        (3.0, chunk(usage(4), text="", finish_reason="stop")),
    )
    assert (answer.token_times_s, answer.token_counts, answer.exact_counts) == ([1.0, 2.0], [1, 3], True)


@pytest.mark.parametrize(
    "choice",
    [
        {"text": "", "token_ids": [7, 8]},
        {"text": "ab", "logprobs": {"tokens": ["a", "b"]}},
        {"delta": {"content": "ab"}, "logprobs": {"content": [{"token": "a"}, {"token": "b"}]}},
    ],
)
def test_chunks_that_name_their_tokens(choice: dict[str, Any]) -> None:
    assert fed((1.0, chunk(**choice)), END).token_counts == [2]


@pytest.mark.parametrize(
    ("delta", "count"),
    [
        ({"role": "assistant"}, 0),
        ({"role": "assistant", "content": ""}, 0),
        ({"content": "x"}, 1),
        ({"reasoning": "x"}, 1),
        ({"reasoning_content": "x"}, 1),
        ({"tool_calls": [{"index": 0}]}, 1),
    ],
)
def test_which_deltas_hold_a_token(delta: dict[str, Any], count: int) -> None:
    assert sum(fed((1.0, chunk(delta=delta)), END).token_counts) == count


def test_chunks_read_at_one_instant_are_one_arrival() -> None:
    answer = fed((1.0, chunk(text="a")), (1.0, chunk(text="b")), (2.0, chunk(text="c")), END)
    assert (answer.token_times_s, answer.token_counts) == ([1.0, 2.0], [2, 1])


@pytest.mark.parametrize(
    ("events", "complaint"),
    [
        ([b'{"error": {"message": "out of\\nmemory", "code": 500}}'], "stream: out of memory"),
        ([b'{"error": "plain"}'], "stream: plain"),
        ([b"{"], "malformed chunk"),
        ([b'{"choices": 3}'], "malformed chunk"),
        ([chunk(text="a"), b"[DONE]"], "ended before the answer did"),
        ([], "ended before the answer did"),
    ],
)
def test_answers_that_fail(events: list[bytes], complaint: str) -> None:
    with pytest.raises(AnswerError, match=complaint):
        fed(*[(1.0, data) for data in events])


@pytest.mark.parametrize(
    ("events", "counted", "said"),
    [
        (vllm_answers.CHAT, 4, 5),  # the end's token has no text
        (vllm_answers.THINKING, 4, 4),
        (vllm_answers.THINKING_BEFORE, 4, 4),
        (vllm_answers.TOOL, 3, 4),
    ],
)
def test_vllms_streams_are_understood(events: list[str], counted: int, said: int) -> None:
    data = SseParser().feed(vllm_answers.body(events))
    answer = fed(*[(float(time_s), event) for time_s, event in enumerate(data)])
    assert (answer.done, answer.finish_reason in ("stop", "tool_calls")) == (True, True)
    assert (sum(answer.token_counts), answer.output_tokens) == (counted, said)
    assert answer.token_times_s[0] == 1.0, "the role is no token"


def test_vllms_engine_that_died_is_a_failed_answer() -> None:
    data = SseParser().feed(vllm_answers.body(vllm_answers.BROKEN))
    with pytest.raises(AnswerError, match="EngineCore encountered an issue"):
        fed(*[(1.0, event) for event in data])


def test_vllms_counters_are_understood() -> None:
    found = counters.parse(vllm_answers.METRICS)
    assert found[counters.REQUESTS] == 9
    assert found[counters.PROMPT_TOKENS] == 1036
    assert found[counters.GENERATION_TOKENS] == 3105
