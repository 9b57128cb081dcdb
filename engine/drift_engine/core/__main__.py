"""`python -m drift_engine.core`: started by the api process, not by people."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from drift_engine import options
from drift_engine.core import serving, starting


def main() -> int:
    parser = argparse.ArgumentParser(prog="drift_engine.core")
    parser.add_argument("--socket", required=True, help="address of the api process's ZeroMQ socket")
    parser.add_argument("--options", required=True, help="NodeOptions as JSON")
    parser.add_argument("--model-path", required=True, type=Path)
    parser.add_argument("--parent-pid", required=True, type=int)
    arguments = parser.parse_args()
    node_options = options.parse(arguments.options)
    logging.basicConfig(
        level=node_options.log_level.upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    return serving.serve(
        arguments.socket,
        node_options,
        arguments.model_path,
        arguments.parent_pid,
        starting.choose(node_options),
    )


if __name__ == "__main__":
    sys.exit(main())
