"""What a node tells a trusted router of a prompt with its answer: the names of some of its KV pages.

    x-drift-pages: PAGE_TOKENS;PROMPT_TOKENS;CACHED_TOKENS;INDEX:NAME,INDEX:NAME,...

INDEX is a page's position in the prompt from 0, ascending; NAME its name in lower-case hexadecimal digits. Only names
that are multiples of `hashing.SAMPLE` are listed, at most MAX_PAGES of them.
"""

from __future__ import annotations

import functools
import operator
from typing import NamedTuple

from drift_engine import hashing

MAX_PAGES = 128
"""Of a header. 128 pages of 24 characters are 3 KiB, within every server's limit of headers."""
MAX_HEADER_BYTES = 4096
MAX_PAGE_TOKENS = 4096
MAX_PROMPT_TOKENS = 1 << 24
"""Sixteen million: what has more is no prompt."""

_DIGITS = b"0123456789abcdef"
_HEXADECIMAL = 16
_NAMES_END = 1 << 64


class Hints(NamedTuple):
    page_tokens: int
    prompt_tokens: int
    cached_tokens: int
    indices: list[int]
    names: list[int]
    """Of the pages at `indices`."""


def parse(header: bytes | str) -> Hints | None:
    """None for what is malformed or out of bounds: an answer is not worse for it."""
    try:
        return _parse(header.encode("ascii") if isinstance(header, str) else header)
    except ValueError:
        return None


def _parse(header: bytes) -> Hints | None:
    # What is left without the digits shows the form at once; int() alone would also take signs, spaces and
    # underscores.
    marks = header.translate(None, _DIGITS)
    count = (len(marks) - 2) // 2
    if (
        len(header) > MAX_HEADER_BYTES
        or not 0 <= count <= MAX_PAGES
        or marks != b";;;" + (b":," * count)[:-1]
    ):
        return None
    page, prompt, cached, listed = header.split(b";")
    if bool(listed) != bool(count):
        return None
    page_tokens, prompt_tokens, cached_tokens = int(page), int(prompt), int(cached)
    if not (
        1 <= page_tokens <= MAX_PAGE_TOKENS
        and 1 <= prompt_tokens <= MAX_PROMPT_TOKENS
        and cached_tokens <= prompt_tokens
    ):
        return None
    if not count:
        return Hints(page_tokens, prompt_tokens, cached_tokens, [], [])
    numbers = listed.replace(b":", b",").decode().split(",")
    indices = list(map(int, numbers[::2]))
    names = [int(name, _HEXADECIMAL) for name in numbers[1::2]]
    bits = functools.reduce(operator.or_, names)  # of all names: enough for both of their bounds
    if (
        (indices[-1] + 1) * page_tokens > prompt_tokens
        or sorted(set(indices)) != indices
        or bits >= _NAMES_END
        or bits % hashing.SAMPLE
    ):
        return None
    return Hints(page_tokens, prompt_tokens, cached_tokens, indices, names)
