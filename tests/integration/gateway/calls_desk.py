"""A gateway that takes calls in, on real sockets, with a real Redis; with a dispatcher, where a test wants one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from fngw_dispatcher.dispatcher import Dispatcher
from fngw_dispatcher.settings import DispatcherSettings
from fngw_gateway.api import create_api
from fngw_gateway.app import Gateway
from fngw_gateway.calls.reception import Reception
from fngw_gateway.metrics import Metrics
from fngw_gateway.proxy import DataPlane
from fngw_gateway.settings import GatewaySettings
from fngw_state.calls import Calls
from fngw_state.payloads import Payloads
from fngw_state.records import RoutingTable
from fngw_state.store import Store, connect

from .conftest import RedisServer, Site, served
from .wire import Message

LATER = "Prefer: respond-async\r\n"


@dataclass
class Desk(Site):
    """A gateway that takes calls in."""

    calls: Any = None
    store: Any = None

    async def later(self, method: str, path: str, headers: str = "", body: bytes = b"") -> Message:
        """Ask for an answer later."""
        answer: Message = await self.ask(method, path, LATER + headers, body)
        return answer

    async def stored(self, call_id: str) -> dict[str, Any]:
        """The record of a call, its headers read."""
        record = await self.store.redis.hgetall(f"{{fngw}}:call:{call_id}")
        return {**record, "headers": json.loads(record["headers"])}

    async def open(self) -> int:
        """How many calls have not ended."""
        return sum(map(int, (await self.store.redis.hgetall("{fngw}:calls-open")).values()))


@contextlib.asynccontextmanager
async def desk_of(directory: Path, redis: RedisServer, **given: Any) -> AsyncIterator[Desk]:
    settings = GatewaySettings(data_dir=directory, run_dir=directory / "run", redis_url=redis.url, **given)
    store = Store(connect(redis.url))
    calls = Calls(store, Payloads(settings.layout.payloads), settings.call_limits)
    reception = Reception(calls, settings.callback_networks)
    plane = DataPlane(max_body=2**33, token=settings.token, defer=reception.take)
    tables: Any = SimpleNamespace(table=RoutingTable(7), lost=None)
    api = create_api(store, settings, calls)
    gateway = Gateway(plane, tables, store, api, Metrics(directory / "metrics", plane), calls)
    tcp, unix = socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_UNIX)
    settings.layout.create()
    unix.bind(str(settings.layout.gateway_socket))
    desk = Desk(plane, directory, tcp.getsockname()[1], settings.layout.gateway_socket, calls=calls, store=store)
    async with served(gateway, tcp, unix, ws=gateway.websocket_protocol):
        try:
            desk.route(*[await desk.upstream()])
            yield desk
        finally:
            for client in desk.clients:
                client.abort()
            for upstream in desk.upstreams:
                await upstream.stop()
            plane.close()
            await calls.close()
            await store.close()


@contextlib.asynccontextmanager
async def dispatching(desk: Desk, redis: RedisServer, **given: Any) -> AsyncIterator[None]:
    """Have a dispatcher at work until the block ends."""
    directory = desk.directory
    settings = DispatcherSettings(data_dir=directory, run_dir=directory / "run", redis_url=redis.url, **given)
    store = Store(connect(redis.url))
    dispatcher = Dispatcher(settings, store)
    work = asyncio.create_task(dispatcher.run())
    try:
        yield
    finally:
        dispatcher.stop()
        await work
        await store.close()
