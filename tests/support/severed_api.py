"""A way to the API server that a test can cut: connections end in the middle, and new ones are refused meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from background_loop import BackgroundLoop

CHUNK_BYTES = 65_536


class SeveredApi:
    """Passes bytes on, so TLS is between the client and the server: its certificate must be valid for 127.0.0.1."""

    def __init__(self, background: BackgroundLoop, host: str, port: int) -> None:
        self._background = background
        self._target = host, port
        self._server: asyncio.Server | None = None
        self._port = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self.connections = 0

    @property
    def port(self) -> int:
        return self._port

    def open(self) -> None:
        self._background.run(self._open())

    def cut(self) -> None:
        """All connections, once."""
        self._background.call(self._cut)

    def close(self) -> None:
        """Cuts, and takes no more until `open`."""

        async def closing() -> None:
            if self._server is not None:
                self._server.close()
                self._server = None
            self._cut()

        self._background.run(closing())

    async def _open(self) -> None:
        self._server = await asyncio.start_server(self._pass, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    def _cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(OSError):
            far_reader, far_writer = await asyncio.open_connection(*self._target)
            ends = {writer, far_writer}
            self._writers |= ends
            try:
                await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
            finally:
                self._writers -= ends
                for end in ends:
                    end.transport.abort()
        writer.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
    writer.transport.abort()


@contextlib.contextmanager
def severed(kubeconfig: Path, folder: Path) -> Iterator[tuple[SeveredApi, Path]]:
    """And the kubeconfig of who goes this way."""
    document: dict[str, Any] = yaml.safe_load(kubeconfig.read_text())
    (entry,) = document["clusters"]
    server = urllib.parse.urlsplit(entry["cluster"]["server"])
    assert server.hostname is not None
    assert server.port is not None
    with BackgroundLoop("severed API") as background:
        api = SeveredApi(background, server.hostname, server.port)
        api.open()
        entry["cluster"]["server"] = f"https://127.0.0.1:{api.port}"
        found = folder / "severed-kubeconfig"
        found.write_text(yaml.safe_dump(document))
        try:
            yield api, found
        finally:
            api.close()
