"""What clients may send, as pydantic models: the OpenAI fields, vLLM's sampling extensions, and nothing else.

Unknown fields are errors, types are strict (no "5" for 5), bounds are those of the OpenAI reference where it has one.
`None` means "not given" everywhere, as the official client sends nulls.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, PlainValidator
from pydantic_core import PydanticCustomError

MAX_CHOICES = 16
MAX_STOPS = 16
MAX_STOP_CHARS = 1024
MAX_PROMPTS = 128
MAX_TOP_LOGPROBS = 20
MAX_BIASES = 1024
MAX_MESSAGES = 4096
MAX_TOOLS = 128
MAX_CALLS = 128
"""In one message."""

MAX_NESTING = 64
"""Levels of a client's own JSON. Whoever walks it by recursion, as pydantic does up to 255, has room to spare."""

Seed = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
TokenId = Annotated[int, Field(ge=0)]

# What the checks below take, in words of the OpenAPI document.
_Texts = Annotated[list[str], Field(min_length=1, max_length=MAX_PROMPTS)]
_Tokens = Annotated[list[TokenId], Field(min_length=1)]
_TokenLists = Annotated[list[_Tokens], Field(min_length=1, max_length=MAX_PROMPTS)]
_Stop = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARS)]
_Stops = Annotated[list[_Stop], Field(max_length=MAX_STOPS)]


def _refuse(message: str) -> PydanticCustomError:
    return PydanticCustomError("value", "{message}", {"message": message})


def _is_token(value: object) -> bool:
    return type(value) is int and value >= 0


def _check_prompts(value: Any) -> list[str | list[int]]:
    """One form for the four that OpenAI takes: a list of prompts, each a text or token ids."""
    if isinstance(value, str):
        return [_text(value)]
    if isinstance(value, list) and value:
        if len(value) > MAX_PROMPTS and not _is_token(value[0]):
            raise _refuse(f"holds {len(value)} prompts, more than the limit of {MAX_PROMPTS}")
        if all(isinstance(item, str) for item in value):
            return [_text(item) for item in value]
        if all(map(_is_token, value)):
            return [value]
        if all(isinstance(item, list) and item and all(map(_is_token, item)) for item in value):
            return list(value)
    raise _refuse(
        "must be a string, an array of strings, an array of token ids, or an array of those, not empty"
    )


def _check_stops(value: Any) -> list[str]:
    if value is None:
        return []
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or not all(isinstance(stop, str) and stop for stop in stops):
        raise _refuse("must be a string or an array of strings, none empty")
    if len(stops) > MAX_STOPS:
        raise _refuse(f"holds {len(stops)} strings, more than the limit of {MAX_STOPS}")
    if any(len(stop) > MAX_STOP_CHARS for stop in stops):
        raise _refuse(f"holds a string longer than the limit of {MAX_STOP_CHARS} characters")
    return [_text(stop) for stop in stops]


def _check_content(value: Any) -> str | None:
    """A message's text; text parts are joined by line breaks."""
    if value is None or isinstance(value, str):
        return None if value is None else _text(value)
    if not isinstance(value, list):
        raise _refuse("must be a string or an array of content parts")
    texts = []
    for index, part in enumerate(value):
        if not isinstance(part, dict) or not isinstance(part.get("type"), str):
            raise _refuse(f"part {index} must be an object with a type")
        if part["type"] != "text":
            raise _refuse(
                f"part {index} has the type {part['type'][:40]!r}, but this model takes only text parts"
            )
        if set(part) - {"type", "text"} or not isinstance(part.get("text"), str):
            raise _refuse(f"part {index} must have the fields type and text, and no others")
        texts.append(_text(part["text"]))
    return "\n".join(texts)


def _text(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise _refuse(f"holds half of a surrogate pair at character {error.start}") from None
    return value


def _check_tool_choice(value: Any) -> Any:
    if value in (None, "none", "auto", "required"):
        return value
    if isinstance(value, dict):
        return f"={NamedTool.model_validate(value).function.name}"
    raise _refuse('must be "none", "auto", "required" or {"type": "function", "function": {"name": ...}}')


def _check_nesting(value: Any) -> Any:
    level = [value]
    for _ in range(MAX_NESTING):
        level = [item for part in level for item in _items(part)]
        if not level:
            return value
    raise _refuse(f"is nested more than {MAX_NESTING} levels deep")


def _items(value: Any) -> Iterable[Any]:
    """That hold others."""
    found = value.values() if isinstance(value, dict) else value
    return [item for item in found if isinstance(item, (dict, list))]


Json = Annotated[dict[str, Any], AfterValidator(_check_nesting)]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class TextPart(Body):
    """Of a message's content."""

    type: Literal["text"]
    text: str


class StreamOptions(Body):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None  # OpenAI's padding against traffic analysis; there is none here


class JsonSchema(Body):
    name: str
    description: str | None = None
    schema_: Json | None = Field(default=None, alias="schema")
    strict: bool | None = None


class ResponseFormat(Body):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class FunctionName(Body):
    name: str


class NamedTool(Body):
    type: Literal["function"] = "function"
    function: FunctionName


class Function(Body):
    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,64}$")]
    description: str | None = None
    parameters: Json | None = None
    strict: bool | None = None


