"""The outermost ASGI callable: what is the gateway's own goes to the control API, everything else to the proxy.

It wraps *outside* FastAPI, so that a request for a function passes no router and no middleware.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import AsyncExitStack, suppress
from typing import Any

from fngw_gateway import exposition
from fngw_gateway.calls.reception import Reception
from fngw_gateway.losses import Losses
from fngw_gateway.metrics import Metrics
from fngw_gateway.proxy import DataPlane, headers, problems, routing, steps
from fngw_gateway.proxy.plane import CALL_PREFIX
from fngw_gateway.proxy.tunnel import Tunnel
from fngw_gateway.settings import GatewaySettings
from fngw_gateway.tables import Tables, gateway_id
from fngw_state.call_counts import CallCounts
from fngw_state.calls import Calls
from fngw_state.payloads import Payloads
from fngw_state.store import LOST, Store, connect
from fngw_state.usage import Measured, Usage

__all__ = ["Gateway", "create_gateway"]

log = logging.getLogger(__name__)

PAGES = frozenset({b"/-/healthz", b"/-/routes", b"/-/metrics"})
#: How long a scrape waits for Redis to tell of the replicas.
STATUS_S = 2.0

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


def create_gateway(settings: GatewaySettings) -> Gateway:
    """Put one gateway process together.

    Args:
        settings: its ``FNGW_*`` variables.

    Example:
        >>> uvicorn.run(create_gateway(GatewaySettings()), interface="asgi3", lifespan="on")
    """
    from fngw_gateway.api import create_api

    store = Store(connect(settings.redis_url))
    calls = Calls(store, Payloads(settings.layout.payloads), settings.call_limits)
    reception = Reception(calls, settings.callback_networks)
    why_lost = Losses(store).why
    plane = DataPlane(max_body=settings.max_body, token=settings.token, defer=reception.take, why_lost=why_lost)
    tables = Tables(store, gateway_id(), plane.apply)
    metrics = Metrics(settings.layout.metrics, plane)
    return Gateway(plane, tables, store, create_api(store, settings, calls), metrics, calls)


class Gateway:
    """One gateway process as an ASGI application.

    Args:
        plane: forwards requests.
        tables: keeps its table current.
        store: closed at the end.
        api: answers under ``/-/`` (a FastAPI or Starlette application).
        metrics: of all gateway processes.
        calls: those that wait; closed at the end.
    """

    def __init__(
        self,
        plane: DataPlane,
        tables: Tables,
        store: Store,
        api: Any,
        metrics: Metrics,
        calls: Calls | None = None,
    ) -> None:
        self._calls = calls
        self._plane = plane
        self._tables = tables
        self._store = store
        self._api = api
        self._metrics = metrics

    def __call__(self, scope: Any, receive: Receive, send: Send) -> Awaitable[None]:
        kind = scope["type"]
        if kind == "http":
            if scope["http_version"] == "1.0":
                send = close_delimited(send)
            read = routing.read_path(scope["raw_path"])
            if read is not None and routing.is_own(read[1]):
                return self._own(scope, receive, send, *read)
            return self._plane.serve(scope, receive, send, read)
        return self._lifespan(receive, send)

    def websocket_protocol(self, config: Any, server_state: Any, app_state: Any) -> Tunnel:
        """Return what takes over a connection that asks for a WebSocket (uvicorn's ``ws``)."""
        return Tunnel(self._plane, server_state)

    # -- the gateway's own paths --------------------------------------------------------------------------

    def _own(self, scope: Any, receive: Receive, send: Send, path: bytes, key: bytes) -> Awaitable[None]:
        if key.startswith(CALL_PREFIX):
            return self._plane.call(scope, receive, send, key)
        if key in PAGES:
            return steps.tasked(self._page(scope, send, key))
        request_id = headers.request_id(scope["headers"])
        resolved = {**scope, "path": key.decode("utf-8", "replace"), "raw_path": path}
        resolved["headers"] = [h for h in scope["headers"] if h[0] != headers.REQUEST_ID]
        resolved["headers"].append((headers.REQUEST_ID, request_id))
        return steps.tasked(self._api(resolved, receive, _adding(send, request_id)))

    async def _page(self, scope: Any, send: Send, key: bytes) -> None:
        """Answer a page that needs no token, and works without Redis."""
        if scope["method"] not in ("GET", "HEAD"):
            error = problems.method_not_allowed(scope["method"], key, "GET")
            await self._plane.refuse(scope, send, error)
            return
        own = [(headers.REQUEST_ID, headers.request_id(scope["headers"])), (b"cache-control", b"no-store")]
        if key == b"/-/metrics":
            await problems.send_body(send, 200, (await self._exposition()).encode(), exposition.CONTENT_TYPE, own)
            return
        status, value = self._health() if key == b"/-/healthz" else (200, self._plane.listing)
        await problems.send_json(send, status, value, own)

    async def _exposition(self) -> str:
        statuses, usage, calls = None, Usage(), CallCounts()
        with suppress(*LOST):  # the counts are known without Redis
            async with asyncio.timeout(STATUS_S):
                statuses, usage = await asyncio.gather(self._store.all_status(), Measured(self._store).get())
                calls = await self._calls.count() if self._calls else calls
        rows = await self._metrics.total()
        return await asyncio.to_thread(exposition.render, rows, statuses, usage, calls)

    def _health(self) -> tuple[int, dict[str, Any]]:
        table, lost = self._tables.table, self._tables.lost
        if table is None:
            return 503, {"status": "starting", "why": lost}
        health: dict[str, Any] = {"status": "ok", "generation": table.generation}
        return 200, health if lost is None else {**health, "why": lost}

    # -- start and stop -----------------------------------------------------------------------------------

    def leave(self) -> None:
        """This process is about to stop: what is under way is finished; what could only wait is told so."""
        self._plane.leave()

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        async with AsyncExitStack() as stack:
            try:
                await self._start(stack)
            except Exception as error:
                log.exception("the gateway cannot start")
                await send({"type": "lifespan.startup.failed", "message": str(error)})
                return
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def _start(self, stack: AsyncExitStack) -> None:
        stack.push_async_callback(self._store.close)
        if self._calls is not None:
            stack.push_async_callback(self._calls.close)
        stack.callback(self._plane.close)
        router = getattr(self._api, "router", None)
        if router is not None:
            await stack.enter_async_context(router.lifespan_context(self._api))
        stack.push_async_callback(self._metrics.stop)
        self._metrics.start()
        stack.push_async_callback(self._tables.stop)
        await self._tables.start()
        if self._tables.lost is not None:
            self._plane.not_ready(self._tables.lost)


def close_delimited(send: Send) -> Send:
    """Return a ``send`` for a client of HTTP/1.0, which does not know chunks: the answer ends with the connection.

    uvicorn has no way to ask for that, and would send chunks. So its cycle is told that the framing is settled,
    and before each part, that this part is what it expects.
    """
    cycle: Any = getattr(send, "__self__", None)
    if not hasattr(cycle, "chunked_encoding") or not hasattr(cycle, "expected_content_length"):
        return send
    unframed = False

    async def framed_by_close(message: Message) -> None:
        nonlocal unframed
        if message["type"] == "http.response.start":
            unframed = not any(name.lower() == b"content-length" for name, _ in message.get("headers", ()))
            if unframed:
                cycle.chunked_encoding = False
        elif unframed:
            cycle.expected_content_length = len(message.get("body", b""))
        await send(message)

    return framed_by_close


def _adding(send: Send, request_id: bytes) -> Send:
    """Return a ``send`` that puts the request's id on the answer."""

    async def with_id(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = (headers.REQUEST_ID, request_id)
            message["headers"] = [*(h for h in message.get("headers", ()) if h[0].lower() != own[0]), own]
        await send(message)

    return with_id
