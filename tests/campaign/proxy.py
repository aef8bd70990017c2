"""A TCP proxy between the ledger and a server: it can cut, delay and swallow what passes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Literal

Mode = Literal["pass", "cut", "delay", "swallow"]
_CHUNK = 256 * 1024


class Proxy:
    """Listens on one port of 127.0.0.1 and hands everything on to another, which may change."""

    def __init__(self, port: int, target: int) -> None:
        self.port = port
        self.target = target
        self.mode: Mode = "pass"
        self.delay_seconds = 0.0
        self._server: asyncio.Server | None = None
        self._pairs: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, limit=_CHUNK)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        self.drop_all()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def set(self, mode: Mode, delay_seconds: float = 0.0) -> None:
        """Do this with what passes from now on; `cut` also drops all connections, and refuses new ones."""
        swallowed = self.mode == "swallow"
        self.mode, self.delay_seconds = mode, delay_seconds
        if mode == "cut" or swallowed:
            # What was swallowed is missing in the middle of them: they can't go on.
            self.drop_all()

    def drop_all(self) -> None:
        """Reset every connection, without a farewell."""
        for pair in list(self._pairs):
            for writer in pair:
                with contextlib.suppress(Exception):
                    writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            self._tasks.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.mode == "cut":
            writer.transport.abort()
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target, limit=_CHUNK)
        for each in (writer, far_writer):
            each.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pair = (writer, far_writer)
        self._pairs.add(pair)
        ways = [
            asyncio.create_task(self._carry(reader, far_writer)),
            asyncio.create_task(self._carry(far_reader, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._pairs.discard(pair)
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            for each in pair:
                with contextlib.suppress(Exception):
                    each.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(_CHUNK):
            if self.mode == "swallow":
                continue
            if self.mode == "delay":
                await asyncio.sleep(self.delay_seconds)
            if self.mode == "swallow":
                continue
            writer.write(chunk)
            await writer.drain()
        await asyncio.sleep(0.05)  # What was written last is on its way out.
