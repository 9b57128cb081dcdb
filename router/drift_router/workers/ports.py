"""The public port's number: held by the parent, listened on by the workers."""

from __future__ import annotations

import socket


def reserve(host: str, port: int) -> list[socket.socket]:
    """Sockets that hold the port on every address of the host, and do not listen: the kernel hands connections only
    to those that do. 0: any free one. Raises OSError, also where another router has it: nobody is to join by mistake.
    """
    held: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            wanted = (address[0], port, *address[2:])
            if port:
                with _made(family, kind, protocol) as alone:
                    alone.setsockopt(
                        socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
                    )  # closed connections are nobody
                    alone.bind(wanted)
            holding = _made(family, kind, protocol)
            held.append(holding)
            holding.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            holding.bind(wanted)
            port = port_of(held)
    except OSError:
        release(held)
        raise
    return held


def port_of(held: list[socket.socket]) -> int:
    return int(held[0].getsockname()[1])


def release(held: list[socket.socket]) -> None:
    for one in held:
        one.close()


def _made(family: int, kind: int, protocol: int) -> socket.socket:
    made = socket.socket(family, kind, protocol)
    if family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # as asyncio's servers
    return made
