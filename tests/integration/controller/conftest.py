"""Controllers on a real Redis and an engine in memory, whose replicas answer probes on real sockets."""

from __future__ import annotations

import asyncio
import io
import itertools
import secrets
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from redis import Redis
from redis.exceptions import RedisError

from fngw import protocol
from fngw.errors import DeploymentFailed, to_problem
from fngw.spec import CodeRef, DeploymentSpec
from fngw_controller.controller import Controller
from fngw_controller.engines.fake import FakeEngine, FakeWorld
from fngw_controller.garbage import Collector
from fngw_controller.inventory.base import Inventory
from fngw_controller.leader import Leader
from fngw_controller.lifecycle import Lifecycle
from fngw_controller.machine import Machine
from fngw_controller.reconciler import Rooms
from fngw_controller.routes import Routes
from fngw_controller.snapshots import Snapshots
from fngw_state import deploys, keys
from fngw_state.configs import Configs
from fngw_state.history import History
from fngw_state.layout import Layout
from fngw_state.leases import Leases
from fngw_state.records import Artifact, Desired, ReplicaState
from fngw_state.store import Store, connect
from fngw_state.usage import Measured

DEADLINE_S = 60.0


def stuck() -> str:
    """Where the tasks of this loop hang."""
    text = io.StringIO()
    for task in asyncio.all_tasks():
        awaited: Any = task.get_coro()
        while awaited is not None:
            frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "ag_frame", None)
            text.write(f"{awaited!r} {frame and frame.f_lineno}\n")
            awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "ag_await", None)
        text.write("--\n")
    return text.getvalue()


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A Redis on a Unix socket."""
    folder = Path(tempfile.mkdtemp(prefix="fngw-redis-"))
    socket = folder / "redis.sock"
    command = ["redis-server", "--port", "0", "--unixsocket", str(socket), "--dir", str(folder), "--save", ""]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    until = time.monotonic() + DEADLINE_S
    with Redis(unix_socket_path=str(socket)) as client:
        while not _answers(client):
            assert time.monotonic() < until and process.poll() is None, "redis-server did not start"
            time.sleep(0.01)
    yield f"unix://{socket}"
    process.kill()
    process.wait()
    shutil.rmtree(folder)


def _answers(client: Redis) -> bool:
    try:
        return bool(client.ping())
    except RedisError:  # the socket's file is there a moment before anybody listens
        return False


class ServingEngine(FakeEngine):
    """The engine in memory; each of its replicas answers probes on its socket.

    ``broken`` names deployments whose constructors fail, ``sick`` replicas that fail their health checks. ``gates``
    hold up the readiness of a deployment's replicas until set.
    """

    def __init__(self, world: FakeWorld) -> None:
        super().__init__(world=world)
        self.broken: set[str] = set()
        self.sick: set[str] = set()
        self.gates: dict[str, asyncio.Event] = {}
        self._servers: dict[str, web.AppRunner] = {}
        self._beginning: set[asyncio.Task[None]] = set()

    async def start(self, spec: Any) -> Any:
        instance = await super().start(spec)
        if spec.id not in self._servers:
            serving = asyncio.create_task(self._serve(spec))
            self._beginning.add(serving)  # whoever cancels the start does not leave half a server
            await asyncio.shield(serving)
        return instance

    async def _serve(self, spec: Any) -> None:
        app = web.Application()

        async def ready(request: web.Request) -> web.Response:
            return await self._ready(spec.deployment)

        async def healthy(request: web.Request) -> web.Response:
            return web.json_response({}, status=503 if spec.id in self.sick else 200)

        app.router.add_get(protocol.READY_PATH, ready)
        app.router.add_get(protocol.HEALTH_PATH, healthy)
        runner = self._servers[spec.id] = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.UnixSite(runner, str(spec.directory / protocol.SOCKET_FILE)).start()

    async def _ready(self, deployment: str) -> web.Response:
        if deployment in self.gates:
            await self.gates[deployment].wait()
        if deployment in self.broken:
            problem = to_problem(DeploymentFailed("ValueError: no", code="constructor_failed"))
            return web.json_response(problem, status=503)
        return web.json_response({"pid": 1})

    async def stop(self, id: str, timeout_s: float) -> None:
        await super().stop(id, timeout_s)
        await self._silence(id)

    async def _silence(self, id: str) -> None:
        runner = self._servers.pop(id, None)
        if runner:
            await runner.cleanup()

    async def end(self) -> None:
        await asyncio.gather(*self._beginning, return_exceptions=True)
        for id in list(self._servers):
            await self._silence(id)


class InstantImages:
    """Every image is there at once; counts how often each version's was asked for."""

    def __init__(self) -> None:
        self.asked: Counter[str | None] = Counter()

    async def ensure(self, spec: DeploymentSpec, report: Any) -> tuple[Artifact, bool]:
        self.asked[spec.version] += 1
        return Artifact(f"sha256:{spec.version}"), True

    async def cancel(self, spec: DeploymentSpec) -> None:
        """There is never one under way."""


