"""`python -m drift_router --options JSON`: one router. Exit status 0 stopped, 1 failed, 2 unusable options."""

from __future__ import annotations

import argparse
import os
import sys

from drift_engine import logs
from drift_engine.errors import OptionsError
from drift_router import options, process
from drift_router.errors import RouterError
from drift_router.workers import working


def main() -> int:
    parser = argparse.ArgumentParser(prog="drift_router", description="One address for many nodes.")
    asking = parser.add_mutually_exclusive_group(required=True)
    asking.add_argument("--options", metavar="JSON", help="RouterOptions as one JSON object")
    asking.add_argument(
        "--worker", type=int, metavar="FD", help=argparse.SUPPRESS
    )  # of a router: by its parent
    arguments = parser.parse_args()
    if arguments.worker is not None:
        return working.work(arguments.worker)
    try:
        asked = options.with_token(options.parse(arguments.options), os.environ)
    except OptionsError as error:
        logs.complain(str(error))
        return 2
    handler = logs.install(asked.log_level)
    try:
        process.serve(asked, lambda router: logs.say(process.addresses(router)))
    except OptionsError as error:
        logs.complain(str(error))
        return 2
    except RouterError as error:
        logs.complain(str(error))
        return 1
    finally:
        handler.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
