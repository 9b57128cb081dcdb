"""What clients ask for (`response_format`, `tool_choice`) as grammars for the core, checked before it sees them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from drift_engine import wire
from drift_engine.api import errors
from drift_engine.api.requests import ResponseFormat, Tool
from drift_engine.api.tools import ToolFormat
from drift_engine.api.trials import Trials
from drift_engine.text.tokenizer import Tokenizer

MAX_GRAMMAR_CHARS = 256 * 1024
"""Of all schemas of a request together, with their rules. Published collections of schemas in use have few above
64 KiB. Estimate."""

_SPACING = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""One spelling of white space, that of the training data: small models else fill their answer with line
breaks. The core
does the same for JSON_SCHEMA; inside a Lark grammar each schema has to say it."""


def _spaced(schema: dict[str, Any]) -> str:
    return json.dumps({**schema, "x-guidance": _SPACING})


def of_format(form: ResponseFormat | None) -> dict[str, Any] | None:
    """The schema that an answer must follow. Raises 400."""
    if form is None or form.type == "text":
        return None
    if form.type == "json_object":
        return {"type": "object"}
    if form.json_schema is None or form.json_schema.schema_ is None:
        raise errors.invalid("response_format.json_schema.schema", "is required when type is json_schema")
    return form.json_schema.schema_


def of_schema(schema: dict[str, Any]) -> wire.Grammar:
    return wire.Grammar(wire.GrammarKind.JSON_SCHEMA, json.dumps(schema))


def of_tools(
    tools: Sequence[Tool],
    form: ToolFormat,
    tokenizer: Tokenizer,
    *,
    parallel: bool,
    answer: dict[str, Any] | None,
) -> wire.Grammar:
    """Calls of these tools in the model's own markup, or an answer of that schema where one is given."""
    rules = []
    names = []
    for index, tool in enumerate(tools):
        names.append(f"tool{index}")
        head = json.dumps(f'{{"name": {json.dumps(tool.function.name)}, "{form.arguments}": ')
        rules.append(f'tool{index}: {head} arguments{index} "}}"')
        schema = tool.function.parameters or {"type": "object", "properties": {}}
        rules.append(f"arguments{index}: %json {_spaced(schema)}")
    rules.append(f"call: {' | '.join(names)}")
    begin = _marker(form.begin, tokenizer)
    match form:
        case ToolFormat.HERMES:
            end = _marker(form.end, tokenizer)
            one = f'{begin} "\\n" call "\\n" {end}'
            calls = f'{one} ("\\n" {one})*' if parallel else one
        case ToolFormat.MISTRAL:
            more = '(", " call)* ' if parallel else ""
            calls = f'{begin} "[" call {more}"]"'
        case ToolFormat.LLAMA3:
            calls = 'call ("; " call)*' if parallel else "call"
    if answer is not None:
        rules.append(f"answer: %json {_spaced(answer)}")
        calls = f"answer | {calls}"
    return wire.Grammar(wire.GrammarKind.LARK, "\n".join([f"start: {calls}", *rules]))


def _marker(text: str, tokenizer: Tokenizer) -> str:
    """A markup that is one token is written as that token: to a grammar, added tokens are not their text."""
    token_id = tokenizer.added.get(text)
    return json.dumps(text) if token_id is None else f"<[{token_id}]>"


async def check(param: str, grammar: wire.Grammar, trials: Trials) -> None:
    """Raises 400 for a schema that can't be used, 503 where too many wait to be tried."""
    if len(grammar.text) > MAX_GRAMMAR_CHARS:
        raise errors.invalid(
            param,
            f"its schemas have {len(grammar.text)} characters, more than the limit of {MAX_GRAMMAR_CHARS}",
        )
    if problem := await trials.problem(grammar):
        raise errors.invalid(param, f"the schema can't be used: {problem}")
