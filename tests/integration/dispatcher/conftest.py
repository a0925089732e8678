"""A Redis of a test's own, a stand-in for the gateway on a real Unix socket, and real dispatcher processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httptools
import pytest
import redis

from fngw_state import keys
from fngw_state.call_records import CallLimits, rank_of
from fngw_state.calls import Calls
from fngw_state.layout import Layout
from fngw_state.payloads import Payloads
from fngw_state.store import Store, connect

DEADLINE_S = 80.0  # a dispatcher's start alone takes 20 s and more on a machine that has a lot else to do


async def eventually(condition: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
    """Return the first true value of ``condition``, which may be a coroutine function."""
    async with asyncio.timeout(deadline_s) as deadline:
        while True:
            value = condition()
            if isinstance(value, Awaitable):
                value = await value
            if value:
                return value
            if deadline.expired():
                pytest.fail(f"waited {deadline_s:g} s for {what}")
            await asyncio.sleep(0.01)


Answer = tuple[int, dict[str, str], bytes]


class Gateway:
    """Stands in for the gateway: answers each request by ``behave``, and remembers all that it saw.

    ``behave(request)`` returns status, headers and body, or None to close the connection without an answer.
    """

    def __init__(self) -> None:
        self.seen: list[Request] = []
        self.behave: Callable[[Request], Awaitable[Answer | None]] = self.ok
        self.under_way = 0
        self.most = 0

    async def ok(self, request: Request) -> Answer:
        return 200, {"content-type": "text/plain"}, b"ok"

    @property
    def attempts(self) -> Counter[str]:
        """How often each call was seen."""
        return Counter(r.headers["fngw-call-id"] for r in self.seen)

    async def start(self, path: Path) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(lambda: _Inbound(self), str(path), backlog=2000)

    async def stop(self) -> None:
        self._server.close()
        for request in self.seen:
            request.task.cancel()
        await asyncio.gather(*(r.task for r in self.seen), return_exceptions=True)


class Request:
    """One request that came."""

    def __init__(self, method: str, url: str, headers: dict[str, str]) -> None:
        self.method, self.url, self.headers = method, url, headers
        self.body = b""
        self.task: asyncio.Task[None]
        self.gone = asyncio.Event()  # the client closed the connection before the answer


class _Inbound(asyncio.Protocol):
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._request: Request | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._parser = httptools.HttpRequestParser(self)
        self.on_message_begin()

    def connection_lost(self, error: Exception | None) -> None:
        if self._request is not None:
            self._request.gone.set()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._url, self._headers, self._body = b"", {}, b""

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode().lower()] = value.decode()

    def on_body(self, data: bytes) -> None:
        self._body += data

    def on_message_complete(self) -> None:
        request = Request(self._parser.get_method().decode(), self._url.decode(), self._headers)
        request.body = self._body
        self._request = request
        self._gateway.seen.append(request)
        request.task = asyncio.get_running_loop().create_task(self._answer(request))

    async def _answer(self, request: Request) -> None:
        gateway = self._gateway
        gateway.under_way += 1
        gateway.most = max(gateway.most, gateway.under_way)
        try:
            answer = await gateway.behave(request)
        finally:
            gateway.under_way -= 1
            self._request = None
        if answer is None:
            self._transport.abort()
            return
        status, headers, body = answer
        lines = [f"HTTP/1.1 {status} -", f"content-length: {len(body)}", *(f"{n}: {v}" for n, v in headers.items())]
        self._transport.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)


class Site:
    """One test's installation."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.layout = Layout(folder / "data", folder / "run")
        self.layout.create()
        self.url = f"unix://{folder}/redis.sock"
        self.gateway = Gateway()
        self.limits = CallLimits()
        self._processes: list[subprocess.Popen[bytes]] = []
        self.lease_s = 9.0

    # -- Redis --------------------------------------------------------------------------------------------

    async def start_redis(self) -> None:
        command = ["redis-server", "--port", "0", "--unixsocket", f"{self.folder}/redis.sock", "--save", ""]
        command += ["--dir", str(self.folder), "--appendonly", "yes"]
        self.redis = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: ASYNC220
        self._processes.append(self.redis)
        await eventually(self._answers, "redis")

    def _answers(self) -> bool:
        try:
            return bool(self.sync.ping())
        except redis.RedisError:
            return False

    @property
    def sync(self) -> redis.Redis:
        """A client as RQ wants it."""
        return redis.Redis.from_url(self.url)

    async def restart_redis(self) -> None:
        self.redis.kill()
        self.redis.wait()
        await self.start_redis()

    # -- the state ----------------------------------------------------------------------------------------

    def open(self) -> None:
        self.store = Store(connect(self.url))
        self.payloads = Payloads(self.layout.payloads)
        self.calls = Calls(self.store, self.payloads, self.limits)

    async def close(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()
        await self.gateway.stop()
        await self.calls.close()
        await self.store.close()

    async def route(self, **capacity: int) -> None:
        """Publish a routing table: deployments, each with one replica that takes so many requests."""
        deployments = [
            {
                "name": name,
                "route_prefix": f"/{name}",
                "replicas": [{"id": f"{name}-1", "address": "x", "generation": 1}],
                "max_concurrent_queries": most,
                "max_queued_requests": 1000,
                "request_timeout_s": None,
            }
            for name, most in capacity.items()
        ]
        text = json.dumps({"generation": 1, "deployments": deployments})
        await self.store.redis.set(keys.ROUTES, text)
        await self.store.redis.publish(keys.ROUTES_CHANNEL, "1")

    # -- dispatchers --------------------------------------------------------------------------------------

    async def dispatcher(self, **settings: object) -> subprocess.Popen[bytes]:
        """Start a dispatcher; return once RQ knows it."""
        given = {
            "FNGW_REDIS_URL": self.url,
            "FNGW_DATA_DIR": str(self.layout.data),
            "FNGW_RUN_DIR": str(self.layout.run),
            "FNGW_CALL_LEASE_S": str(self.lease_s),
            **{f"FNGW_{name.upper()}": str(value) for name, value in settings.items()},
        }
        before = self.sync.scard("rq:workers")
        command = [sys.executable, "-m", "fngw_dispatcher"]
        with (self.folder / "dispatcher.log").open("ab") as log:
            environ = {**os.environ, **given}
            process = subprocess.Popen(command, env=environ, stdout=log, stderr=log)  # noqa: ASYNC220
        self._processes.append(process)
        await eventually(lambda: self.sync.scard("rq:workers") > before, "a dispatcher")
        return process

    @property
    def log(self) -> str:
        return (self.folder / "dispatcher.log").read_text()


async def indexes_agree(site: Site) -> None:
    """Check that the indexes have each call where its record says that it is."""
    redis = site.store.redis
    records = {key.removeprefix(keys.CALL): await redis.hgetall(key) for key in await redis.keys(f"{keys.CALL}*")}
    calls = {call_id: r for call_id, r in records.items() if r["kind"] == "call"}
    expected = {call_id: float(rank_of(r["status"], r["priority"])) for call_id, r in calls.items()}
    assert dict(await redis.zrange(keys.CALLS, 0, -1, withscores=True)) == expected
    for name in {r["deployment"] for r in calls.values()}:
        own = {call_id: expected[call_id] for call_id, r in calls.items() if r["deployment"] == name}
        assert dict(await redis.zrange(keys.CALLS_OF + name, 0, -1, withscores=True)) == own


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    """A Redis, the stand-in gateway, and deployments ``G`` (capacity 100) and ``H`` (2)."""
    with TemporaryDirectory(prefix="fngw-") as folder:  # short, for the sockets
        site = Site(Path(folder))
        site.open()
        try:
            await site.start_redis()
            await site.gateway.start(site.layout.gateway_socket)
            await site.route(G=100, H=2)
            yield site
        finally:
            await site.close()
