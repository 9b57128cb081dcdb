"""Searches for bytes that break a parser, guided by coverage.

    python tests/fuzz/fuzz.py TARGET [--seconds 600]

New inputs that reach new code are added to `tests/fuzz/corpus/TARGET`; one that breaks something is kept beside it as
`crash-*` and told. Needs atheris (`pip install atheris`; Linux, not for every Python version, so no requirement).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import atheris

CORPUS = Path(__file__).parent / "corpus"
MOST_BYTES = 8192

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
with atheris.instrument_imports(
    include=["drift_router", "drift_operator", "drift_engine", "fuzz_targets", "fuzz_documents"]
):
    import fuzz_targets


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("target", choices=fuzz_targets.TARGETS)
    parser.add_argument("--seconds", type=int, default=600)
    arguments = parser.parse_args()
    corpus = CORPUS / arguments.target
    corpus.mkdir(parents=True, exist_ok=True)
    atheris.Setup(
        [
            sys.argv[0],
            str(corpus),
            f"-max_total_time={arguments.seconds}",
            f"-max_len={MOST_BYTES}",
            f"-artifact_prefix={corpus}/crash-",
            "-print_final_stats=1",
        ],
        fuzz_targets.TARGETS[arguments.target],
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
