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

from fngw_gateway.__main__ import KEEP_ALIVE_S
from fngw_gateway.app import Gateway
from fngw_gateway.front import Front
from fngw_gateway.metrics import Metrics
from fngw_gateway.proxy import DataPlane
from fngw_state.records import RoutedDeployment, RoutedReplica, RoutingTable
from fngw_state.store import LOST, Store, connect

from .clock import Clock
from .wire import Client, Script, Upstream, echo, eventually


def pytest_asyncio_loop_factories(config: Any, item: Any) -> dict[str, Any]:
    """These tests run on the loop that the gateway runs on."""
    return {"uvloop": uvloop.new_event_loop}


def pytest_collection_modifyitems(items: list[Any]) -> None:
    """uvloop swallows what pytest-timeout's signal handler raises: a hanging test would hang for ever."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.timeout(120, method="thread"))


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A directory for sockets: a path may have 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="gw-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@contextlib.asynccontextmanager
async def served(app: Any, *sockets: socket.socket, ws: Any = "none") -> AsyncIterator[uvicorn.Server]:
    """Serve an ASGI application until the block ends."""
    config = uvicorn.Config(
        app,
        http=Front,
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        timeout_graceful_shutdown=1,
        timeout_keep_alive=KEEP_ALIVE_S,
        ws=ws,
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
    store: Any = SimpleNamespace(all_status=no_status, redis=SimpleNamespace(get=nothing))
    gateway = Gateway(plane, tables, store, api, Metrics(directory / "metrics", plane))
    tcp = socket.create_server(("127.0.0.1", 0))
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(str(directory / "gateway.sock"))
    site = Site(plane, directory, tcp.getsockname()[1], directory / "gateway.sock")
    async with served(gateway, tcp, unix, ws=gateway.websocket_protocol):
        try:
            yield site
        finally:
            for client in site.clients:
                client.abort()
            for upstream in site.upstreams:
                await upstream.stop()
            plane.close()


async def no_status() -> dict[str, Any]:
    """Stands in for what the controller tells of replicas."""
    return {}


async def nothing(key: str) -> None:
    """Stands in for an empty Redis."""


async def api(scope: Any, receive: Any, send: Any) -> None:
    """Stands in for the control API: tells what it was asked."""
    body = f"api {scope['path']} {scope['raw_path'].decode()}".encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@dataclass
class RedisServer:
    """A Redis of the test's own, on a Unix socket, that can be killed and started again."""

    socket: Path
    append_only: bool
    process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    async def start(self) -> None:
        binary = shutil.which("redis-server")
        assert binary, "these tests need a redis-server"
        directory = self.socket.parent
        only = ["--appendonly", "yes", "--appendfsync", "always"] if self.append_only else []
        options = ["--port", "0", "--unixsocket", str(self.socket), "--save", "", "--dir", str(directory), *only]
        self.process = await asyncio.create_subprocess_exec(binary, *options, stdout=asyncio.subprocess.DEVNULL)
        store = Store(connect(self.url))

        async def answers() -> bool:
            with contextlib.suppress(*LOST):  # the socket's file is there a moment before anybody listens
                return bool(await store.redis.ping())
            return False

        try:
            await eventually(answers, 60)
        except BaseException:
            await self.kill()
            raise
        finally:
            await store.close()

    async def kill(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
        self.socket.unlink(missing_ok=True)


@pytest.fixture
async def redis(short_dir: Path, request: pytest.FixtureRequest) -> AsyncIterator[RedisServer]:
    """Keeps nothing when it is killed, unless parametrized with ``append_only``."""
    server = RedisServer(short_dir / "redis.sock", getattr(request, "param", "") == "append_only")
    await server.start()
    yield server
    await server.kill()


@pytest.fixture
async def store(redis: RedisServer) -> AsyncIterator[Store]:
    store = Store(connect(redis.url))
    yield store
    await store.close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """What the front measures time by; ask for it before ``site``, or at least before the first connection."""
    return Clock(monkeypatch)


@pytest.fixture
async def site(short_dir: Path) -> AsyncIterator[Site]:
    async with site_of(short_dir) as site:
        yield site
