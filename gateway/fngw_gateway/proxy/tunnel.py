"""WebSockets: bytes pass both ways between a client and one replica, frames untouched.

uvicorn hands an upgraded connection to a protocol class of its configuration, with the request's head as bytes.
This one finds the replica as for any request, sends it the handshake, and passes its answer on: a ``101``, after
which both connections are joined, or a refusal, which ends the client's: what that still sends never reaches the
replica, where it would be a request that no gateway has seen. Close codes, pings and compression are between the
two ends. A WebSocket counts as one request in flight for as long as it lives.
"""

from __future__ import annotations

import asyncio
import re
from time import perf_counter
from typing import TYPE_CHECKING, Any

from fngw.errors import FngwError
from fngw_gateway.proxy import headers, problems
from fngw_gateway.proxy.balancer import Backend, Replica
from fngw_gateway.proxy.tally import CLIENT_LEFT

if TYPE_CHECKING:
    from fngw_gateway.proxy.plane import DataPlane

__all__ = ["Tunnel"]

HIGH_WATER = 256 * 1024
#: The head of a replica's answer may be so long, and take so long.
MOST_HEAD = 64 * 1024
HANDSHAKE_S = 30.0
#: A client may not send frames before the handshake is answered; what it does send is held up to this.
MOST_EARLY = 64 * 1024
#: Seconds that a client has to read the last of what it was sent, and to close; what it sends is forgotten.
LINGER_S = 2.0
SWITCHED = 101
STATUS_LINE = re.compile(rb"HTTP/1\.[01] (?:101|[2-5]\d\d)[ \r]")
UPGRADE = b"connection: Upgrade\r\nupgrade: websocket\r\n\r\n"


