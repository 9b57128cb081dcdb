"""The seam between deciding and computing: `Device`, `Lane`, `Event`, `Clock`, and the work that crosses it.

The core describes a pass over rows of tokens as data (`Pass`) and launches it on a lane, whole or some layers at a
time; it gets an `Event` back at once and polls it. A device that computes with torch, one that captures CUDA graphs
and one that only knows how long things take all look the same from here. Free of torch. What there is of every row in
every pass is a msgspec Struct, five times cheaper to make than a frozen dataclass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from drift_engine import wire
from drift_engine.latency.loads import Load


class Clock(Protocol):
    def now_s(self) -> float:
        """Monotonic seconds; the same epoch as the times on wire messages."""


class Draw(msgspec.Struct, frozen=True, gc=False):
    """How the token behind a row's last one is drawn."""

    sampling: wire.Sampling
    history: Sequence[int]  # prompt and drawn tokens so far; read while the pass runs, never changed by it
    prompt_tokens: int
    banned: tuple[int, ...] = ()  # ids that may not come now, as end-of-sequence before min_tokens
    bitmask: Any = None  # numpy int32 [ceil(vocab / 32)] of allowed ids; None allows all

    @property
    def index(self) -> int:
        """Which generated token this is: with the seed it determines the random number."""
        return len(self.history) - self.prompt_tokens


class Row(msgspec.Struct, frozen=True, gc=False):
    """Consecutive tokens of one request: `token_ids` at positions `start`, ... with KV in `pages`."""

    request_id: str
    token_ids: Sequence[int]
    start: int
    pages: Sequence[int]
    draw: Draw | None  # None: the prompt goes on in a later pass


@dataclass(frozen=True, slots=True)
class Pass:
    """One forward pass. A decode row has one token; rows draw independently of each other.

    More than one of `steps`: as many passes, each decode row's next token being the one that it drew before. Only
    decode rows, with pages for all their tokens, and only where the device looks ahead.
    """

    decode: tuple[Row, ...]
    prefill: tuple[Row, ...]
    steps: int = 1

    @property
    def rows(self) -> tuple[Row, ...]:
        return self.decode + self.prefill

    def draws(self) -> dict[str, Draw]:
        """By request, in the order of the rows."""
        return {row.request_id: row.draw for row in self.rows if row.draw is not None}


class Drawn(msgspec.Struct, frozen=True, gc=False):
    token_id: int
    logprobs: wire.TokenLogprobs | None = None


@dataclass(frozen=True, slots=True)
class Results:
    """What a pass brought: by request, for each row with a `draw`, a token, or one for every step computed."""

    drawn: Mapping[str, Sequence[Drawn]]
    start_s: float  # by the device's clock; of a GPU the launch, which its stream may have made wait
    pass_s: float  # from the start of packing its inputs to its last drawn token
    forward_s: float  # of those, in the model


class Event(Protocol):
    """The end of a launched pass, or of some of its layers."""

    def done(self) -> bool:
        """Never blocks."""

    def results(self) -> Results:
        """Only when done; what was drawn comes with the last layer. Raises DeviceError when the pass failed."""


class CutPass(Protocol):
    """A pass that is launched some layers at a time: what it computed so far stays on the device between them."""

    @property
    def layers(self) -> int:
        """How many there are."""

    @property
    def launched(self) -> int:
        """How many of them were launched."""

    def drop(self) -> None:
        """Gives up the rest. Only when the launched layers are done."""


class Lane(Protocol):
    """A part of the device that runs what it is given in the order of the launches."""

    @property
    def name(self) -> str: ...

    @property
    def sms(self) -> int:
        """Streaming multiprocessors of a GPU, cores of a CPU."""

    def launch(self, work: Pass) -> Event: ...

    def launch_layers(self, cut: CutPass, stop: int) -> Event:
        """Launches the layers from `cut.launched` up to `stop`. They run after those launched before, wherever."""


class Device(Protocol):
    """A device with its model and KV store."""

    @property
    def clock(self) -> Clock: ...

    @property
    def whole(self) -> Lane:
        """The lane over the whole device. Nothing else may run while it works."""

    @property
    def splits(self) -> Sequence[wire.Split]:
        """Into which two disjoint parts it can be split, fewest decode SMs first; empty where it cannot."""

    @property
    def lookahead_steps(self) -> int:
        """The most steps that a pass may have."""

    def recall(self, event: Event) -> None:
        """Ends a pass of several steps with the one that is being computed; any other event is left alone."""

    @property
    def sharing(self) -> wire.Sharing:
        """What keeps the parts of `splits` apart."""

    @property
    def sharing_reason(self) -> str:
        """Why it is that, for people."""

    def lanes(self, split: wire.Split) -> tuple[Lane, Lane]:
        """The decode and the prefill lane of one of `splits`."""

    def cut(self, work: Pass) -> CutPass:
        """A pass to be launched by layers: all of them, or until it is dropped."""

    def wait(self, events: Sequence[Event], timeout_s: float) -> bool:
        """Until one of the events is done, True, or the time is over."""

    def release(self, request_id: str) -> None:
        """Forgets what is kept per request. Only when no pass with it is in flight."""

    def close(self) -> None:
        """Ends the lanes; launched passes finish first."""


def load_of(rows: Sequence[Row]) -> Load:
    """Rows of one token count as decode."""
    single = [row for row in rows if len(row.token_ids) == 1]
    load = Load.decode(len(single), sum(row.start + 1 for row in single))
    return load + Load.prefill([(len(row.token_ids), row.start) for row in rows if len(row.token_ids) > 1])
