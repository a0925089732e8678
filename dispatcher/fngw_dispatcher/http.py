"""A small HTTP/1.1 client: whole answers up to a size, connections kept alive, a request cancelled by closing.

It is not the gateway's client, which streams in both directions: a queued call has its whole body, and its whole
answer is kept.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httptools

from fngw_state.call_records import Headers

__all__ = ["Answer", "Client", "Lost", "Target", "TooLarge", "Unreached", "tcp", "unix"]

#: Headers that are the connection's, or that this client sets itself.
_OWN = frozenset(
    b"connection keep-alive proxy-connection transfer-encoding te trailer upgrade content-length expect".split()
)


class Unreached(ConnectionError):
    """Nobody listens there: the request was certainly not seen."""


class Lost(ConnectionError):
    """The connection ended before the answer did."""


class TooLarge(ValueError):
    """The answer is larger than may be kept."""


@dataclass(frozen=True)
class Answer:
    """A whole answer; names of headers as they came."""

    status: int
    headers: Headers
    body: bytes = field(repr=False)

    def header(self, name: str) -> str | None:
        """Return the first value of a header; its name in lower case."""
        return next((v for n, v in self.headers if n.lower() == name), None)


Target = Callable[[Callable[[], asyncio.Protocol]], Awaitable[tuple[Any, Any]]]


def unix(path: str) -> Target:
    """Return how to connect to a Unix socket."""

    async def connect(protocol: Callable[[], asyncio.Protocol]) -> tuple[Any, Any]:
        return await asyncio.get_running_loop().create_unix_connection(protocol, path)

    return connect


def tcp(addresses: Sequence[str], port: int, tls_name: str | None = None) -> Target:
    """Return how to connect to the first of a host's addresses that lets one in.

    Args:
        addresses: one at least.
        port: of all of them.
        tls_name: with TLS; the name that the certificate must bear.
    """

    async def connect(protocol: Callable[[], asyncio.Protocol]) -> tuple[Any, Any]:
        secure = ssl.create_default_context() if tls_name else None
        connect_to = partial(
            asyncio.get_running_loop().create_connection, protocol, port=port, ssl=secure, server_hostname=tls_name
        )
        for address in addresses[:-1]:
            with suppress(OSError):
                return await connect_to(host=address)
        return await connect_to(host=addresses[-1])

    return connect


class Client:
    """Requests to one place.

    Args:
        target: how to connect to it.
        limit: largest body of an answer in bytes.

    Example:
        >>> client = Client(unix("/run/fngw/shared/gateway.sock"), limit=2**23)
        >>> answer = await client.send("POST", "/Greeter", (("accept", "*/*"),), b"hello")
    """

    def __init__(self, target: Target, limit: int) -> None:
        self._target = target
        self._limit = limit
        self._idle: list[_Connection] = []

    async def close(self) -> None:
        """Close the connections that nobody uses."""
        for connection in self._idle:
            connection.abort()
        self._idle.clear()

    async def send(self, method: str, url: str, headers: Headers, body: bytes) -> Answer:
        """Send a request and return its whole answer. A cancellation closes the connection.

        Raises:
            Unreached: nobody listens.
            Lost: the connection ended too early, or what came is not HTTP.
            TooLarge: more came than may be kept.
        """
        request = _request(method, url, headers, body)
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                try:
                    return await self._exchange(connection, method, request)
                except _Stale:
                    continue
        return await self._exchange(await self._connect(), method, request)

    async def _connect(self) -> _Connection:
        try:
            _, connection = await self._target(lambda: _Connection(self._limit))
        except OSError as error:
            raise Unreached(str(error)) from error
        return connection  # type: ignore[no-any-return]

    async def _exchange(self, connection: _Connection, method: str, request: bytes) -> Answer:
        try:
            answer = await connection.exchange(method, request)
        except BaseException:
            connection.abort()
            raise
        if connection.usable:
            self._idle.append(connection)
        else:
            connection.abort()
        return answer


def _request(method: str, url: str, headers: Headers, body: bytes) -> bytes:
    lines = [f"{method} {url} HTTP/1.1".encode("latin-1")]
    pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    lines += [name + b": " + value for name, value in pairs if name.lower() not in _OWN]
    if not any(name.lower() == b"host" for name, _ in pairs):
        lines.append(b"host: localhost")
    if body or method not in ("GET", "HEAD", "DELETE", "OPTIONS"):
        lines.append(b"content-length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


class _Stale(Lost):
    """A kept connection was closed by a side that had not read the request: a peer that closes with our bytes
    unread resets the connection, one that has read them ends it plainly (http1.py of the SDK has the sources)."""


class _Connection(asyncio.Protocol):
    """One connection; also httptools' callbacks (``on_…``)."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._transport: Any = None
        self._parser: Any = None
        self._answer: asyncio.Future[Answer] | None = None
        self._used = False
        self._open = True

    @property
    def usable(self) -> bool:
        """Whether it can take another request."""
        return self._open and self._answer is None and not self._transport.is_closing()

    def abort(self) -> None:
        self._open = False
        if self._transport is not None:
            self._transport.abort()

    async def exchange(self, method: str, request: bytes) -> Answer:
        self._method, self._status, self._headers, self._body = method, 0, [], bytearray()  # type: ignore[var-annotated]
        self._began = False
        self._parser = httptools.HttpResponseParser(self)
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            return await self._answer
        finally:
            self._answer, self._used = None, True

    # -- asyncio ------------------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._answer is None:
            self.abort()  # nothing was asked
            return
        self._began = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._fail(cause if isinstance(cause, TooLarge) else Lost(f"not an HTTP answer: {error}"))

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._open = False
        if self._answer is None:
            return
        if self._status >= 200 and self._until_close:
            self._complete()
        elif self._used and not self._began and isinstance(error, (ConnectionResetError, BrokenPipeError)):
            self._fail(_Stale(str(error)))
        else:
            self._fail(Lost(f"connection lost: {error or 'closed by the other side'}"))

    def _fail(self, error: BaseException) -> None:
        self._open = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)

    # -- httptools ----------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._headers, self._until_close = [], True

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() in (b"content-length", b"transfer-encoding"):
            self._until_close = False
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._status = self._parser.get_status_code()
        if self._method == "HEAD" and self._status >= 200:
            self._open = False  # llhttp would wait for a body
            self._complete()

    def on_body(self, data: bytes) -> None:
        if len(self._body) + len(data) > self._limit:
            raise TooLarge(f"more than {self._limit} bytes")
        self._body += data

    def on_message_complete(self) -> None:
        if self._status >= 200:  # others are interim
            self._open = self._open and self._parser.should_keep_alive()
            self._complete()

    def _complete(self) -> None:
        if self._answer is not None and not self._answer.done():
            headers = tuple((n.decode("latin-1"), v.decode("latin-1")) for n, v in self._headers)
            self._answer.set_result(Answer(self._status, headers, bytes(self._body)))
