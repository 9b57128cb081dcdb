"""Which Drift this is."""

from __future__ import annotations

from importlib import metadata


def drift_version() -> str:
    """Of this installation; "source" where the source roots are on the path and nothing is installed."""
    try:
        return metadata.version("drift-serve")
    except metadata.PackageNotFoundError:
        return "source"
