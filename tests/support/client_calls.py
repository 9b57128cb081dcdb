"""What came of a foreign client's calls, told as JSON. Runs in that client's environment: standard library only."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Mapping
from typing import Any


def tell(calls: Mapping[str, Callable[[], Any]]) -> None:
    """Makes every call, and prints what it returned or raised; what the client prints goes to stderr."""
    with contextlib.redirect_stdout(sys.stderr):
        told = {name: _outcome(call) for name, call in calls.items()}
    json.dump(told, sys.stdout)


def _outcome(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Exception as error:
        return {
            "raised": [kind.__name__ for kind in type(error).__mro__],
            "status": getattr(error, "status_code", None),
            "message": str(error),
        }
