"""What a vLLM server sends over HTTP, byte by byte: answers, streams, errors, metrics, as seen of 0.11 to 0.29.

Texts are ours; fields, their order and their nulls are vLLM's, and so are headers and one chunk for an event.
"""

from __future__ import annotations

from collections.abc import Sequence

_HEAD = b"date: Sat, 21 Nov 2026 10:00:00 GMT\r\nserver: uvicorn\r\n"
_CHUNK = '{"id":"chatcmpl-8b29171c942b1065","object":"chat.completion.chunk","created":1766068536,"model":"served",'

ROLE = _CHUNK + (
    '"choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],'
    '"prompt_token_ids":null}'
)
DONE = "[DONE]"


def _delta(delta: str, finish: str = '"finish_reason":null') -> str:
    return _CHUNK + f'"choices":[{{"index":0,"delta":{delta},"logprobs":null,{finish},"token_ids":null}}]}}'


def _usage(prompt: int, completion: int) -> str:
    counts = f'"prompt_tokens":{prompt},"total_tokens":{prompt + completion},"completion_tokens":{completion}'
    return _CHUNK + f'"choices":[],"usage":{{{counts}}}}}'


STOP = '"finish_reason":"stop","stop_reason":null'
CHAT = [
    ROLE,
    _delta('{"content":"Paris"}'),
    _delta('{"content":" is"}'),
    _delta('{"content":" it"}'),
    _delta('{"content":"."}'),
    _delta('{"content":""}', STOP),
    _usage(15, 5),
    DONE,
]
"""With `stream_options: {"include_usage": true}`. The last token is the end's, which has no text."""

THINKING = [
    ROLE,
    _delta('{"reasoning":"Is"}'),
    _delta('{"reasoning":" it"}'),
    _delta('{"content":"Yes"}'),
    _delta('{"content":"."}', STOP),
    _usage(15, 4),
    DONE,
]
"""Since 0.12; before, and in some versions beside it, the field was `reasoning_content`."""

THINKING_BEFORE = [event.replace('"reasoning"', '"reasoning_content"') for event in THINKING]

TOOL = [
    ROLE,
    _delta(
        '{"tool_calls":[{"id":"chatcmpl-tool-5f","type":"function","index":0,"function":{"name":"weather"}}]}'
    ),
    _delta('{"tool_calls":[{"index":0,"function":{"arguments":"{\\"city\\": "}}]}'),
    _delta('{"tool_calls":[{"index":0,"function":{"arguments":"\\"Paris\\"}"}}]}'),
    _delta('{"content":""}', '"finish_reason":"tool_calls","stop_reason":null'),
    _usage(112, 4),
    DONE,
]

BROKEN = [
    ROLE,
    _delta('{"content":"Paris"}'),
    '{"error":{"message":"EngineCore encountered an issue. See stack trace (above) for the root cause.",'
    '"type":"InternalServerError","param":null,"code":500}}',
    DONE,
]
"""The engine died: status 200 was said long before."""

WHOLE = (
    b'{"id":"chatcmpl-b0eb92f5dcb2c5b7","object":"chat.completion","created":1772501603,"model":"served",'
    b'"choices":[{"index":0,"message":{"role":"assistant","content":"Paris is it.","refusal":null,'
    b'"annotations":null,"audio":null,"function_call":null,"tool_calls":[],"reasoning":null},"logprobs":null,'
    b'"finish_reason":"stop","stop_reason":null,"token_ids":null}],"service_tier":null,'
    b'"system_fingerprint":null,"usage":{"prompt_tokens":36,"total_tokens":41,"completion_tokens":5,'
    b'"prompt_tokens_details":null},"prompt_logprobs":null,"prompt_token_ids":null,"kv_transfer_params":null}'
)

UNKNOWN_MODEL = (
    b'{"error":{"message":"The model `other` does not exist.","type":"NotFoundError",'
    b'"param":"model","code":404}}'
)
TOO_LONG = (
    b'{"error":{"message":"This model\'s maximum context length is 1024 tokens. However, your request has 1500 '
    b'input tokens. Please reduce the length of the input messages.","type":"BadRequestError",'
    b'"param":"input_tokens","code":400}}'
)
NOT_READY = (
    b'{"error":{"message":"Service Unavailable","type":"Service Unavailable","param":null,"code":503}}'
)

MODELS = (
    b'{"object":"list","data":[{"id":"served","object":"model","created":1766068500,"owned_by":"vllm",'
    b'"root":"Qwen/Qwen3-8B","parent":null,"max_model_len":1024,"permission":[{"id":"modelperm-1",'
    b'"object":"model_permission","created":1766068500,"allow_create_engine":false,"allow_sampling":true,'
    b'"allow_logprobs":true,"allow_search_indices":false,"allow_view":true,"allow_fine_tuning":false,'
    b'"organization":"*","group":null,"is_blocking":false}]}]}'
)

METRICS = """\
# HELP python_gc_objects_collected_total Objects collected during gc
# TYPE python_gc_objects_collected_total counter
python_gc_objects_collected_total{generation="0"} 12188.0
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="served"} 2.0
# HELP vllm:kv_cache_usage_perc KV-cache usage. 1 means 100 percent usage.
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="served"} 0.25
# HELP vllm:prompt_tokens_total Number of prefill tokens processed.
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{engine="0",model_name="served"} 1036.0
# HELP vllm:prompt_tokens_created Number of prefill tokens processed.
# TYPE vllm:prompt_tokens_created gauge
vllm:prompt_tokens_created{engine="0",model_name="served"} 1.79e+09
# HELP vllm:generation_tokens_total Number of generation tokens processed.
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{engine="0",model_name="served"} 3.105e+03
# HELP vllm:request_success_total Count of successfully processed requests.
# TYPE vllm:request_success_total counter
vllm:request_success_total{engine="0",finished_reason="stop",model_name="served"} 6.0
vllm:request_success_total{engine="0",finished_reason="length",model_name="served"} 3.0
vllm:request_success_total{engine="0",finished_reason="abort",model_name="served"} 1.0
vllm:request_success_total{engine="0",finished_reason="error",model_name="served"} 1.0
vllm:request_success_total{engine="0",finished_reason="repetition",model_name="served"} 0.0
# HELP vllm:cache_config_info Information of the LLMEngine CacheConfig
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{block_size="16",cache_dtype="auto",engine="0",num_gpu_blocks="34470"} 1.0
"""


def body(events: Sequence[str]) -> bytes:
    """What a client reads of a stream."""
    return b"".join(f"data: {event}\n\n".encode() for event in events)


def streamed(events: Sequence[str]) -> bytes:
    """The whole of it on the wire."""
    chunks = b"".join(_chunk(body([event])) for event in events)
    kind = b"content-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
    return b"HTTP/1.1 200 OK\r\n" + _HEAD + kind + chunks + b"0\r\n\r\n"


def answered(body: bytes, status: str = "200 OK") -> bytes:
    kind = b"content-length: %d\r\ncontent-type: application/json\r\n\r\n" % len(body)
    return b"HTTP/1.1 %s\r\n" % status.encode() + _HEAD + kind + body


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)
