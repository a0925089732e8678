"""A gateway's data plane on a real server and real sockets, in the test's own event loop."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn
import uvloop

from fngw_gateway.app import Gateway
from fngw_gateway.proxy import DataPlane
from fngw_state.records import RoutedDeployment, RoutedReplica, RoutingTable

from .wire import Client, Script, Upstream, echo


def pytest_asyncio_loop_factories(config: Any, item: Any) -> dict[str, Any]:
    """These tests run on the loop that the gateway runs on."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A directory for sockets: a path may have 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="gw-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@contextlib.asynccontextmanager
async def served(app: Any, *sockets: socket.socket, **more: Any) -> AsyncIterator[uvicorn.Server]:
    """Serve an ASGI application until the block ends."""
    config = uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        timeout_graceful_shutdown=1,
        **more,
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve(sockets=list(sockets)))
    while not server.started:
        assert not task.done(), "the server did not start"
        await asyncio.sleep(0.01)
    try:
        yield server
    finally:
        server.should_exit = True
        await task


@dataclass
class Site:
    """The gateway's front, and the replicas behind it."""

    plane: DataPlane
    directory: Path
    port: int
    unix: Path
    generation: int = 0
    upstreams: list[Upstream] = field(default_factory=list)
    clients: list[Client] = field(default_factory=list)

    async def upstream(self, script: Script = echo, name: str = "", *, tcp: bool = False) -> Upstream:
        """Start a replica."""
        upstream = Upstream(self.directory / f"{name or f'r{len(self.upstreams)}'}.sock", script, tcp)
        await upstream.start()
        self.upstreams.append(upstream)
        return upstream

    def route(self, *upstreams: Upstream | Path, prefix: str | None = "/f", name: str = "f", **more: Any) -> None:
        """Route ``prefix`` to these replicas, by a new table."""
        named = [(u.stem, str(u)) if isinstance(u, Path) else (u.path.stem, u.address) for u in upstreams]
        replicas = tuple(RoutedReplica(*pair) for pair in named)
        limits = {"max_concurrent_queries": 100, "max_queued_requests": 100, "request_timeout_s": None, **more}
        self.generation += 1
        deployment = RoutedDeployment(name=name, route_prefix=prefix, replicas=replicas, **limits)
        self.plane.apply(RoutingTable(self.generation, (deployment,)))

    async def one(self, script: Script, **more: Any) -> Upstream:
        """Start a replica and route to it."""
        upstream = await self.upstream(script)
        self.route(upstream, **more)
        return upstream

    async def client(self, *, unix: bool = False, limit: int = 2**16) -> Client:
        if unix:
            ends = await asyncio.open_unix_connection(self.unix, limit=limit)
        else:
            ends = await asyncio.open_connection("127.0.0.1", self.port, limit=limit)
        self.clients.append(Client(*ends))
        return self.clients[-1]

    async def ask(self, method: str, path: str, headers: str = "", body: bytes = b"") -> Any:
        """Send one request on a connection of its own."""
        client = await self.client()
        answer = await client.ask(method, path, headers, body)
        client.close()
        return answer


@contextlib.asynccontextmanager
async def site_of(directory: Path, **settings: Any) -> AsyncIterator[Site]:
    plane = DataPlane(**{"max_body": 2**33, "token": None, **settings})
    tables: Any = SimpleNamespace(table=RoutingTable(7), lost=None)
    store: Any = None
    gateway = Gateway(plane, tables, store, api)
    tcp = socket.create_server(("127.0.0.1", 0))
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(str(directory / "gateway.sock"))
    site = Site(plane, directory, tcp.getsockname()[1], directory / "gateway.sock")
    async with served(gateway, tcp, unix):
        try:
            yield site
        finally:
            for client in site.clients:
                client.abort()
            for upstream in site.upstreams:
                await upstream.stop()
            plane.close()


async def api(scope: Any, receive: Any, send: Any) -> None:
    """Stands in for the control API: tells what it was asked."""
    body = f"api {scope['path']} {scope['raw_path'].decode()}".encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
async def site(short_dir: Path) -> AsyncIterator[Site]:
    async with site_of(short_dir) as site:
        yield site
