"""A small HTTP/1.1 client connection on asyncio streams: one request at a time, kept alive between them.

It knows what a gateway answers: a length, chunks, or an end by closing. Bodies are read into one ``bytearray``,
which a call frame's buffers (NumPy arrays) then share, writable, without another copy.

Standard library only, Python >= 3.7: this module is copied into replica images.
"""

from __future__ import annotations

import asyncio
import errno
import select
import socket
import ssl
import time
from dataclasses import dataclass
from typing import Dict, Optional, Sequence, Tuple
from urllib.parse import urlsplit

from fngw.endpoint import Endpoint

__all__ = ["Connection", "NeverRead", "Reply", "connect"]

PIECE = 2**18  # bytes read or written at a time
HEAD_LIMIT = 2**16
RESET_WITHIN_S = 2.0
UNIX_RETRY_S = 0.02  # until a full accept queue has room again


class NeverRead(ConnectionError):
    """The other side closed the connection before it read the request: sending it again is safe."""


@dataclass(frozen=True)
class Reply:
    """One answer; header names are in lower case."""

    status: int
    headers: Dict[str, str]
    body: bytearray

    @property
    def kind(self) -> str:
        """Its media type, without parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


async def connect(endpoint: Endpoint) -> Connection:
    """Open a connection.

    Raises:
        OSError: nobody listens there.
    """
    parts = urlsplit(endpoint.url)
    if endpoint.socket:
        sock = await _connected_socket(endpoint.socket)
        reader, writer = await asyncio.open_unix_connection(sock=sock, limit=PIECE)
    else:
        secure = ssl.create_default_context() if parts.scheme == "https" else None
        port = parts.port or (443 if secure else 80)
        reader, writer = await asyncio.open_connection(parts.hostname, port, ssl=secure, limit=PIECE)
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return Connection(reader, writer, host=parts.netloc.rpartition("@")[2], base=parts.path)


async def _connected_socket(path: str) -> socket.socket:
    """Connect to a Unix socket. Where the accept queue is full, the kernel says EAGAIN, and asyncio (3.7 to 3.13)
    takes that for a connection under way, which it is not; here it means to try again."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)
    try:
        while True:
            try:
                sock.connect(path)
                return sock
            except BlockingIOError:
                await asyncio.sleep(UNIX_RETRY_S)
    except BaseException:
        sock.close()
        raise


class Connection:
    """One connection. After an error, or when ``reusable`` is false, it is of no more use."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, base: str = ""
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._host = host
        self._base = base
        self._reusable = True

    @property
    def reusable(self) -> bool:
        """Whether another request can be sent: both sides keep it open, and nothing unasked-for has come."""
        gone = self._reader.at_eof() or self._writer.transport.is_closing()
        return self._reusable and not gone and self._quiet()

    def _quiet(self) -> bool:
        """Ask the kernel for what the event loop has not seen yet: between requests, nothing but an end comes."""
        poll = select.poll()
        poll.register(self._writer.get_extra_info("socket").fileno(), select.POLLIN)
        return not poll.poll(0)

    def close(self) -> None:
        """Close it at once; a request under way is thereby cancelled."""
        self._writer.transport.abort()

    async def exchange(self, method: str, path: str, headers: Dict[str, str], body: Sequence[bytes]) -> Reply:
        """Send a request and return its answer.

        Raises:
            NeverRead: it was certainly not read by the other side.
            OSError, EOFError, ValueError: the connection was lost, or the answer is not HTTP.
        """
        began = time.monotonic()
        try:
            await self._send(method, path, headers, body)
            version, status, answer = await self._head()
        except (BrokenPipeError, ConnectionResetError, asyncio.IncompleteReadError) as error:
            # A late reset tells nothing: a balancer on the way gave up.
            if time.monotonic() - began > RESET_WITHIN_S or not self._was_reset(error):
                raise
            raise NeverRead(str(error)) from error
        keep = answer.get("connection", "keep-alive" if version >= "HTTP/1.1" else "close").lower()
        self._reusable = "close" not in keep
        return Reply(status, answer, await self._body(status, answer))

    def _was_reset(self, error: Exception) -> bool:
        """Whether the peer closed with our bytes unread: that resets a connection (RFC 9293, section 3.6.1; Unix
        sockets on Linux: ECONNRESET or EPIPE). One that read them and then died ends it with a plain EOF. So does
        one that had closed before they came, but the reset follows (Linux' tcp_reset: EPIPE)."""
        if not isinstance(error, asyncio.IncompleteReadError):
            return True
        sock = self._writer.get_extra_info("socket")
        return not error.partial and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.EPIPE

    async def _send(self, method: str, path: str, headers: Dict[str, str], body: Sequence[bytes]) -> None:
        length = sum(len(part) for part in body)
        lines = [f"{method} {self._base}{path} HTTP/1.1", f"host: {self._host}", f"content-length: {length}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self._writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        for part in body:
            view = memoryview(part)
            for start in range(0, len(view), PIECE):
                self._writer.write(view[start : start + PIECE])
                await self._writer.drain()
        if self._writer.transport.is_closing():
            raise BrokenPipeError("closed while the request was written")

    async def _head(self) -> Tuple[str, int, Dict[str, str]]:
        while True:
            head = await self._reader.readuntil(b"\r\n\r\n")
            if len(head) > HEAD_LIMIT:
                raise ValueError("the answer's head is too long")
            first, *rest = head.decode("latin-1").rstrip("\r\n").split("\r\n")
            version, code = [*first.split(" "), ""][:2]
            if not version.startswith("HTTP/1.") or not code.isdigit():
                raise ValueError(f"not an HTTP answer: {first[:80]!r}")
            if int(code) >= 200:  # others are interim
                pairs = (line.partition(":") for line in rest)
                return version, int(code), {k.strip().lower(): v.strip() for k, _, v in pairs}

    async def _body(self, status: int, headers: Dict[str, str]) -> bytearray:
        body = bytearray()
        if status in (204, 304):
            return body
        if "chunked" in headers.get("transfer-encoding", "").lower():
            await self._chunks(body)
        elif "content-length" in headers:
            await self._exactly(int(headers["content-length"]), body)
        else:
            self._reusable = False
            await self._exactly(None, body)
        return body

    async def _exactly(self, size: Optional[int], body: bytearray) -> None:
        """Append ``size`` bytes to ``body``; all until the end when None."""
        end = None if size is None else len(body) + size
        while end is None or len(body) < end:
            piece = await self._reader.read(PIECE if end is None else min(PIECE, end - len(body)))
            if not piece:
                if end is None:
                    return
                raise EOFError("the answer was cut short")
            body += piece

    async def _chunks(self, body: bytearray) -> None:
        while True:
            size = int((await self._reader.readuntil(b"\r\n")).split(b";")[0], 16)
            if size == 0:
                break
            await self._exactly(size, body)
            await self._reader.readuntil(b"\r\n")
        while await self._reader.readuntil(b"\r\n") != b"\r\n":  # trailers
            continue
