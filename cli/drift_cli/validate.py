"""`drift validate -f FILE`: every problem of a file with its line, or `ok`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from drift_operator import manifests
from drift_operator.errors import ManifestError


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-f",
        "--file",
        type=Path,
        action="append",
        required=True,
        help="YAML file; may be given more than once",
    )


def run(args: argparse.Namespace) -> int:
    code = 0
    for file in args.file:
        try:
            services = manifests.load(file)
        except ManifestError as error:
            print(error, file=sys.stderr)
            code = 1
        else:
            names = ", ".join(service.metadata.name for service in services)
            print(f"{file}: ok ({names})")
    return code
