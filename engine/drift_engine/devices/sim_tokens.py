"""What a simulated model says: tokens that depend on every token before them, without computing anything.

`PagedTokens` keeps in each KV page what a real one's numbers stand for, the tokens up to there. A page that was given
away, shared wrongly or never written makes other tokens, or fails: caches and routers can be checked for exactness.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
import xxhash

from drift_engine import wire
from drift_engine.devices.base import Draw, Drawn, Row
from drift_engine.errors import DeviceError

MEAN_ANSWER_TOKENS = 128
"""After so many tokens on average an answer ends by itself: of the order of chat traces (Azure 2023: 129 at the
median)."""


class PagedTokens:
    """Draws from `vocabulary` by a hash of all tokens so far; the same on every node, whatever was reused."""

    def __init__(self, page_tokens: int, vocabulary: Sequence[int], eos_token_ids: Sequence[int]) -> None:
        assert vocabulary, "nothing can be said without words"
        self._page_tokens = page_tokens
        self._vocabulary = vocabulary
        self._eos_token_ids = eos_token_ids
        self._before: dict[int, int] = {}  # hash of what precedes the page's first token
        self._inside: dict[int, list[int]] = {}  # its tokens
        self._through: dict[int, int] = {}  # hash of all up to the end of the page, where it is full

    def write(self, row: Row) -> None:
        """Raises DeviceError where the KV that the row builds on is not there."""
        self._write(row, row.start, row.token_ids)

    def draw(self, row: Row, steps: int) -> Sequence[Drawn]:
        """Raises DeviceError like `write`."""
        assert row.draw is not None, "the prompt goes on"
        position = row.start + len(row.token_ids) - 1
        drawn: list[Drawn] = []
        while True:
            digest = self._digest(row.pages[position // self._page_tokens], position % self._page_tokens + 1)
            token_id = self._choose(row.draw, digest)
            logprobs = None
            if row.draw.sampling.logprobs is not None:
                logprobs = wire.TokenLogprobs(0.0, (token_id,), (0.0,))
            drawn.append(Drawn(token_id, logprobs))
            if len(drawn) == steps:
                return drawn
            position += 1
            self._write(row, position, (token_id,))

    def _write(self, row: Row, position: int, token_ids: Sequence[int]) -> None:
        size, first, end = self._page_tokens, position, position + len(token_ids)
        while position < end:
            index, offset = divmod(position, size)
            page = row.pages[index]
            if not offset:
                # Pages that this call has filled follow each other.
                self._before[page] = (
                    self._check(row.pages[:index])
                    if position == first
                    else self._filled(row.pages[index - 1])
                )
                self._inside[page] = []
            inside = self._inside.get(page, [])
            if len(inside) < offset:
                raise DeviceError(
                    f"request {row.request_id}: page {page} holds {len(inside)} tokens, position {position} "
                    f"builds on {offset}"
                )
            if offset and len(token_ids) > 1 and self._check(row.pages[:index]) != self._before[page]:
                raise DeviceError(f"page {page} holds what does not follow the pages before it")
            self._through.pop(page, None)
            del inside[offset:]
            stop = min(end, position + size - offset)
            inside.extend(token_ids[position - first : stop - first])
            position = stop

    def _check(self, pages: Sequence[int]) -> int:
        """That these full pages follow each other; the hash of all that they hold.

        Asked before each new page and each piece of a prompt: at every token it would take as long as a pass.
        """
        through = 0
        for page in pages:
            filled = self._filled(page)
            if self._before[page] != through:
                raise DeviceError(f"page {page} holds what does not follow the pages before it")
            through = filled
        return through

    def _filled(self, page: int) -> int:
        """Hash of everything up to the end of a full page."""
        known = self._through.get(page)
        if known is None:
            known = self._through[page] = self._digest(page, self._page_tokens)
        return known

    def _digest(self, page: int, tokens: int) -> int:
        inside = self._inside.get(page, [])[:tokens]
        if len(inside) < tokens:
            raise DeviceError(f"page {page} holds {len(inside)} tokens, {tokens} are read")
        return xxhash.xxh3_64_intdigest(struct.pack(f"<{tokens}i", *inside), self._before[page])

    def _choose(self, draw: Draw, digest: int) -> int:
        if draw.bitmask is not None:
            bits = np.unpackbits(np.asarray(draw.bitmask).view(np.uint8), bitorder="little")
            allowed = [int(word) for word in np.flatnonzero(bits)]
            # A grammar that is complete allows nothing but an end, which min_tokens may forbid: the grammar wins.
            words = [word for word in allowed if word not in draw.banned] or allowed
            return words[digest % len(words)]
        ends = [end for end in self._eos_token_ids if end not in draw.banned]
        if (
            ends
            and not draw.sampling.ignore_eos
            and digest // len(self._vocabulary) % MEAN_ANSWER_TOKENS == 0
        ):
            return ends[0]
        word = self._vocabulary[digest % len(self._vocabulary)]
        if word not in draw.banned:
            return word
        others = [word for word in self._vocabulary if word not in draw.banned] or self._vocabulary
        return others[digest % len(others)]


class CountedTokens:
    """Where only times matter: one token per request, again and again, which no prompt has."""

    def __init__(self) -> None:
        self._drawn: dict[str, Drawn] = {}

    def write(self, row: Row) -> None:
        """Nothing is kept."""

    def draw(self, row: Row, steps: int) -> Sequence[Drawn]:
        # No two requests the same: a continued answer must not find another's pages.
        token_id = -1 - (xxhash.xxh32_intdigest(row.request_id.encode()) >> 1)
        return (Drawn(token_id),) * steps
