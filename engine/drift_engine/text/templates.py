"""Chat templates: messages to the prompt text that the model was trained on.

In: messages as plain data (`drift_engine.api.chat` checked them). Out: text for `tokenizer.encode` without
special tokens, since templates write their own. Jinja2 runs in its sandbox, with the names that
transformers gives to templates.
"""

from __future__ import annotations

import datetime
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NoReturn

import jinja2
from jinja2 import meta, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from drift_engine.errors import ModelError
from drift_engine.text.tokenizer import Tokenizer, read_json

Messages = Sequence[Mapping[str, Any]]
Tools = Sequence[Mapping[str, Any]]

_NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token")


RENDER_S = 1.0
"""Of CPU time, for one prompt. A session of a thousand messages takes some 15 ms."""


class TemplateError(ValueError):
    """The template refuses these messages; the text is for the client."""


class _Generation(Extension):
    """`{% generation %}` marks the learned parts for training; for serving it is its body."""

    tags = {"generation"}  # noqa: RUF012 - jinja2's own declaration

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def _tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None, **options: Any) -> str:
    # jinja2's own filter escapes HTML, which models were not trained on
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **options)


def _strftime_now(pattern: str) -> str:
    return datetime.datetime.now().strftime(pattern)  # noqa: DTZ005 - templates mean local time


_left: ContextVar[Callable[[], float]] = ContextVar("left", default=lambda: math.inf)
"""Seconds for the rendering that is under way."""


def _check_time() -> None:
    if _left.get()() < 0:
        raise TemplateError(
            f"the model's chat template takes longer than the limit of {RENDER_S:g} s for them"
        )


class _Environment(ImmutableSandboxedEnvironment):
    """Templates are programs. What takes a long time looks at many values or calls many functions, all by these."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        _check_time()
        return super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        _check_time()
        return super().getitem(obj, argument)

    def call(self, *arguments: Any, **named: Any) -> Any:
        _check_time()
        return super().call(*arguments, **named)


def _environment() -> _Environment:
    environment = _Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[_Generation, "jinja2.ext.loopcontrols"],
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


class ChatTemplate:
    """One checkpoint's template; `with_tools` is the variant used when a request brings tools."""

    def __init__(
        self,
        source: str,
        tool_source: str | None,
        tokens: Mapping[str, str],
        clock: Callable[[], float] = time.thread_time,
    ) -> None:
        environment = _environment()
        try:
            self._plain = environment.from_string(source)
            self._with_tools = environment.from_string(tool_source or source)
            names = meta.find_undeclared_variables(environment.parse(tool_source or source))
        except jinja2.TemplateError as error:
            raise ModelError(f"the model's chat template is not valid: {error}") from error
        self._tokens = dict(tokens)
        self._clock = clock
        self.takes_tools: bool = "tools" in names
        self.source: str = tool_source or source

    @classmethod
    def load(cls, folder: Path, tokenizer: Tokenizer) -> ChatTemplate | None:
        """`chat_template.jinja`, or `chat_template` of the tokenizer's configuration; None where there is none."""
        file = folder / "chat_template.jinja"
        template: Any = file.read_text() if file.exists() else tokenizer.config.get("chat_template")
        template = template or read_json(folder / "chat_template.json").get("chat_template")
        if not template:
            return None
        named = {"default": template}
        if isinstance(template, list):
            named = {entry["name"]: entry["template"] for entry in template}
        source = named.get("default") or next(iter(named.values()))
        tokens = {name: value for name in _NAMED_TOKENS if (value := tokenizer.named_token(name)) is not None}
        return cls(source, named.get("tool_use"), tokens)

    def render(self, messages: Messages, tools: Tools | None = None, **options: Any) -> str:
        """The prompt up to where the assistant's answer begins, within RENDER_S. Raises TemplateError."""
        template = self._with_tools if tools else self._plain
        values = {**self._tokens, "add_generation_prompt": True, **options}
        until_s = self._clock() + RENDER_S
        before = _left.set(lambda: until_s - self._clock())
        try:
            return template.render(messages=messages, tools=tools or None, **values)
        except TemplateError:
            raise
        except Exception as error:  # templates are programs: what they raise is about these messages
            raise TemplateError(f"the model's chat template can't render these messages: {error}") from error
        finally:
            _left.reset(before)