class Site:
    """One installation: its Redis, its engine, and the controllers that a test runs on it."""

    def __init__(self, store: Store, layout: Layout) -> None:
        self.store = store
        self.layout = layout
        self.world = FakeWorld()
        self.engine = ServingEngine(self.world)
        self.images = InstantImages()
        self.inventory = Inventory(memory_mib=4096)
        self.leases = Leases(store)
        self.leader: Leader | None = None  # the last controller's
        self._controllers = itertools.count(1)
        self._running: list[asyncio.Task[None]] = []

    def rooms(self, leader: Leader) -> Rooms:
        return Rooms(
            store=self.store,
            engine=self.engine,
            lifecycle=Lifecycle(self.engine, self.layout, "redis://127.0.0.1:1/0"),
            images=self.images,  # type: ignore[arg-type]
            routes=Routes(self.store, lambda: leader.token),
            snapshots=Snapshots(self.layout.data / "desired"),
            configs=Configs(self.store),
            history=History(self.store),
            machine=Machine(self.leases, Measured(self.store), self.inventory, lambda: leader.token),
            token=lambda: leader.token,
            confirm=leader.confirm,
            new_id=lambda: secrets.token_hex(4),
        )

    async def control(self) -> asyncio.Task[None]:
        """Run a controller; its task is there once it leads."""
        self.leader = leader = Leader(self.store, f"controller-{next(self._controllers)}")
        await leader.acquire()
        rooms = self.rooms(leader)
        task = asyncio.create_task(Controller(rooms, leader, Collector(rooms, keep=10)).run())
        self._running.append(task)
        return task

    async def kill(self, controller: asyncio.Task[None]) -> None:
        """End a controller as kill -9 does: it says goodbye to nobody. Its lease ends, too."""
        controller.cancel()
        _, left = await asyncio.wait([controller], timeout=DEADLINE_S)
        assert not left, stuck()
        await self.store.redis.delete(keys.LEADER)

    async def deploy(self, name: str, version: str = "1", **options: Any) -> Desired:
        """Store what a gateway stores at a deploy."""
        code = CodeRef("sha256:0", target="app:f")
        options = {"route_prefix": f"/{name}", **options}
        spec = DeploymentSpec(name=name, code=code, python="3.11", version=version, **options)
        while True:
            before = await self.store.desired(name)
            after, _ = deploys.resolve(before, spec, await self.store.next_number(), time.time())
            if after is before or (after := await self.store.put_desired(before, after)):
                return after

    async def until(self, condition: Callable[[], Awaitable[Any]], what: str) -> Any:
        """Return the first true value of ``condition``."""
        deadline = time.monotonic() + DEADLINE_S
        while not (value := await condition()):
            assert time.monotonic() < deadline, f"waited {DEADLINE_S:g} s for {what}"
            await asyncio.sleep(0.01)
        return value

    async def settled(self, name: str) -> list[str]:
        """Wait until the last deploy is rolled out and nothing else is left; return the replicas' ids."""

        async def ready() -> list[str]:
            desired, status = await self.store.desired(name), await self.store.status(name)
            if not (desired and desired.settled and status and status.status == "HEALTHY"):
                return []
            wanted = desired.target.spec.num_replicas
            ids = [r.id for r in status.replicas if r.state == ReplicaState.READY]
            return ids if len(status.replicas) == len(ids) == wanted else []

        return sorted(await self.until(ready, f"{name} to be settled"))

    @property
    def running(self) -> list[str]:
        """What the engine runs, whoever knows of it."""
        return sorted(r.spec.id for r in self.world.replicas.values() if r.instance.running)

    @property
    def stopped(self) -> list[str]:
        """What the engine was asked to stop."""
        return [id for method, id in self.engine.calls if method == "stop"]

    async def end(self) -> None:
        for task in self._running:
            task.cancel()
        if self._running:
            _, left = await asyncio.wait(self._running, timeout=DEADLINE_S)
            assert not left, stuck()
        await self.engine.end()


@pytest.fixture
async def site(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    """An empty installation. Leases of the lead outlive any pause of this process; tests end them by hand."""
    monkeypatch.setattr(keys, "LEADER_TTL_MS", 600_000)
    monkeypatch.setattr(keys, "GATEWAY_TTL_MS", 600_000)
    folder = Path(tempfile.mkdtemp(prefix="fngw-c-"))  # short: sockets lie in it
    layout = Layout(data=folder / "data", run=folder / "run")
    layout.create()
    store = Store(connect(redis_url))
    await store.redis.flushall()
    found = Site(store, layout)
    yield found
    await found.end()
    await store.close()
    shutil.rmtree(folder)
