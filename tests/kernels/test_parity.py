"""Every Triton kernel against its reference, on a CPU in Triton's interpreter.

Triton reads `TRITON_INTERPRET` when it is imported, so the comparisons run in a process of their own; the
other tests of this process keep the compiler.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FILES = sorted(str(path) for path in (Path(__file__).parent / "interpreted").glob("parity_*.py"))


@pytest.mark.slow
@pytest.mark.timeout(600)  # 30 s alone on a core, of which Triton's interpreter takes nearly all
def test_kernels_equal_their_references() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *FILES],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=580,
        check=False,
    )
    assert done.returncode == 0, done.stdout