class _Side(asyncio.Protocol):
    """One of two joined connections. Each stops reading while the other cannot write."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.peer: _Side | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.set_write_buffer_limits(high=HIGH_WATER)

    def data_received(self, data: bytes) -> None:
        if self.peer is not None:
            self.peer.transport.write(data)

    def pause_writing(self) -> None:
        if self.peer is not None:
            self.peer.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.peer is not None:
            self.peer.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.peer is not None:
            self.peer.end()

    def end(self) -> None:
        """The other side has ended."""
        self.transport.close()


class _Upstream(_Side):
    """The connection to the replica.

    ``head`` resolves with the head of its answer, or None if there is none; ``gone`` when the connection ends.
    """

    def __init__(self) -> None:
        super().__init__()
        loop = asyncio.get_running_loop()
        self.head: asyncio.Future[bytes | None] = loop.create_future()
        self.gone: asyncio.Future[None] = loop.create_future()
        self._held = b""
        self._left: int | None = None  # bytes of a refusal's body that are still to come, where it is known

    def data_received(self, data: bytes) -> None:
        if self.peer is not None:
            self._pass(self.peer, data)
            return
        self._held += data
        end = self._held.find(b"\r\n\r\n")
        if end >= 0 and not self.head.done():
            self.head.set_result(self._held[: end + 4])
            self._held = self._held[end + 4 :]
        elif end < 0 and len(self._held) > MOST_HEAD:
            self.transport.abort()

    def join(self, peer: _Side, most: int | None = None) -> None:
        """Pass everything on to ``peer`` from now on, what has come already first; end after ``most`` bytes."""
        self.peer, self._left = peer, most
        held, self._held = self._held, b""
        self._pass(peer, held)

    def _pass(self, peer: _Side, data: bytes) -> None:
        if self._left is not None:
            data = data[: self._left]
            self._left -= len(data)
        if data:
            peer.transport.write(data)
        if self._left == 0:
            self.transport.close()

    def eof_received(self) -> None:
        """The replica said its last: what the client still sends is not waited for."""
        if self.peer is not None:
            self.peer.end()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if not self.head.done():
            self.head.set_result(None)
        if not self.gone.done():
            self.gone.set_result(None)


class Tunnel(_Side):
    """The client's side, as uvicorn's WebSocket protocol class.

    Args:
        plane: finds the deployment.
        server_state: uvicorn's; it waits for the connections and tasks in it when it stops.
    """

    def __init__(self, plane: DataPlane, server_state: Any) -> None:
        super().__init__()
        self._plane = plane
        self._connections = server_state.connections
        self._tasks = server_state.tasks
        self._opening: asyncio.Task[None] | None = None
        self._early = b""
        self._status = CLIENT_LEFT
        self._over: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        if self._opening is not None:
            self._opening.cancel()
        if self._over is not None:
            self._over.cancel()
        super().connection_lost(exc)

    def end(self) -> None:
        """Send what there is, and close. At once, that would reset the connection of a client that still sends,
        and it might not see the last of it: why it was closed."""
        if self._over is None and not self.transport.is_closing():
            self._over = asyncio.get_running_loop().call_later(LINGER_S, self.transport.close)
            self.transport.write_eof()
            self.transport.resume_reading()

    def shutdown(self) -> None:
        """The server stops (uvicorn calls this)."""
        self.transport.close()

    def data_received(self, data: bytes) -> None:
        if self._opening is None:
            self._opening = asyncio.get_running_loop().create_task(self._open(_scope(data, self.transport)))
            self._tasks.add(self._opening)
            self._opening.add_done_callback(self._tasks.discard)
        elif self.peer is not None:
            if self._status == SWITCHED and self._over is None:
                self.peer.transport.write(data)
        elif self._over is None:
            self._early += data
            if len(self._early) > MOST_EARLY:
                self.transport.abort()

    async def _open(self, scope: dict[str, Any]) -> None:
        """Find a replica, shake hands, and join the two connections until one of them ends."""
        try:
            backend, head, target = self._plane.upgrade(scope)
            request = b"GET %b HTTP/1.1\r\n%b%b" % (target, b"".join(head.lines), UPGRADE)
            await self._counted(backend, request, head.request_id)
        except FngwError as error:
            own = (headers.REQUEST_ID, headers.request_id(scope["headers"]))
            self.transport.write(problems.problem_bytes(error, [own]))
            self.end()

    async def _counted(self, backend: Backend, request: bytes, request_id: bytes) -> None:
        backend.tally.under_way += 1
        try:
            await self._serve(backend, request, request_id)
        except FngwError as error:
            self._status = error.status
            raise
        finally:
            backend.tally.end_tunnel(self._status)

    async def _serve(self, backend: Backend, request: bytes, request_id: bytes) -> None:
        arrived = perf_counter()
        replica = backend.take() or await backend.wait(arrived)
        while True:
            upstream = await self._shake_hands(backend, replica, request, request_id)
            if upstream is not None:
                break
            replica = await backend.wait(arrived, again=True, avoid=replica.id)
        try:
            await upstream.gone
        finally:
            upstream.transport.abort()
            backend.release(replica)

    async def _shake_hands(
        self, backend: Backend, replica: Replica, request: bytes, request_id: bytes
    ) -> _Upstream | None:
        """Send the handshake and pass the answer on; None when the replica was full or not there."""
        try:
            upstream = await replica.pool.open(_Upstream)
        except OSError:
            backend.unreachable(replica)
            return None
        upstream.transport.write(request)
        try:
            async with asyncio.timeout(backend.request_timeout_s or HANDSHAKE_S):
                answer = await upstream.head
        except TimeoutError:
            self._drop(upstream, backend, replica)
            raise problems.timeout(backend.name, backend.request_timeout_s or HANDSHAKE_S) from None
        except asyncio.CancelledError:
            self._drop(upstream, backend, replica)
            raise
        if answer is None or not STATUS_LINE.match(answer):
            self._drop(upstream, backend, replica)
            raise problems.replica_lost(backend.name, replica.id, "no answer to a WebSocket handshake")
        if _is_at_capacity(answer):
            upstream.transport.abort()
            backend.refused(replica)
            return None
        self._join(upstream, answer, request_id)
        return upstream

    def _drop(self, upstream: _Upstream, backend: Backend, replica: Replica) -> None:
        upstream.transport.abort()
        backend.give_back(replica)

    def _join(self, upstream: _Upstream, answer: bytes, request_id: bytes) -> None:
        self._status, self.peer = int(answer[9:12]), upstream
        if self._status == SWITCHED:
            self.transport.write(_public(answer, request_id))
            upstream.join(self)
            if self._early:
                upstream.transport.write(self._early)
        else:
            self.transport.write(_public(answer, request_id, closes=True))
            upstream.join(self, _length(self._status, answer))
        self._early = b""


def _scope(head: bytes, transport: Any) -> dict[str, Any]:
    """Return what the request's head says in ASGI's terms, as far as forwarding needs it."""
    first, *lines = head.split(b"\r\n")
    method, url, _ = first.split(b" ", 2)
    path, _, query = url.partition(b"?")
    fields = [line.partition(b": ") for line in lines if line]
    peer, own = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
    return {
        "type": "websocket",
        "method": method.decode(),
        "scheme": "ws",
        "raw_path": path,
        "query_string": query,
        "headers": [(name.lower(), value) for name, _, value in fields],
        "client": tuple(peer[:2]) if isinstance(peer, tuple) else None,
        "server": tuple(own[:2]) if isinstance(own, tuple) else (own, None),
    }


def _fields(answer: bytes) -> list[tuple[bytes, bytes]]:
    lines = answer.split(b"\r\n")[1:]
    return [(n.lower(), v.strip()) for n, _, v in (line.partition(b":") for line in lines if line)]


def _is_at_capacity(answer: bytes) -> bool:
    status = answer[9:12]
    return status == b"503" and headers.is_at_capacity(503, _fields(answer))


def _length(status: int, answer: bytes) -> int | None:
    """Return how long a refusal's body is; None where only its end tells."""
    if status in (204, 304):
        return 0
    lengths = [value for name, value in _fields(answer) if name == b"content-length"]
    return int(lengths[0]) if len(lengths) == 1 and lengths[0].isdigit() else None


def _public(answer: bytes, request_id: bytes, *, closes: bool = False) -> bytes:
    """Return the head of an answer without what is private, with the request's id."""
    first, *lines = answer[:-4].split(b"\r\n")
    dropped: tuple[bytes, ...] = (headers.PRIVATE, headers.REQUEST_ID + b":")
    own = [headers.REQUEST_ID + b": " + request_id]
    if closes:
        dropped, own = (*dropped, b"connection:", b"keep-alive:"), [*own, b"connection: close"]
    kept = [line for line in lines if not line.lower().startswith(dropped)]
    return b"\r\n".join([first, *kept, *own]) + b"\r\n\r\n"
