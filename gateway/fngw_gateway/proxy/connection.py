"""One connection to a replica: HTTP/1.1 on httptools and asyncio, one request at a time.

Back-pressure works both ways: reading stops while more than ``HIGH_WATER`` bytes of an answer wait to be taken,
and ``drain`` waits while the replica does not read. An answer's end is found for HEAD (llhttp would wait for a
body), 204/304, and answers that end with the connection; interim answers (1xx) are dropped, but for 100, which
is what a large body waits for.
"""

from __future__ import annotations

import asyncio
import select
import socket
from typing import Any, Protocol

import httptools

from fngw_gateway.proxy import steps

__all__ = ["HIGH_WATER", "Connection", "Lost", "Owner"]

#: Bytes of an answer that wait to be taken before reading stops.
HIGH_WATER = 256 * 1024
#: What a Unix socket takes at once, where the system lets it (`net.core.wmem_max`): its own 208 KiB are less than a
#: read of a large body, every one of which then took two writes and a wait between them.
SEND_BUFFER = 512 * 1024
#: The largest head of an answer.
MAX_HEAD = 256 * 1024

_FRAMING = frozenset({b"content-length", b"transfer-encoding"})


class Owner(Protocol):
    """Who keeps connections: told of their beginnings and ends."""

    def add(self, connection: Connection) -> None: ...
    def put_back(self, connection: Connection) -> None: ...
    def forget(self, connection: Connection) -> None: ...


class Lost(Exception):
    """The replica is gone, or does not speak HTTP.

    Args:
        why: for the error's text.
        answered: whether any byte of an answer had come.
    """

    def __init__(self, why: str, *, answered: bool) -> None:
        super().__init__(why)
        self.answered = answered


