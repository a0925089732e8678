"""Both ends of the gateway as raw sockets: clients that send any bytes, replicas that answer any bytes."""

from __future__ import annotations

import asyncio
import inspect
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


async def eventually(check: Callable[[], Any], seconds: float = 30.0) -> Any:
    """Return the first true value of ``check`` (plain or async), or fail after ``seconds``."""
    deadline = time.monotonic() + seconds
    while True:
        value = check()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        assert time.monotonic() < deadline, f"not true within {seconds} s"
        await asyncio.sleep(0.01)


async def at_rest(count: Callable[[], int], seconds: float = 60.0) -> int:
    """Return ``count()`` once it has not changed for 30 looks in a row: all buffers are full."""
    last, same = count(), 0

    def look() -> bool:
        nonlocal last, same
        now = count()
        same = same + 1 if now == last and now > 0 else 0
        last = now
        return same >= 30

    await eventually(look, seconds)
    return last


@dataclass
class Message:
    """A request or an answer: its first line, headers (lower-case names) and body."""

    first: str
    headers: list[tuple[str, str]]
    body: bytes = b""
    complete: bool = True

    @property
    def status(self) -> int:
        return int(self.first.split()[1])

    @property
    def target(self) -> str:
        return self.first.split()[1]

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]

    def get(self, name: str) -> str | None:
        return next(iter(self.all(name)), None)

    def json(self) -> Any:
        return json.loads(self.body)


def samples(answer: Message) -> dict[str, float]:
    """Read an answer of ``/-/metrics``: ``requests_total{…}`` → value."""
    lines = [line for line in answer.body.decode().splitlines() if not line.startswith("#")]
    pairs = [line.removeprefix("fngw_").rpartition(" ") for line in lines]
    return {key: float(value) for key, _, value in pairs}


class Line:
    """One end of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def write(self, data: bytes) -> None:
        self.writer.write(data)

    async def head(self) -> Message | None:
        """Read a message's head; None at the end of the connection."""
        try:
            raw = await self.reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionResetError):
            return None
        first, *lines = raw.decode("latin-1").split("\r\n")[:-2]
        parted = [line.partition(":") for line in lines]
        return Message(first, [(name.lower(), value.strip()) for name, _, value in parted])

    async def chunk(self) -> bytes:
        size = int((await self.reader.readuntil(b"\r\n")).strip(), 16)
        data = await self.reader.readexactly(size)
        await self.reader.readexactly(2)
        return data

    async def body(self, message: Message) -> bytes:
        """Read the body by its framing; to the end of the connection when there is none."""
        parts = []
        try:
            if message.get("transfer-encoding") == "chunked":
                while data := await self.chunk():
                    parts.append(data)
            elif (length := message.get("content-length")) is not None:
                parts.append(await self.reader.readexactly(int(length)))
            else:
                parts.append(await self.reader.read())
        except (asyncio.IncompleteReadError, ConnectionResetError):
            message.complete = False
        return b"".join(parts)

    def close(self) -> None:
        self.writer.close()

    def abort(self) -> None:
        self.writer.transport.abort()


class Client(Line):
    """A client of the gateway."""

    async def answer(self, *, bodiless: bool = False) -> Message:
        """Read an answer. Fails when the connection ends before its head."""
        head = await self.head()
        assert head is not None, "the connection ended without an answer"
        if not bodiless and head.status not in (204, 304):
            head.body = await self.body(head)
        return head

    async def ask(self, method: str, path: str, headers: str = "", body: bytes = b"") -> Message:
        """Send a request and read its answer."""
        framing = f"Content-Length: {len(body)}\r\n" if body else ""
        self.write(f"{method} {path} HTTP/1.1\r\nHost: t\r\n{framing}{headers}\r\n".encode() + body)
        return await self.answer(bodiless=method == "HEAD")


class Peer(Line):
    """The gateway, as a replica sees it."""

    async def request(self) -> Message | None:
        """Read a request, with its body unless it waits to be asked for it; None at the end."""
        head = await self.head()
        framed = head is not None and (head.get("content-length") or head.get("transfer-encoding"))
        if head is not None and framed and head.get("expect") is None:
            head.body = await self.body(head)
        return head

    def answer(self, body: bytes = b"", status: str = "200 OK", headers: str = "") -> None:
        self.write(f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n{headers}\r\n".encode() + body)


Script = Callable[[Peer, "Upstream"], Awaitable[None]]


@dataclass
class Upstream:
    """A replica: a Unix socket (or a port), and what it does with each connection."""

    path: Path
    script: Script
    tcp: bool = False
    address: str = ""
    connections: int = 0
    ended: int = 0
    requests: list[Message] = field(default_factory=list)
    count: int = 0
    server: asyncio.AbstractServer | None = None
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    async def start(self) -> None:
        if self.tcp:
            self.server = await asyncio.start_server(self._connected, "127.0.0.1")
            self.address = "127.0.0.1:%d" % self.server.sockets[0].getsockname()[1]
        else:
            self.server = await asyncio.start_unix_server(self._connected, self.path)
            self.address = str(self.path)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        self.connections += 1
        try:
            await self.script(Peer(reader, writer), self)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self.ended += 1
            writer.close()
            self.tasks.discard(task)

    async def stop(self) -> None:
        """Refuse connections from now on, and close those that are open."""
        if self.server is not None:
            self.server.close()
            self.server = None
        self.path.unlink(missing_ok=True)
        for task in list(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def echo(peer: Peer, upstream: Upstream) -> None:
    """A replica that answers with what it got, on connections that stay open."""
    while (request := await peer.request()) is not None:
        upstream.requests.append(request)
        seen = {"first": request.first, "headers": request.headers, "body": request.body.decode("latin-1")}
        peer.answer(json.dumps({**seen, "replica": upstream.path.stem}).encode())
