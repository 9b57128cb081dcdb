"""Starts a program that ends when its starter ends: `python -m drift_operator.local.leash STARTER_PID PROGRAM ...`.

`children` puts this in front of every process, so that a supervisor that is killed without a chance to clean up
leaves no process behind. The kernel's parent-death signal outlives the exec below; nothing of this module does.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def main() -> None:
    starter_pid, program = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        # SIGTERM and not SIGKILL: a node ends its own core process and its in-flight requests in order.
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM))
    # Strictly after the request above: a starter that died before it sends no signal any more.
    if os.getppid() != starter_pid:
        sys.exit(1)
    os.execv(program[0], program)  # noqa: S606 - a program and its arguments, no shell


if __name__ == "__main__":
    main()
