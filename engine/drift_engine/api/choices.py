"""One choice of an answer: tokens in, the text that may be shown out.

Follows tokens through detokenizer, stop strings and (for chat) the tool-call parser's input; keeps what usage and log
probabilities need. The same code feeds streamed and collected answers, so they can't differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from drift_engine import wire
from drift_engine.text.detokenizer import Detokenizer
from drift_engine.text.stops import StopMatcher

FINISH = {wire.FinishReason.STOP: "stop", wire.FinishReason.LENGTH: "length"}


@dataclass(slots=True)
class Delta:
    """What one output brought. `finish` is OpenAI's reason; `token_ids` go with `logprobs`."""

    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[wire.TokenLogprobs] = field(default_factory=list)
    finish: str | None = None
    stopped: bool = False
    """The api process ended the choice: the core must be told."""


class Choice:
    def __init__(self, detokenizer: Detokenizer, stops: Sequence[str], min_tokens: int) -> None:
        self._detokenizer = detokenizer
        self._stops = StopMatcher(stops)
        self._min_tokens = min_tokens
        self.tokens = 0
        self.cached_tokens = 0
        self.finished = False

    def feed(self, output: wire.Output) -> Delta:
        """Raises AssertionError for an output after the end; an aborted output must not come here."""
        assert not self.finished
        assert output.finish is not wire.FinishReason.ABORTED
        self.cached_tokens = max(self.cached_tokens, output.cached_tokens)
        delta = Delta()
        for position, token_id in enumerate(output.token_ids):
            self.tokens += 1
            delta.token_ids.append(token_id)
            if output.logprobs is not None:
                delta.logprobs.append(output.logprobs[position])
            if token_id == output.stop_token and position == len(output.token_ids) - 1:
                continue  # computed and counted, but not part of the text
            if self._show(self._detokenizer.push(token_id), delta):
                return delta
        if output.finish is not None:
            if not self._show(self._detokenizer.flush(), delta):
                delta.text += self._stops.flush()
                delta.finish = FINISH[output.finish]
            self.finished = True
            delta.stopped = False
        return delta

    def _show(self, text: str, delta: Delta) -> bool:
        if not text:
            return False
        if self.tokens < self._min_tokens:
            delta.text += self._stops.flush() + text
            return False
        shown, found = self._stops.push(text)
        delta.text += shown
        if found:
            delta.finish, delta.stopped = "stop", True
            self.finished = True
        return found
