"""`python -m drift_engine.node --options JSON`: one node. Exit status 0 stopped, 1 failed, 2 unusable options."""

from __future__ import annotations

import argparse
import os
import sys

from drift_engine import logs, options
from drift_engine.errors import OptionsError
from drift_engine.node import process


def main() -> int:
    parser = argparse.ArgumentParser(prog="drift_engine.node", description="Serve one model.")
    parser.add_argument("--options", required=True, metavar="JSON", help="NodeOptions as one JSON object")
    arguments = parser.parse_args()
    # one text at a time is tokenized, beside a core that uses every processor
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        return process.serve(options.with_token(options.parse(arguments.options), os.environ))
    except OptionsError as error:
        logs.complain(str(error))
        return 2


if __name__ == "__main__":
    sys.exit(main())
