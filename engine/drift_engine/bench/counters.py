"""A server's own counters (Prometheus text) against the log: did both see the same requests and tokens?"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from drift_engine.bench.metrics import output_count
from drift_engine.bench.records import RequestRecord
from drift_engine.bench.results import Count, ServerCounts

REQUESTS = "vllm:request_success_total"
PROMPT_TOKENS = "vllm:prompt_tokens_total"
GENERATION_TOKENS = "vllm:generation_tokens_total"
"""The names that vLLM made common; our nodes serve them too."""

_SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)", re.ASCII)
_GIVEN_UP = re.compile(r'finished_reason="(?:abort|cancelled|error)"')
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"', re.ASCII)


def parse(text: str) -> dict[str, float]:
    """Every sample's value by metric name, summed over its labels; requests that were given up are left out."""
    totals: dict[str, float] = {}
    for line in text.splitlines():
        sample = _SAMPLE.match(line)
        if sample and not (sample[1] == REQUESTS and _GIVEN_UP.search(sample[2] or "")):
            try:
                totals[sample[1]] = totals.get(sample[1], 0.0) + float(sample[3])
            except ValueError:
                continue  # not a sample
    return totals


def label(text: str, name: str) -> str | None:
    """The first value of a label, wherever it occurs."""
    for line in text.splitlines():
        sample = _SAMPLE.match(line)
        if sample and sample[2]:
            for found, value in _LABEL.findall(sample[2]):
                if found == name:
                    return str(value)
    return None


def against_log(
    before: Mapping[str, float], after: Mapping[str, float], records: Iterable[RequestRecord]
) -> ServerCounts | None:
    """None where the server has none of these metrics."""
    if not any(name in after for name in (REQUESTS, PROMPT_TOKENS, GENERATION_TOKENS)):
        return None
    answered = [record for record in records if record.status == "ok"]

    def count(name: str, client: int) -> Count:
        grown = round(after[name] - before.get(name, 0.0)) if name in after else None
        return Count(client=client, server=grown)

    requests = count(REQUESTS, len(answered))
    prompt_tokens = count(PROMPT_TOKENS, sum(record.prompt_tokens or 0 for record in answered))
    generation_tokens = count(GENERATION_TOKENS, sum(map(output_count, answered)))
    return ServerCounts(
        requests=requests,
        prompt_tokens=prompt_tokens,
        generation_tokens=generation_tokens,
        agree=all(
            pair.server is None or pair.server == pair.client
            for pair in (requests, prompt_tokens, generation_tokens)
        ),
    )
