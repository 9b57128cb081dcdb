"""Tool calls in a model's text: which markup the model was trained on, and how to read it while it is being written.

In: the text of one choice, piece by piece. Out: pieces of content and of calls, in order; concatenated they do not depend on
how the text was cut. Markup that turns out not to be a call is given back as content, so no text is lost.
"""

from __future__ import annotations

import enum
import json
import re
import secrets
from dataclasses import dataclass

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
    call_id: str = ""
    arguments: str = ""


class ToolParser:
    """Reads one choice. `limit` is 1 where the client forbids parallel calls; later calls are then dropped."""

    def __init__(self, form: ToolFormat, limit: int | None = None) -> None:
        self._form = form
        self._limit = limit
        self._text = ""
        self._scanner: ObjectScanner | None = None
        self._opening = ""
        self._begun = False
        """Content other than white space was shown."""
        self._in_calls = False
        self._named = False
        self._sent = 0
        self.calls = 0

    @property
    def full(self) -> bool:
        """The last call that the client allows is complete."""
        return self._limit is not None and self.calls >= self._limit and self._scanner is None

    def push(self, text: str) -> list[Piece]:
        self._text += text
        return self._run(final=False)

    def flush(self) -> list[Piece]:
        """At the end of the text."""
        return self._run(final=True)

    def _run(self, *, final: bool) -> list[Piece]:
        pieces: list[Piece] = []
        while not self.full:
            step = self._call if self._scanner is not None else self._between
            if not step(pieces, final):
                break
        if self.full:
            self._text = ""
        return pieces

    def _between(self, pieces: list[Piece], final: bool) -> bool:
        """Shows content up to the next call; True when one begins."""
        if self._in_calls and self._skip_separators(final):
            return False
        start, after = self._find_begin()
        if start is None:
            held = 0 if final else self._held()
            self._content(pieces, self._text[: len(self._text) - held], final)
            return False
        self._content(pieces, self._text[:start], final=False)
        self._opening = self._text[start:after]
        self._text = self._text[after:]
        self._scanner = ObjectScanner()
        self._named, self._sent = False, 0
        return True

    def _find_begin(self) -> tuple[int | None, int]:
        """Where a call's markup begins, and where its JSON may begin."""
        start = self._text.find(self._form.begin)
        if self._form is ToolFormat.HERMES:
            return (None, 0) if start < 0 else (start, start + len(self._form.begin))
        if start >= 0:
            match = re.compile(r"\s*\[?\s*(?=\{)").match(self._text, start + len(self._form.begin))
            return (start, match.end()) if match else (None, 0)
        bare = self._in_calls or (self._form is ToolFormat.LLAMA3 and not self._begun)
        match = re.match(r"\s*(?=\{)", self._text) if bare else None
        return (0, match.end()) if match else (None, 0)

    def _held(self) -> int:
        """How much of the end may still become the begin of a call."""
        begin, text = self._form.begin, self._text
        if self._form is not ToolFormat.HERMES and (start := text.find(begin)) >= 0:
            rest = text[start + len(begin) :]
            return len(text) - start if re.fullmatch(r"\s*\[?\s*", rest) else 0
        for length in range(min(len(begin) - 1, len(text)), 0, -1):
            if text.endswith(begin[:length]):
                return length
        return 0

    def _skip_separators(self, final: bool) -> bool:
        """Between calls: True when more text is needed to know what follows."""
        pattern = {ToolFormat.HERMES: r"\s*", ToolFormat.MISTRAL: r"\s*[,\]]?\s*", ToolFormat.LLAMA3: r"\s*;?\s*"}
        match = re.match(pattern[self._form], self._text)
        assert match is not None
        rest = self._text[match.end() :]
        if not rest and not final:
            return True
        self._text = rest
        if not rest:
            return True
        return False

    def _content(self, pieces: list[Piece], text: str, final: bool) -> None:
        """White space before the first call is markup rather than content: it waits for what follows."""
        if not text:
            return
        if not self._begun and not text.strip():
            if final and not self.calls:
                pieces.append(Piece(content=text))
                self._text = ""
            elif self.calls or self._text[len(text) :].startswith(self._form.begin):
                self._text = self._text[len(text) :]
            return
        self._begun = True
        self._text = self._text[len(text) :]
        pieces.append(Piece(content=text))

    def _call(self, pieces: list[Piece], final: bool) -> bool:
        raise NotImplementedError
