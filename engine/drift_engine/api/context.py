"""What the endpoints share: one `Context` per node, one `Model` once the core has loaded it."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drift_engine import wire
from drift_engine.api import errors, tools, trials
from drift_engine.api.admission import Admission
from drift_engine.api.kv_events import KvLog
from drift_engine.api.metrics import Metrics
from drift_engine.api.sampling import ModelLimits, too_long
from drift_engine.api.setpoints import SetPoints
from drift_engine.api.trials import Trials
from drift_engine.node.health import Health
from drift_engine.node.link import CoreLink
from drift_engine.options import NodeOptions
from drift_engine.text.templates import ChatTemplate, Messages, TemplateError, Tools
from drift_engine.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from drift_engine.tracing.recording import Recorder

_INLINE_CHARS = 1024
"""Texts up to this length are tokenized on the event loop, in about a millisecond; longer ones would hold back other
requests' tokens and go to a thread, whose round trip costs a fifth of that."""

_INLINE_MESSAGES = 32
"""Conversations up to this length are rendered on the event loop, in some 0.4 ms; longer ones, and those with tools,
in the same thread."""

_SHRINKING = 4
"""Normalizers may shorten a text before it is cut into tokens, by less than this factor."""


@dataclasses.dataclass(frozen=True)
class Text:
    """The text side of a checkpoint, read from its folder by the api process."""

    folder: Path
    tokenizer: Tokenizer
    template: ChatTemplate | None

    @classmethod
    def load(cls, folder: Path) -> Text:
        """Raises ModelError."""
        tokenizer = Tokenizer.load(folder)
        return cls(folder, tokenizer, ChatTemplate.load(folder, tokenizer))


class Model:
    """A model that is served: its text side and what the core said of it. Whoever made it closes it."""

    def __init__(self, text: Text, ready: wire.Ready) -> None:
        self.tokenizer = text.tokenizer
        self.template = text.template
        self.ready = ready
        self.tool_format = tools.detect(text.template, text.tokenizer)
        marks = (self.tool_format.begin, self.tool_format.end) if self.tool_format else ()
        self.markup = frozenset(
            text.tokenizer.special[mark] for mark in marks if mark in text.tokenizer.special
        )
        """Special tokens that a tool parser must see."""
        self.limits = ModelLimits(ready.vocab_size, ready.max_model_len_tokens)
        self.trials = Trials(trials.command(text.folder, ready.vocab_size, ready.eos_token_ids))
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tokenizer")

    async def close(self) -> None:
        await self.trials.close()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def render(self, messages: Messages, tools: Tools, options: dict[str, Any]) -> str:
        """The prompt's text. Raises 400."""
        if self.template is None:
            raise errors.invalid("messages", "this model has no chat template; use /v1/completions")
        render = functools.partial(self.template.render, messages, tools, **options)
        try:
            if not tools and len(messages) <= _INLINE_MESSAGES:
                return render()
            return await asyncio.get_running_loop().run_in_executor(self._thread, render)
        except TemplateError as error:
            raise errors.invalid("messages", str(error)) from error

    async def encode(self, param: str, text: str, *, add_special_tokens: bool) -> list[int]:
        """Raises 400 for a text that can't be encoded or is beyond any prompt, without tokenizing the latter."""
        longest = self.limits.context_tokens * self.tokenizer.longest_token_chars * _SHRINKING
        if len(text) > longest:
            raise too_long(
                param,
                f"the prompt has {len(text)} characters, which can't fit the model's context of "
                f"{self.limits.context_tokens} tokens",
            )
        try:
            if len(text) <= _INLINE_CHARS:
                return self.tokenizer.encode(text, add_special_tokens=add_special_tokens)
            return await asyncio.get_running_loop().run_in_executor(
                self._thread,
                lambda: self.tokenizer.encode_apart(text, add_special_tokens=add_special_tokens),
            )
        except (
            UnicodeEncodeError,
            TypeError,
        ) as error:  # half of a surrogate pair, from a tool or a template
            raise errors.invalid(param, "the text is not valid Unicode") from error


@dataclasses.dataclass
class Context:
    options: NodeOptions
    name: str
    """The model's name in requests and answers."""
    control_token: str
    link: CoreLink
    health: Health
    admission: Admission
    metrics: Metrics
    kv_log: KvLog
    started_s: float
    model: Model | None = None
    recorder: Recorder | None = None
    """Of spans; None: nobody wants any."""
    set_points: SetPoints = dataclasses.field(default_factory=SetPoints)
    closing: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)
    """Set when the node ends: streams of the control port end too."""

    def serving(self, name: str | None) -> Model:
        """The model that a request names. Raises 404, or 503 while there is none."""
        if (refusal := self.health.refusal()) is not None or self.model is None:
            raise errors.unavailable(refusal or "the model is loading")
        if name is not None and name != self.name:
            raise errors.ApiError(
                404,
                f"the model {errors.shown(name)} does not exist here; this node serves {self.name!r}",
                param="model",
                code="model_not_found",
            )
        return self.model
