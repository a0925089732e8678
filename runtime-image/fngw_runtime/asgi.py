"""The replica's one ASGI app: its own pages under ``/-/``, and the user's function for all else."""

from __future__ import annotations

from typing import Any, Awaitable, Callable

from fngw import protocol
from fngw.errors import FngwError
from fngw_runtime import root_path
from fngw_runtime.lifecycle import Replica
from fngw_runtime.replies import Outbox, Receive, Scope, Send, send_body, send_json, send_problem

__all__ = ["App"]

PRIVATE = "/-/"
_AT_CAPACITY = [(protocol.AT_CAPACITY_HEADER.encode(), b"1")]


class App:
    """Routes what arrives on the replica's socket, and counts it against ``max_concurrent_queries``."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one HTTP request or WebSocket."""
        if scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        elif scope["path"].startswith(PRIVATE) and not root_path.has_prefix(scope):
            await self._private(scope["path"], scope, receive, Outbox(send))
        else:
            await self._http(scope, receive, Outbox(send))

    async def _http(self, scope: Scope, receive: Receive, outbox: Outbox) -> None:
        handler = self._replica.ingress or self._replica.functions
        if handler is None or not self._replica.serving:
            await send_problem(outbox, self._replica.refusal())
            return
        root_path.take(scope)
        await self._counted(outbox, handler, scope, receive, outbox)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        outbox = Outbox(send, "websocket.")
        handler = self._replica.ingress
        if handler is None or not self._replica.serving:
            await send_problem(outbox, self._replica.refusal())
            return
        root_path.take(scope)
        await self._counted(outbox, handler.websocket, scope, receive, send)

    async def _private(self, path: str, scope: Scope, receive: Receive, outbox: Outbox) -> None:
        if path.startswith(protocol.REPLICA_CALL_PREFIX):
            await self._call(path[len(protocol.REPLICA_CALL_PREFIX) :], scope, receive, outbox)
        elif path == protocol.READY_PATH:
            await _tell(self._replica.settled, outbox)
        elif path == protocol.HEALTH_PATH:
            await _tell(self._replica.healthy, outbox)
        else:
            await send_problem(outbox, FngwError(f"a replica has no page {path}", code="not_found", status=404))

    async def _call(self, name: str, scope: Scope, receive: Receive, outbox: Outbox) -> None:
        handler = self._replica.calls
        if handler is None or not self._replica.serving:
            await send_problem(outbox, self._replica.refusal())
            return
        await self._counted(outbox, handler, name, scope, receive, outbox)

    async def _counted(self, outbox: Outbox, handler: Callable[..., Awaitable[None]], *args: Any) -> None:
        """Run ``handler(*args)`` as one of the queries in flight, or answer that there are too many."""
        admission = self._replica.admission
        if not admission.admit():
            await send_body(outbox, 503, [], headers=_AT_CAPACITY)
            return
        begun = False
        try:
            await admission.begin()
            begun = True
            await handler(*args)
        finally:
            admission.end(begun)


async def _tell(question: Callable[[], Awaitable[Any]], outbox: Outbox) -> None:
    try:
        answer = await question()
    except FngwError as error:
        await send_problem(outbox, error)
    else:
        await send_json(outbox, 200, answer)
