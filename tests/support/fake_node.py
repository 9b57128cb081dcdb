"""A real node process with a fake core: `python fake_node.py --options JSON`.

`SILENCE_S` in the environment is how long the node lets its core be silent.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from drift_engine import logs, options
from drift_engine.errors import OptionsError
from drift_engine.node import process
from drift_engine.options import NodeOptions

CORE = Path(__file__).with_name("fake_core.py")


def command(address: str, node_options: NodeOptions, model_path: Path) -> list[str]:
    return [
        sys.executable,
        str(CORE),
        *("--socket", address),
        *("--options", options.dump(node_options)),
        *("--model-path", str(model_path)),
        *("--parent-pid", str(os.getpid())),
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--options", required=True)
    try:
        silence_s = float(os.environ.get("SILENCE_S", process.SILENCE_S))
        node_options = options.parse(parser.parse_args().options)
        sys.exit(process.serve(node_options, command=command, silence_s=silence_s))
    except OptionsError as error:
        logs.complain(str(error))
        sys.exit(2)
