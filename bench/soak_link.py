"""The soak's own HTTP client: one connection, requests one behind the other, about 40 µs each."""

from __future__ import annotations

import asyncio
import base64
import os
import socket
import struct
from collections import deque
from typing import Any

import httptools
from soak_requests import Answer, Wrong

__all__ = ["Link", "WebSocket"]

HOST = "127.0.0.1"
#: An answer that takes longer counts as none: far above what any fault of the soak explains.
PATIENCE_S = 60.0
_RESET = struct.pack("ii", 1, 0)


class Link(asyncio.Protocol):
    """One connection to the gateway. ``over`` tells that it has ended."""

    def __init__(self) -> None:
        self._transport: Any = None
        self._parser: Any = httptools.HttpResponseParser(self)
        self._asked: deque[tuple[asyncio.Future[Answer], bool]] = deque()
        self._now = Answer()
        self._parts: list[bytes] = []
        self._stray: Wrong | None = None
        self._received = 0
        self._mark: tuple[int, asyncio.Future[None]] | None = None
        self.over = False

    @classmethod
    async def open(cls, port: int, receive_buffer: int = 0) -> Link:
        """Connect; ``receive_buffer`` in bytes makes the kernel hold little for a slow reader."""
        sock = socket.socket()
        sock.setblocking(False)
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, (HOST, port))
        _, link = await loop.create_connection(cls, sock=sock)
        return link

    # -- asking -------------------------------------------------------------------------------------------

    def expect(self, *, head_only: bool = False) -> asyncio.Future[Answer]:
        """Return what will be the next answer."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._asked.append((future, head_only))
        if self.over:
            self._end_all()
        return future

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    async def wait(self, future: asyncio.Future[Answer]) -> Answer:
        """Return an answer.

        Raises:
            Wrong: something came that nobody had asked for, or nothing does.
        """
        try:
            async with asyncio.timeout(PATIENCE_S):
                found = await future
        except TimeoutError:
            raise Wrong(f"no answer, and no end, for {PATIENCE_S:g} s") from None
        if self._stray is not None:
            raise self._stray
        return found

    async def received(self, count: int) -> None:
        """Wait until so many bytes have come, or the end."""
        if self._received < count and not self.over:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._mark = (count, future)
            async with asyncio.timeout(PATIENCE_S):
                await future

    def pause(self) -> None:
        """Read no more."""
        if not self.over:
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if not self.over:
            self._transport.resume_reading()

    def leave(self, *, reset: bool = False) -> None:
        """End the connection, politely or with a reset."""
        sock = self._transport.get_extra_info("socket")
        if reset and sock is not None and not self.over:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._transport.abort()

    # -- asyncio.Protocol ---------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._stop(f"not HTTP: {error}: {data[:200]!r}")
        self._reach(self._received)

    def connection_lost(self, exc: Exception | None) -> None:
        self.over = True
        self._end_all()
        if self._mark is not None:
            self._reach(self._mark[0])

    def _reach(self, count: int) -> None:
        if self._mark is not None and count >= self._mark[0]:
            (_, future), self._mark = self._mark, None
            if not future.done():
                future.set_result(None)

    def _end_all(self) -> None:
        """What has begun is cut; behind it, nothing comes."""
        while self._asked:
            self._now.body = b"".join(self._parts)
            self._finish()

    def _finish(self) -> None:
        future, _ = self._asked.popleft()
        if not future.done():
            future.set_result(self._now)
        self._now, self._parts = Answer(), []

    def _stop(self, why: str) -> None:
        self._stray = self._stray or Wrong(why)
        self._transport.abort()

    # -- httptools ----------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if not self._asked:
            self._stop("an answer that nobody had asked for")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._now.fields[name.lower()] = value

    def on_headers_complete(self) -> None:
        self._now.status = self._parser.get_status_code()
        if self._asked and self._asked[0][1]:
            self._parser = httptools.HttpResponseParser(self)  # this one waits for the body that HEAD has not
            self._now.whole = True
            self._finish()

    def on_body(self, data: bytes) -> None:
        self._parts.append(data)

    def on_message_complete(self) -> None:
        if self._asked and self._now.status:
            self._now.whole = True
            self._now.body = b"".join(self._parts)
            self._finish()


class WebSocket:
    """A client's side of one WebSocket: short text frames only.

    Raises:
        Wrong: what came is not what this client asked for.
        ConnectionError, EOFError: the connection has ended.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int, path: str, number: str) -> WebSocket:
        """Connect, and shake hands."""
        reader, writer = await asyncio.open_connection(HOST, port)
        key = base64.b64encode(os.urandom(16)).decode()
        lines = (f"GET {path} HTTP/1.1", "host: soak", "connection: Upgrade", "upgrade: websocket")
        more = ("sec-websocket-version: 13", f"sec-websocket-key: {key}", f"x-request-id: soak-{number}", "", "")
        writer.write("\r\n".join((*lines, *more)).encode())
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 101 ") or f"x-request-id: soak-{number}\r\n".encode() not in head:
            raise Wrong(f"WebSocket {number}: the handshake was answered with {head!r}")
        return cls(reader, writer)

    def send(self, text: bytes) -> None:
        """Send a text of at most 125 bytes."""
        self._frame(0x81, text)

    async def receive(self) -> bytes:
        """Return the next text."""
        return await self._expect(0x81)

    async def close(self) -> None:
        """Close with 1000, as the other end has to, too."""
        self._frame(0x88, b"\x03\xe8")
        told = await self._expect(0x88)
        if told != b"\x03\xe8" or await self._reader.read():
            raise Wrong(f"a WebSocket was closed with {told!r}")
        self._writer.close()

    def leave(self) -> None:
        """Be gone without a word."""
        self._writer.transport.abort()

    def _frame(self, first: int, data: bytes) -> None:
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[n % 4] for n, byte in enumerate(data))
        self._writer.write(bytes((first, 0x80 | len(data))) + mask + masked)

    async def _expect(self, first: int) -> bytes:
        async with asyncio.timeout(PATIENCE_S):
            got, length = await self._reader.readexactly(2)
            data = await self._reader.readexactly(length)
        if got != first:
            raise Wrong(f"a WebSocket got a frame {got:#x}: {data!r}")
        return data
