"""From arrivals to request bodies: measures the tokenizer, keeps prompts inside the context, writes the texts.

Between `shaping` and `replaying`. The only questions to the server are asked here, before the clock starts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Literal

import msgspec

from drift_engine.bench import texts
from drift_engine.bench.servers import COUNTING_SERVERS, FORCING_SERVERS, Model, Server
from drift_engine.bench.traces import Arrival

ASK_AT_ONCE = 8
"""Questions to the tokenizer at a time."""
REPEATS = 8
"""A word's cost is measured on so many copies, to tell it from what the server adds to every prompt."""
UNMEASURED_MARGIN = 0.75
"""Share of the context that prompts may fill when their length in tokens is a guess."""
UNMEASURED_CHAT_TOKENS = 64
"""Allowed for a chat template that could not be measured."""
CUTS = 16
"""A text is shortened at most so often until it fits; each cut aims at the limit, so two or three are usual."""

CountTokens = Callable[[str], Awaitable[int | None]]


class Wishes(msgspec.Struct, frozen=True):
    """How requests are made from arrivals."""

    chat: bool = False
    ignore_eos: bool | None = None
    """None: if the server is known to understand it."""
    overlong: Literal["clip", "skip"] = "clip"
    seed: int = 0


class Planned(msgspec.Struct, frozen=True):
    """An arrival whose lengths fit the model."""

    arrival: Arrival
    clipped_prompt: bool = False
    clipped_output: bool = False


class Plan(msgspec.Struct, frozen=True):
    planned: tuple[Planned, ...]
    skipped: int


