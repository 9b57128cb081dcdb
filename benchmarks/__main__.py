"""Runs benchmarks of this machine's kind, one after the other, each writing its result beside its script.

    python -m benchmarks                 all of them, on a machine that does nothing else
    python -m benchmarks reuse startup   these

The GPU's have their own entry, `benchmarks/gpu/run`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
ENGINE = ("cache", "overhead", "throughput", "serving", "reuse", "startup", "modes", "planner", "memory")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(ENGINE)}; none: all")
    names = parser.parse_args().names or ENGINE
    if unknown := [name for name in names if name not in ENGINE]:
        parser.error(f"unknown benchmark {unknown[0]!r}; choose from {', '.join(ENGINE)}")
    for name in names:
        results = FOLDER / "engine" / "results" / f"{name}.json"
        command = [sys.executable, "-m", f"benchmarks.engine.{name}", "--json", str(results)]
        print("+", " ".join(command[1:]), flush=True)
        if status := subprocess.run(command, check=False).returncode:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main())
