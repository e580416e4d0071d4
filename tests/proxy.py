"""A TCP proxy before an API server, for tests that break the connection."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

CHUNK = 1 << 16


@dataclass
class Proxy:
    """Forwards bytes, until it is told otherwise.

    :param delay: seconds that each piece of an answer is held back.
    """

    host: str
    port: int
    delay: float = 0.0
    own_port: int = 0
    _server: asyncio.Server | None = None
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)
    _flowing: asyncio.Event = field(default_factory=asyncio.Event)
    _serving: set[asyncio.Task[None]] = field(default_factory=set)

    async def accept(self) -> None:
        """Take connections."""
        self._flowing.set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.own_port)
        self.own_port = self._server.sockets[0].getsockname()[1]

    def refuse(self) -> None:
        """Take none, and cut those that there are."""
        if self._server is not None:
            self._server.close()
        self.cut()

    async def close(self) -> None:
        """Leave nothing behind."""
        self.refuse()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    def cut(self) -> None:
        """Break all connections, wherever they are."""
        for writer in self._writers:
            writer.transport.abort()

    def mute(self) -> None:
        """Forward nothing any more on the connections that there are, and say nothing of it. New ones are fine."""
        self._flowing, old = asyncio.Event(), self._flowing
        old.clear()
        self._flowing.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        flowing, task = self._flowing, asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        with contextlib.suppress(OSError):
            there, back = await asyncio.open_connection(self.host, self.port)
            self._writers |= {writer, back}
            await asyncio.gather(
                self._forward(reader, back, flowing), self._forward(there, writer, flowing, self.delay)
            )

    async def _forward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flowing: asyncio.Event, delay: float = 0.0
    ) -> None:
        try:
            with contextlib.suppress(OSError):
                while data := await reader.read(CHUNK):
                    await asyncio.sleep(delay)
                    await flowing.wait()
                    writer.write(data)
                    await writer.drain()
        finally:
            self._writers.discard(writer)
            writer.close()


@contextlib.asynccontextmanager
async def proxied(kubectl: Callable[..., str]) -> AsyncIterator[tuple[Proxy, str]]:
    """A proxy before the cluster's API server, and the kubeconfig that leads through it."""
    config = json.loads(kubectl("config", "view", "--raw", "--flatten", "--minify", "-o", "json"))
    server = urlsplit(config["clusters"][0]["cluster"]["server"])
    proxy = Proxy(str(server.hostname), server.port or 443)
    await proxy.accept()
    config["clusters"][0]["cluster"] |= {
        "server": f"https://127.0.0.1:{proxy.own_port}",
        "tls-server-name": server.hostname,
    }
    try:
        yield proxy, json.dumps(config)
    finally:
        await proxy.close()
