"""Both ends of the gateway as h11 sees them: a parser that shares no line with the gateway's reads all it emits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import h11

from .wire import Peer, Upstream

#: The largest head that either end reads: more than the gateway may emit.
MOST_HEAD = 2**20
#: How long an end waits for what must come: less than a server keeps an idle connection (both do for 75 s).
PATIENCE_S = 30.0


@dataclass
class Answer:
    """What a client was answered. ``cut``: the connection ended within it."""

    status: int
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    cut: bool = False

    @property
    def framed(self) -> bool:
        """Whether its end is told otherwise than by the connection's end."""
        return any(name in (b"content-length", b"transfer-encoding") for name, _ in self.headers)

    def get(self, name: bytes) -> bytes | None:
        return next((value for key, value in self.headers if key == name), None)


class Caller:
    """A client of the gateway. What h11 does not accept fails the test.

    ``interim`` are the statuses below 200 that came so far.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.interim: list[int] = []
        self._line = h11.Connection(h11.CLIENT, max_incomplete_event_size=MOST_HEAD)

    async def send(self, *parts: bytes) -> None:
        """Write the parts one by one; that nobody reads them any more is no fault."""
        try:
            for part in parts:
                self.writer.write(part)
                await self.writer.drain()
        except ConnectionError:
            pass

    async def answer(self, method: str = "GET") -> Answer | None:
        """Read the answer to a request with ``method``; None when the connection ends before it."""
        if self._line.our_state is h11.DONE:
            self._line.start_next_cycle()
        self._line.send(h11.Request(method=method, target="/", headers=[("host", "t")]))
        self._line.send(h11.EndOfMessage())
        answer = None
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    event = await self._event(answer)
                except ConnectionResetError:
                    event = h11.ConnectionClosed()
                if isinstance(event, h11.InformationalResponse):
                    self.interim.append(event.status_code)
                elif isinstance(event, h11.Response):
                    answer = Answer(event.status_code, list(event.headers))
                elif isinstance(event, h11.Data):
                    assert answer is not None
                    answer.body += event.data
                elif isinstance(event, h11.EndOfMessage):
                    return answer
                else:
                    assert isinstance(event, h11.ConnectionClosed), event
                    if answer is not None:
                        answer.cut = True
                    return answer

    async def _event(self, answer: Answer | None) -> Any:
        while True:
            event = self._line.next_event()
            if event is not h11.NEED_DATA:
                return event
            data = await self.reader.read(65536)
            if not data and (answer is None or answer.framed):
                return h11.ConnectionClosed()  # h11 would call it a fault of HTTP: whether it is one, the case says
            self._line.receive_data(data)

    async def ended(self) -> bool:
        """Whether the connection ends now, with nothing more on it."""
        rest, _ = self._line.trailing_data
        try:
            async with asyncio.timeout(PATIENCE_S):
                rest += await self.reader.read()
        except ConnectionResetError:
            pass
        except TimeoutError:
            return False
        assert rest == b"", f"after the last answer came {rest[:200]!r}"
        return True

    def close(self) -> None:
        self.writer.transport.abort()


#: What a replica does with one target instead of echoing, before it reads the body; whether it then goes on.
Act = Callable[["Line"], Awaitable[bool]]


class Line:
    """One connection of the gateway to a replica: what came, byte by byte, and as h11 reads it."""

    def __init__(self, peer: Peer) -> None:
        self.reader, self.writer = peer.reader, peer.writer
        self.raw = b""
        self.over = False  # whichever end closed it
        self.parser = h11.Connection(h11.SERVER, max_incomplete_event_size=MOST_HEAD)

    async def event(self) -> Any:
        """The next event of h11; None when the gateway closed the connection, within a request too."""
        while True:
            event = self.parser.next_event()
            if event is not h11.NEED_DATA:
                return None if isinstance(event, h11.ConnectionClosed) else event
            if self.parser.they_are_waiting_for_100_continue:
                self.writer.write(self.parser.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
            data = await self.reader.read(65536)
            if not data:
                return None
            self.raw += data
            self.parser.receive_data(data)

    async def body(self) -> bytes | None:
        """The rest of a request; None when it breaks off."""
        parts = []
        while isinstance(event := await self.event(), h11.Data):
            parts.append(bytes(event.data))
        return b"".join(parts) if event is not None else None

    def answered(self) -> None:
        """The request is over: h11 is to expect another one."""
        self.parser.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
        self.parser.send(h11.EndOfMessage())
        self.parser.start_next_cycle()


@dataclass
class Replica:
    """A replica that answers each request with its method, target and body; one target it may treat otherwise.

    ``reached`` are the requests that came whole, as they were answered; ``faults``, what h11 did not accept.
    """

    act: Act | None = None
    target: bytes = b"/f/case"
    lines: list[Line] = field(default_factory=list)
    reached: list[bytes] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def raw(self) -> bytes:
        return b"".join(line.raw for line in self.lines)

    async def script(self, peer: Peer, upstream: Upstream) -> None:
        line = Line(peer)
        self.lines.append(line)
        try:
            while isinstance(request := await line.event(), h11.Request):
                if self.act is not None and request.target == self.target:
                    if not await self.act(line):
                        return
                else:
                    await self._echo(line, request)
        except h11.RemoteProtocolError as error:
            self.faults.append(f"{error}: {line.raw[-500:]!r}")
        finally:
            line.over = True

    async def _echo(self, line: Line, request: h11.Request) -> None:
        body = await line.body()
        if body is None:
            return
        said = b"%b %b %b" % (request.method, request.target, body)
        self.reached.append(said)
        shown = b"" if request.method == b"HEAD" else said
        line.writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(said), shown))
        line.answered()
        await line.writer.drain()
