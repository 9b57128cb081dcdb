"""Keeps other sites' pages away from the console, though they run in the same browser.

A page of another site may point its own name at this address (DNS rebinding) and then read what is here as its own:
refused by the Host header, which says that name. An address, `localhost` or a name that was given cannot be rebound.
A page that posts here from elsewhere (CSRF) is refused by its Origin; it would have no token either, which is never
in a cookie.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection

from aiohttp import web

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
"""Of everything that the console answers."""

LOCAL = "localhost"

_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[^][:/@]+)(:[0-9]{1,5})?")


def host_problem(host: str | None, allowed: Collection[str]) -> str | None:
    """Why a request that came for this Host is refused; None: it is not. `allowed`: names beside addresses."""
    found = _HOST.fullmatch(host or "")
    if found is None:
        return "the Host header is missing or can't be read"
    name = found["name"].lower().rstrip(".")
    if name == LOCAL or name.endswith(f".{LOCAL}") or name in allowed or _is_address(name.strip("[]")):
        return None
    return (
        f"host {name!r} is not one of the console's; a name that people use in front of it has to be given "
        "(console.hosts)"
    )


def origin_problem(request: web.Request) -> str | None:
    """Why a request that does something is refused; None: it comes from our own page, or from no page at all."""
    origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site")
    if (
        origin is not None
        and origin.partition("://")[2].lower() != (request.headers.get("host") or "").lower()
    ):
        return f"a page of {origin!r} may not do that"
    if site not in (None, "same-origin", "none"):
        return f"a {site} request may not do that"
    return None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