async def calibrate(count: CountTokens) -> texts.Vocabulary:
    """Words of known cost under the server's tokenizer: a few questions when every candidate is one token (big
    vocabularies), one more per candidate otherwise. Falls back to four characters a token.
    """
    words = texts.CANDIDATES
    once, often, all_together = [
        await count(text) for text in (words[0], words[0] * (1 + REPEATS), "".join(words))
    ]
    if once is None or often is None or all_together is None:
        return texts.FALLBACK
    overhead = max(0, once - (often - once) // REPEATS)
    if all_together - overhead == len(words):
        return texts.choose(dict.fromkeys(words, 1), overhead)
    limit = asyncio.Semaphore(ASK_AT_ONCE)

    async def cost(word: str) -> int | None:
        async with limit:
            tokens = await count(word * REPEATS)
        return None if tokens is None else max(1, round((tokens - overhead) / REPEATS))

    costs = await asyncio.gather(*map(cost, words))
    known = {word: tokens for word, tokens in zip(words, costs, strict=True) if tokens is not None}
    return texts.choose(known, overhead) if known else texts.FALLBACK


async def measure_texts(
    arrivals: Sequence[Arrival], count: CountTokens, vocabulary: texts.Vocabulary
) -> tuple[Arrival, ...]:
    """Fills in how many tokens the recorded texts have; about four characters a token where nobody can tell."""
    limit = asyncio.Semaphore(ASK_AT_ONCE)

    async def tokens(text: str) -> int:
        async with limit:
            counted = await count(text) if vocabulary.measured else None
        return counted if counted is not None else max(1, round(len(text) / vocabulary.chars_per_token))

    async def measured(arrival: Arrival) -> Arrival:
        if arrival.text is None:
            return arrival
        prompt, output = await asyncio.gather(tokens(arrival.text), tokens(arrival.output_text or " "))
        return msgspec.structs.replace(
            arrival, prompt_tokens=prompt, output_tokens=max(1, output - vocabulary.overhead_tokens)
        )

    return tuple(await asyncio.gather(*map(measured, arrivals)))


def fit(
    arrivals: Iterable[Arrival], context_tokens: int | None, overlong: Literal["clip", "skip"], measured: bool
) -> Plan:
    """Keeps prompt + output within the context. Clipping leaves the output at most half, the prompt the rest."""
    if context_tokens is None:
        return Plan(planned=tuple(Planned(arrival) for arrival in arrivals), skipped=0)
    room = context_tokens if measured else int(context_tokens * UNMEASURED_MARGIN)
    planned, skipped = [], 0
    for arrival in arrivals:
        if arrival.prompt_tokens + arrival.output_tokens <= room:
            planned.append(Planned(arrival))
        elif overlong == "skip":
            skipped += 1
        else:
            output = min(arrival.output_tokens, max(1, room // 2))
            prompt = min(arrival.prompt_tokens, max(1, room - output))
            planned.append(
                Planned(
                    msgspec.structs.replace(arrival, prompt_tokens=prompt, output_tokens=output),
                    clipped_prompt=prompt < arrival.prompt_tokens,
                    clipped_output=output < arrival.output_tokens,
                )
            )
    return Plan(planned=tuple(planned), skipped=skipped)


async def cut_texts(plan: Plan, count: CountTokens, vocabulary: texts.Vocabulary) -> Plan:
    """Shortens the recorded texts of clipped prompts to their new number of tokens: they keep their beginnings, so
    that turns go on sharing them.
    """
    limit = asyncio.Semaphore(ASK_AT_ONCE)

    async def cut(planned: Planned) -> Planned:
        text, wanted = planned.arrival.text, planned.arrival.prompt_tokens
        if text is None or not planned.clipped_prompt:
            return planned
        if not vocabulary.measured:
            text = text[: max(1, int(wanted * vocabulary.chars_per_token))]
        else:
            async with limit:
                for _ in range(CUTS):
                    tokens = await count(text)
                    if tokens is None or tokens <= wanted:
                        break
                    text = text[: max(1, min(len(text) - 1, int(len(text) * wanted / tokens)))]
        return msgspec.structs.replace(planned, arrival=msgspec.structs.replace(planned.arrival, text=text))

    return msgspec.structs.replace(plan, planned=tuple(await asyncio.gather(*map(cut, plan.planned))))


def forces_length(model: Model, wish: bool | None) -> bool:
    return wish if wish is not None else model.owned_by.lower() in FORCING_SERVERS


class BodyWriter:
    """Writes the JSON body of one request at a time."""

    def __init__(
        self, model: Model, vocabulary: texts.Vocabulary, *, chat: bool, ignore_eos: bool, seed: int
    ) -> None:
        self._writer = texts.Writer(vocabulary, seed)
        self._chat = chat
        self._fixed: dict[str, Any] = {
            "model": model.id,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if ignore_eos:
            self._fixed["ignore_eos"] = True
        if model.owned_by.lower() in COUNTING_SERVERS:
            self._fixed["stream_options"] = {"include_usage": True, "continuous_usage_stats": True}

    def body(self, arrival: Arrival) -> bytes:
        text = arrival.text
        if text is None:
            text = self._writer.prompt(arrival.block_ids, arrival.block_tokens, arrival.prompt_tokens)
        if self._chat:
            asked = {
                "messages": [{"role": "user", "content": text}],
                "max_completion_tokens": arrival.output_tokens,
            }
        else:
            asked = {"prompt": text, "max_tokens": arrival.output_tokens}
        return msgspec.json.encode({**self._fixed, **asked})


async def plan(
    server: Server, model: Model, arrivals: Sequence[Arrival], wishes: Wishes
) -> tuple[Plan, texts.Vocabulary]:
    """Everything about the requests that has to be known before the clock starts."""

    async def count(text: str) -> int | None:
        if wishes.chat:
            return await server.count_chat_tokens(model.id, text)
        return await server.count_tokens(model.id, text)

    vocabulary = await calibrate(count)
    if not vocabulary.measured and wishes.chat:
        vocabulary = msgspec.structs.replace(vocabulary, overhead_tokens=UNMEASURED_CHAT_TOKENS)
    measured = await measure_texts(arrivals, count, vocabulary)
    fitting = fit(measured, model.max_model_len, wishes.overlong, vocabulary.measured)
    return await cut_texts(fitting, count, vocabulary), vocabulary
