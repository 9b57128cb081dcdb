"""What tests ask about processes that are not their children."""

from __future__ import annotations

import os
import select

DEADLINE_S = 20.0


def ends(pid: int) -> bool:
    """Whether the process has ended, or does so before a deadline."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], DEADLINE_S)[0])
    finally:
        os.close(handle)
