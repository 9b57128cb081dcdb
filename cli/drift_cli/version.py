"""`drift version`."""

from __future__ import annotations

import argparse
import platform
from importlib import metadata


def configure(parser: argparse.ArgumentParser) -> None:
    """No options."""


def run(args: argparse.Namespace) -> int:
    print(f"drift {_version()} (Python {platform.python_version()})")
    return 0


def _version() -> str:
    try:
        return metadata.version("drift-serve")
    except metadata.PackageNotFoundError:  # the source roots are on the path and nothing is installed
        return "from source"
