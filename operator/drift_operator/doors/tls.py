"""TLS of the aggregated API: contexts made of PEM in memory, and exchanged while it serves.

Clients may show a certificate; where they do, it must be signed by the front proxy's authorities.
"""

from __future__ import annotations

import contextlib
import os
import ssl
from collections.abc import Iterator
from typing import cast

from aiohttp import web


def context(certificate: bytes, key: bytes, client_authorities: str) -> ssl.SSLContext:
    """Raises ssl.SSLError for PEM that can't be used. Without `client_authorities` nobody's certificate counts."""
    made = _bare()
    with _file(certificate) as certificate_path, _file(key) as key_path:
        made.load_cert_chain(certificate_path, key_path)
    if client_authorities:
        made.load_verify_locations(cadata=client_authorities)
    return made


class Exchange:
    """A context for listening that hands every new connection to the present one."""

    def __init__(self) -> None:
        self.listening = _bare()
        self.listening.sni_callback = self._hand_over
        self._present: ssl.SSLContext | None = None

    def use(self, present: ssl.SSLContext) -> None:
        self._present = present

    def is_present(self, request: web.Request) -> bool:
        """False: the connection was made under certificates that are replaced since."""
        found = _tls(request)
        return found is not None and found.context is self._present

    def _hand_over(
        self, connection: ssl.SSLSocket | ssl.SSLObject, _name: str | None, _context: ssl.SSLContext
    ) -> int | None:
        if self._present is None:
            return ssl.ALERT_DESCRIPTION_INTERNAL_ERROR
        connection.context = self._present
        return None


def common_names(request: web.Request) -> frozenset[str] | None:
    """Of the client's certificate, whose authority was checked in the handshake; None: it showed none."""
    connection = _tls(request)
    shown = connection.getpeercert() if connection is not None else None
    if not shown:
        return None
    subject = cast("tuple[tuple[tuple[str, str], ...], ...]", shown.get("subject", ()))
    return frozenset(value for part in subject for key, value in part if key == "commonName")


def _bare() -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.verify_mode = ssl.CERT_OPTIONAL
    # A resumed session would carry a client's certificate over from before an exchange.
    made.options |= ssl.OP_NO_TICKET
    made.num_tickets = 0
    return made


def _tls(request: web.Request) -> ssl.SSLObject | None:
    found = request.get_extra_info("ssl_object")
    return found if isinstance(found, ssl.SSLObject) else None


@contextlib.contextmanager
def _file(content: bytes) -> Iterator[str]:
    """The library reads files only; this one is in memory, so that a key is on no disk."""
    descriptor = os.memfd_create("drift-tls")
    try:
        os.write(descriptor, content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
