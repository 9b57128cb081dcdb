"""Why a router could not be started, for the person who did."""

from __future__ import annotations


class RouterError(Exception):
    """Its text is for people, one problem a line."""
