"""Tool calls in a model's text: which markup the model was trained on, and how to read it while it is being written.

In: the text of one choice, piece by piece. Out: pieces of content and of calls, in order; concatenated they
do not depend on how the text was cut. Markup that turns out not to be a call is given back as content, so
no text is lost.
"""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Generator
from dataclasses import dataclass
from typing import ClassVar

from drift_engine.api.json_objects import ObjectScanner
from drift_engine.text.templates import ChatTemplate
from drift_engine.text.tokenizer import Tokenizer


class ToolFormat(enum.Enum):
    """(begin of a call, end of a call, name of the arguments' field)"""

    HERMES = ("<tool_call>", "</tool_call>", "arguments")
    """Hermes, Qwen: every call in its own tags."""
    MISTRAL = ("[TOOL_CALLS]", "", "arguments")
    """Mistral: an array of calls after one token."""
    LLAMA3 = ("<|python_tag|>", "", "parameters")
    """Llama 3: the answer is the call, with or without the token before it."""

    @property
    def begin(self) -> str:
        return self.value[0]

    @property
    def end(self) -> str:
        return self.value[1]

    @property
    def arguments(self) -> str:
        return self.value[2]


def detect(template: ChatTemplate | None, tokenizer: Tokenizer) -> ToolFormat | None:
    """None where the template has no tools or writes calls in a way that is not known here."""
    if template is None or not template.takes_tools:
        return None
    if "<tool_call>" in template.source and "<function=" not in template.source:
        return ToolFormat.HERMES
    if "[TOOL_CALLS]" in template.source and "[ARGS]" not in template.source:
        return ToolFormat.MISTRAL
    if "<|python_tag|>" in tokenizer.added and '"parameters"' in template.source:
        return ToolFormat.LLAMA3
    return None


@dataclass(slots=True)
class Piece:
    """Either `content`, or a part of the call number `call`: its `name` once, then pieces of `arguments`."""

    content: str = ""
    call: int = -1
    name: str | None = None
    arguments: str = ""


_HEADER = re.compile(
    r'\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"(?:arguments|parameters)"\s*:\s*\{', re.DOTALL
)
"""How models write calls. Others are read too, but only once the whole object is there."""

_Reading = Generator[None, None, bool]
"""A part of the parser: stops (yields) where it needs more text."""


class ToolParser:
    """Reads one choice. `limit` is 1 where the client forbids parallel calls: what follows is dropped."""

    def __init__(self, form: ToolFormat, limit: int | None = None) -> None:
        self._form = form
        self._limit = limit
        self._text = ""
        self._space = ""
        self._within = False
        """Content was shown since the last call, so that white space belongs to it."""
        self._final = False
        self._pieces: list[Piece] = []
        self._reader: _Reading | None = self._READERS[form](self)
        self.calls = 0

    @property
    def full(self) -> bool:
        """The last call that the client allows is complete."""
        return self._reader is None and not self._final

    def push(self, text: str) -> list[Piece]:
        self._text += text
        return self._run()

    def flush(self) -> list[Piece]:
        """At the end of the text."""
        self._final = True
        pieces = self._run()
        if self._space and not self.calls:
            pieces.append(Piece(content=self._space))
        return pieces

    def _run(self) -> list[Piece]:
        if self._reader is not None and next(self._reader, _END) is _END:
            self._reader = None
        pieces, self._pieces = self._pieces, []
        return pieces

    def _hermes(self) -> _Reading:
        while (yield from self._content(until=self._form.begin)):
            if (yield from self._call(self._form.begin)):
                yield from self._optional(self._form.end)
                if self.calls == self._limit:
                    return True
        return False

    def _mistral(self) -> _Reading:
        if not (yield from self._content(until=self._form.begin)):
            return False
        opening = self._form.begin + ("[" if (yield from self._optional("[")) else "")
        while (yield from self._call(opening)):
            if self.calls == self._limit:
                return True
            opening = ","
            if not (yield from self._optional(",")):
                yield from self._optional("]")
                break
        return (yield from self._content(until=None))

    def _llama3(self) -> _Reading:
        opening = self._form.begin if (yield from self._optional(self._form.begin)) else ""
        while (yield from self._call(opening)):
            if self.calls == self._limit:
                return True
            opening = ";" if (yield from self._optional(";")) else ""
        return (yield from self._content(until=None))

    _READERS: ClassVar = {
        ToolFormat.HERMES: _hermes,
        ToolFormat.MISTRAL: _mistral,
        ToolFormat.LLAMA3: _llama3,
    }

    def _content(self, until: str | None) -> _Reading:
        """Shows text up to the marker and takes the marker; False at the end of the text."""
        while True:
            start = self._text.find(until) if until else -1
            if until and start >= 0:
                self._show(self._text[:start])
                self._text = self._text[start + len(until) :]
                return True
            held = 0 if self._final or not until else _overlap(self._text, until)
            self._show(self._text[: len(self._text) - held])
            self._text = self._text[len(self._text) - held :]
            if self._final:
                return False
            yield

    def _optional(self, marker: str) -> _Reading:
        """Takes the marker and the white space before it, if that is what comes."""
        while True:
            rest = self._text.lstrip()
            if rest.startswith(marker):
                self._text = rest[len(marker) :]
                return True
            if self._final or not marker.startswith(rest):
                return False
            yield

    def _call(self, opening: str) -> _Reading:
        """Reads one call; False, with all of it shown as content, if it is none. `opening` was taken before."""
        scanner = ObjectScanner()
        named, sent = False, 0
        while True:
            while scanner.going and scanner.position < len(self._text):
                scanner.read(self._text[scanner.position])
                if (
                    scanner.second_object
                    and not named
                    and (header := _HEADER.fullmatch(self._text, 0, scanner.position))
                ):
                    named, sent = True, scanner.position - 1
                    self._start(_string(header[1]))
            if named:
                end = scanner.second_end or scanner.position
                if end > sent:
                    self._pieces.append(Piece(call=self.calls, arguments=self._text[sent:end]))
                    sent = end
            if not scanner.going or self._final:
                break
            yield
        raw, self._text = self._text[: scanner.position], self._text[scanner.position :]
        if not named and not (scanner.complete and self._late(raw)):
            self._show(opening + raw)
            return False
        self.calls += 1
        return True

    def _start(self, name: str) -> None:
        self._space, self._within = "", False
        self._pieces.append(Piece(call=self.calls, name=name))

    def _late(self, raw: str) -> bool:
        """A complete object in another order of fields."""
        try:
            call = json.loads(raw)
        except ValueError:
            return False
        arguments = call.get("arguments", call.get("parameters"))
        if not isinstance(call.get("name"), str) or not isinstance(arguments, (dict, str)):
            return False
        self._start(call["name"])
        text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        self._pieces.append(Piece(call=self.calls, arguments=text))
        return True

    def _show(self, text: str) -> None:
        """White space next to calls is markup: it waits for content that it belongs to."""
        text = self._space + text
        if not text.strip() and not self._within:
            self._space = text
            return
        self._space, self._within = "", True
        self._pieces.append(Piece(content=text))


_END = object()


def _string(literal: str) -> str:
    try:
        return str(json.loads(literal))
    except ValueError:  # an escape that JSON does not know
        return literal[1:-1]


def _overlap(text: str, marker: str) -> int:
    """Length of the longest end of `text` that begins `marker`."""
    for length in range(min(len(marker) - 1, len(text)), 0, -1):
        if text.endswith(marker[:length]):
            return length
    return 0
