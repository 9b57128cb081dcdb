"""What the endpoints share: one `Context` per node, one `Model` once the core has loaded it."""

from __future__ import annotations

import asyncio
import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from drift_engine import wire
from drift_engine.api import errors, tools
from drift_engine.api.admission import Admission
from drift_engine.api.kv_events import KvLog
from drift_engine.api.metrics import Metrics
from drift_engine.api.sampling import ModelLimits, too_long
from drift_engine.api.setpoints import SetPoints
from drift_engine.node.health import Health
from drift_engine.node.link import CoreLink
from drift_engine.options import NodeOptions
from drift_engine.text.templates import ChatTemplate
from drift_engine.text.tokenizer import Tokenizer

_INLINE_CHARS = 1024
"""Texts up to this length are tokenized on the event loop, in about a millisecond; longer ones would hold back other
requests' tokens and go to a thread, whose round trip costs a fifth of that."""

_SHRINKING = 4
"""Normalizers may shorten a text before it is cut into tokens, by less than this factor."""


@dataclasses.dataclass(frozen=True)
class Text:
    """The text side of a checkpoint, read from its folder by the api process."""

    tokenizer: Tokenizer
    template: ChatTemplate | None

    @classmethod
    def load(cls, folder: Path) -> Text:
        """Raises ModelError."""
        tokenizer = Tokenizer.load(folder)
        return cls(tokenizer, ChatTemplate.load(folder, tokenizer))


class Model:
    """A model that is served: its text side and what the core said of it."""

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
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tokenizer")

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
