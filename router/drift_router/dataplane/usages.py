"""What an answer's `usage` says of its length, found without reading the answer as JSON."""

from __future__ import annotations

import re

KEY = b'"completion_tokens"'
"""Not within a text: there its quotes are escaped."""

_COUNT = re.compile(KEY + rb"\s*:\s*(\d{1,9})\b")


def drawn_tokens(data: bytes) -> int | None:
    """The last one that is there; None: there is none."""
    found = _COUNT.findall(data)
    return int(found[-1]) if found else None
