"""`python -m drift_operator --options JSON`: one operator. Exit status 0 stopped, 1 failed, 2 unusable options."""

from __future__ import annotations

import argparse
import sys

from kubernetes.aio.config import ConfigException

from drift_engine import logs
from drift_operator import options, process
from drift_operator.errors import OperatorError, OptionsError


def main() -> int:
    parser = argparse.ArgumentParser(prog="drift_operator", description="Keeps DriftServices on a cluster.")
    parser.add_argument("--options", metavar="JSON", required=True, help="OperatorOptions as one JSON object")
    try:
        asked = options.parse(parser.parse_args().options)
    except OptionsError as error:
        logs.complain(str(error))
        return 2
    handler = logs.install(asked.log_level)
    try:
        process.serve(asked)
    except (OperatorError, ConfigException, OSError) as error:
        logs.complain(str(error))
        return 1
    finally:
        handler.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