class Connection(asyncio.Protocol):
    """One connection to a replica. ``begin`` → ``write`` … → ``head`` → ``more``/``take`` … → ``release``.

    ``status`` is 0 until the answer's head is there; ``headers`` have lower-case names; ``done`` tells that the
    answer is complete; ``continued`` that the replica asked for the body (100).
    """

    __slots__ = (
        "_answered",
        "_busy",
        "_chunks",
        "_drained",
        "_error",
        "_head_only",
        "_head_size",
        "_interim",
        "_keep",
        "_parser",
        "_paused",
        "_poll",
        "_pool",
        "_size",
        "_transport",
        "_waiter",
        "_write_paused",
        "closed",
        "continued",
        "done",
        "headers",
        "idle_since",
        "sent",
        "status",
    )

    def __init__(self, pool: Owner) -> None:
        self._pool = pool
        self._parser: Any = httptools.HttpResponseParser(self)
        self._transport: Any = None
        self._poll: Any = None
        self._busy = self._write_paused = self._paused = self.closed = False
        self._waiter: asyncio.Future[None] | steps.Steps | None = None
        self._drained: asyncio.Future[None] | None = None
        self.idle_since = 0.0
        self._reset(head_only=False)

    def _reset(self, *, head_only: bool) -> None:
        self._head_only = head_only
        self.status = self._size = self._head_size = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self._chunks: list[bytes] = []
        self._error: Lost | None = None
        self._answered = self._interim = self._keep = self.done = self.continued = False
        self.sent = False  # whether the whole request was written

    # -- the request --------------------------------------------------------------------------------------

    def begin(self, *, head_only: bool) -> None:
        """Start a request; ``head_only`` for HEAD."""
        self._reset(head_only=head_only)
        self._busy = True

    def write(self, data: bytes | bytearray, *, last: bool) -> None:
        """Write a part of the request. ``last`` tells that it is then complete.

        Raises:
            Lost: the connection is closed.
        """
        if self.closed:
            raise self._error or Lost("its connection was closed", answered=self._answered)
        if data:
            self._transport.write(data)
        self.sent = last

    @property
    def writable(self) -> bool:
        """Whether a part can be written now: the connection is open, and the replica reads."""
        return not (self.closed or self._write_paused)

    async def drain(self) -> None:
        """Wait while the replica does not read."""
        if self._write_paused and not self.closed:
            self._drained = asyncio.get_running_loop().create_future()
            await self._drained

    async def flush(self) -> None:
        """Wait until all that was written is the kernel's.

        Raises:
            Lost: the connection is closed.
        """
        self._transport.set_write_buffer_limits(high=0)
        try:
            await self.drain()
        finally:
            self._transport.set_write_buffer_limits()
        if self.closed:
            raise self._error or Lost("its connection was closed", answered=self._answered)

    def fileno(self) -> int:
        """Return the descriptor of its socket, while that is open."""
        return int(self._transport.get_extra_info("socket").fileno())

    # -- the answer ---------------------------------------------------------------------------------------

    async def head(self) -> None:
        """Wait for the answer's head.

        Raises:
            Lost: it will not come.
        """
        while not self.status:
            if self._error is not None:
                raise self._error
            await self._wait()

    async def asked(self) -> None:
        """Wait until the replica asks for the body, or answers without it.

        Raises:
            Lost: neither will come.
        """
        while not self.continued and not self.status:
            if self._error is not None:
                raise self._error
            await self._wait()

    async def more(self) -> None:
        """Wait for more of the body, or its end.

        Raises:
            Lost: the rest will not come.
        """
        while not self._chunks and not self.done:
            if self._error is not None:
                raise self._error
            if self._paused:
                self._paused = False
                self._transport.resume_reading()
            await self._wait()

    @property
    def body(self) -> bytes:
        """What has come of the body; empty when nothing has."""
        chunks = self._chunks
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def take(self) -> bytes:
        """Return what has come of the body, and forget it."""
        body = self.body
        self._chunks, self._size = [], 0
        return body

    async def _wait(self) -> None:
        try:
            if running := steps.current():
                self._waiter = running
                await steps.pause()
            else:
                self._waiter = asyncio.get_running_loop().create_future()
                await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # -- the end ------------------------------------------------------------------------------------------

    def release(self) -> None:
        """End the request: keep the connection if it is good for another one, else close it (an unfinished
        answer is thereby cancelled in the replica)."""
        if not self._busy:
            return
        self._busy = False
        if self.closed:
            return
        if not (self.done and self.sent and self._keep and self._error is None):
            self._transport.abort()
            return
        if self._head_only:
            self._parser = httptools.HttpResponseParser(self)
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        self._pool.put_back(self)

    def close(self) -> None:
        """Close an idle connection."""
        self._transport.abort()

    def usable(self) -> bool:
        """Whether an idle connection is still open, and nothing unasked-for has come. The socket is asked, too, for
        what the event loop has not seen yet: about 1 µs."""
        return not (self.closed or self._transport.is_closing() or self._readable())

    def _readable(self) -> bool:
        """Whether bytes or the end have come."""
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(self._poll.poll(0))

    # -- asyncio.Protocol ---------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        _widen(transport.get_extra_info("socket"))
        self._pool.add(self)

    def data_received(self, data: bytes) -> None:
        if not self._busy or self.done:
            self._fail("it sent more than its answer")  # nobody asked for it: not a line to go on with
            return
        self._answered = True
        if not self.status:
            self._head_size += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail("it switched protocols unasked")
        except httptools.HttpParserError as error:
            self._fail(f"its answer is not HTTP ({error})")
        if not self.status and self._head_size > MAX_HEAD:
            self._fail(f"its answer's head is larger than {MAX_HEAD} bytes")
        if self._size > HIGH_WATER and not self._paused and not self.closed:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._pool.forget(self)
        if self._busy and not self.done and self._error is None:
            if self.status and exc is None and self._ends_with_connection():
                self.done = True
            else:
                why = "it closed the connection" if exc is None else str(exc) or type(exc).__name__
                self._error = Lost(why, answered=self._answered)
        self._wake()
        self.resume_writing()

    def pause_writing(self) -> None:
        self._write_paused = True

    def resume_writing(self) -> None:
        self._write_paused = False
        drained = self._drained
        if drained is not None and not drained.done():
            drained.set_result(None)

    def _ends_with_connection(self) -> bool:
        return not any(name in _FRAMING for name, _ in self.headers)

    def _fail(self, why: str) -> None:
        if self._error is None:
            self._error = Lost(why, answered=True)
        self._transport.abort()

    # -- httptools ----------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self.done:
            self._fail("it sent more than its answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.status:  # else it is a trailer
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if not 100 <= status <= 599:
            self._fail(f"it answered with the status {status}")
            return
        if status < 200:
            self._interim = True
            self.continued = self.continued or status == 100
            return
        self.status = status
        if self._head_only:
            self.done = True
            self._keep = self._stays_open()
        else:
            self._keep = self._parser.should_keep_alive()

    def on_body(self, data: bytes) -> None:
        if not self.done:
            self._chunks.append(data)
            self._size += len(data)
        elif self._head_only:
            self._fail("it sent a body after HEAD")

    def on_message_complete(self) -> None:
        if self._interim:
            self._interim = False
            self.headers = []
        elif self.status:
            self.done = True

    def _stays_open(self) -> bool:
        """Keep-alive after HEAD: llhttp says no where the absent body's length is not declared."""
        closing = any(n == b"connection" and b"close" in v.lower() for n, v in self.headers)
        return bool(self._parser.get_http_version() == "1.1") and not closing


def _widen(sock: Any) -> None:
    """Let a Unix socket take more at once; TCP finds its own measure."""
    if sock is not None and sock.family == socket.AF_UNIX:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