class Tool(Body):
    type: Literal["function"]
    function: Function


class CalledFunction(Body):
    name: str
    arguments: str


class ToolCall(Body):
    id: str | None = None
    type: Literal["function"] = "function"
    function: CalledFunction
    index: int | None = None  # clients that collect a stream send it back


_SAYS_SOMETHING: list[JsonValue] = [
    {"required": ["content"], "properties": {"content": {"type": ["string", "array"]}}},
    {
        "required": ["tool_calls"],
        "properties": {"role": {"const": "assistant"}, "tool_calls": {"type": "array", "minItems": 1}},
    },
]
"""In words of the OpenAPI document: `chat.for_template` checks it."""


class Message(Body):
    """One message of any role; fields that only appear in answers are accepted when clients send them back."""

    model_config = ConfigDict(json_schema_extra={"anyOf": _SAYS_SOMETHING})

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Annotated[
        str | None, PlainValidator(_check_content, json_schema_input_type=str | list[TextPart] | None)
    ] = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = Field(None, max_length=MAX_CALLS)
    tool_call_id: str | None = None
    refusal: str | None = None
    annotations: list[Any] | None = None
    audio: None = None
    function_call: None = None
    provider_specific_fields: Json | None = None
    """LiteLLM's own, which it sends back with the message."""


class Ignored(Body):
    """Fields of OpenAI's service that have no meaning for one model on one node."""

    user: str | None = None
    metadata: Json | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: Json | None = None


class Routed(Body):
    """Fields of SGLang's API that its router and vLLM's write into every request, at their defaults."""

    no_stop_trim: Literal[False] | None = None
    skip_special_tokens: Literal[True] | None = None
    return_hidden_states: Literal[False] | None = None


class Resume(Body):
    """A stream that broke on another node: what its events and comments said."""

    id: Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,64}$")]
    created: int = Field(ge=0, lt=2**63)
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)]
    token_ids: list[TokenId]


class Generation(Ignored, Routed):
    """What both generating endpoints share."""

    model: str
    max_tokens: int | None = Field(None, ge=1)
    min_tokens: int | None = Field(None, ge=0)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1, lt=2**31, description="0 and -1 switch it off")
    min_p: float | None = Field(None, ge=0, le=1)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    repetition_penalty: float | None = Field(None, gt=0, le=10)
    n: int | None = Field(None, ge=1, le=MAX_CHOICES)
    seed: Seed | None = None
    stop: Annotated[list[str], PlainValidator(_check_stops, json_schema_input_type=_Stop | _Stops | None)] = (
        Field(default_factory=list)
    )
    stop_token_ids: list[TokenId] | None = Field(None, max_length=64)
    ignore_eos: bool | None = None
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = Field(
        None, max_length=MAX_BIASES
    )
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    drift_resume: Resume | None = Field(
        None, description="only for a router that shows the control token: goes on with a stream that broke"
    )


class CompletionRequest(Generation):
    prompt: Annotated[
        list[str | list[int]],
        PlainValidator(_check_prompts, json_schema_input_type=str | _Texts | _Tokens | _TokenLists),
    ]
    logprobs: int | None = Field(None, ge=0, le=MAX_TOP_LOGPROBS)
    echo: bool | None = None
    best_of: int | None = Field(None, ge=1, le=MAX_CHOICES)
    suffix: str | None = None


class ChatRequest(Generation):
    messages: list[Message] = Field(min_length=1, max_length=MAX_MESSAGES)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MAX_TOP_LOGPROBS)
    response_format: ResponseFormat | None = None
    tools: list[Tool] | None = Field(None, max_length=MAX_TOOLS)
    tool_choice: Annotated[
        str | None,
        PlainValidator(
            _check_tool_choice,
            json_schema_input_type=Literal["none", "auto", "required"] | NamedTool | None,
        ),
    ] = None
    """Kept as =NAME for a named function."""
    parallel_tool_calls: bool | None = None
    modalities: list[Literal["text"]] | None = None
    reasoning_effort: str | None = None
    verbosity: str | None = None
    prediction: Json | None = None
    continue_final_message: Literal[False] | None = None
    include_reasoning: bool | None = None
    separate_reasoning: bool | None = None
    stream_reasoning: bool | None = None
    chat_template_kwargs: Json | None = Field(
        None, description="variables for the model's chat template, such as enable_thinking"
    )


class TokenizeRequest(Body):
    """vLLM's: either a prompt or messages."""

    model: str | None = None
    prompt: str | None = None
    messages: list[Message] | None = Field(None, min_length=1, max_length=MAX_MESSAGES)
    tools: list[Tool] | None = Field(None, max_length=MAX_TOOLS)
    add_special_tokens: bool | None = None
    add_generation_prompt: bool = True
    return_token_strs: bool | None = None
    chat_template_kwargs: Json | None = None


class DetokenizeRequest(Body):
    model: str | None = None
    tokens: list[TokenId] = Field(max_length=1_000_000)
