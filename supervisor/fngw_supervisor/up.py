"""The story of ``fngw up``: prepare, start, wait until healthy, and stop in order."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, version

from fngw_supervisor import datadir, redis
from fngw_supervisor import say as saying
from fngw_supervisor.aside import aside
from fngw_supervisor.crew import Crew
from fngw_supervisor.engine import ask_docker, choose_engine
from fngw_supervisor.forks import Forks
from fngw_supervisor.lock import Lock, Running
from fngw_supervisor.parts import Part, Site, Stage, module_of, plan_parts
from fngw_supervisor.probe import is_healthy
from fngw_supervisor.say import Say
from fngw_supervisor.settings import Fsync, UpSettings
from fngw_supervisor.sockets import Listening, listening
from fngw_supervisor.space import Space
from fngw_supervisor.stops import Stopped, Stops
from fngw_supervisor.syncing import keep_synced
from fngw_supervisor.takeover import take_lock

Plan = Callable[[Site], Iterable[Part]]

#: When a start takes longer than this, a person is told where to look; it goes on trying.
SLOW_START_S = 60.0
_POLL_S = 0.05


def up(
    settings: UpSettings,
    ready: Callable[[], None] = lambda: None,
    plan: Plan = plan_parts,
    say: Say = saying.say,
) -> None:
    """Run fngw until a signal stops it.

    Args:
        settings: what to start, and where.
        ready: called once, when the gateway is healthy.
        plan: returns the parts besides Redis.
        say: told of every step.

    Raises:
        FngwError: it cannot be started: what is in the way, and what to do about it.
    """
    layout = settings.layout
    datadir.prepare(layout)
    lock = take_lock(layout.data, say)
    try:
        say("data", str(layout.data))
        engine = choose_engine(settings.engine, lambda: aside(ask_docker))
        for note in engine.notes:
            say("engine", note)
        with listening(settings.host, settings.port, layout.gateway_socket) as sockets:
            with datadir.explained(layout.data):
                lock.write(Running(os.getpid(), sockets.url, time.time(), engine.name, fngw_version()))
            house = House(settings, engine.name, sockets, lock, say)
            asyncio.run(house.run(plan, ready))
    finally:
        lock.release()


def fngw_version() -> str:
    """Return the installed version of fngw."""
    try:
        return version("fngw")
    except PackageNotFoundError:  # run from its sources
        return "0"


class House:
    """One running fngw.

    Args:
        settings: what was asked for.
        engine: the name of the engine that was chosen.
        sockets: what the gateways listen on.
        lock: the data directory's, which all parts inherit.
        say: told of every step.
    """

    def __init__(self, settings: UpSettings, engine: str, sockets: Listening, lock: Lock, say: Say) -> None:
        self._settings = settings
        self._engine = engine
        self._sockets = sockets
        self._forks = Forks((lock.fd,), settings.layout.logs / "nursery.log", say)
        self._crew = Crew((lock.fd,), say, self._forks.start)
        self._say = say
        self._space = Space(settings.layout.data, say)
        self._syncing: asyncio.Task[None] | None = None

    async def run(self, plan: Plan, ready: Callable[[], None]) -> None:
        """Start everything, keep it running until a signal, and stop it."""
        stops = Stops()
        try:
            redis_url = await stops.unless(self._redis())
            parts = tuple(plan(self._site(redis_url)))
            self._forks.modules = sorted({module for part in parts if (module := module_of(part.argv))})
            for part in parts:
                self._crew.start(part)
            await stops.unless(self._healthy())
            self._announce()
            ready()
            self._space.check()
            await self._crew.until(stops.asked, self._look)
        except Stopped:
            pass  # asked to, by a signal, while it was still starting
        finally:
            await self._stop(stops)

    def _look(self) -> None:
        self._space.check()
        self._forks.bury()

    async def _redis(self) -> str:
        if self._settings.external_redis:
            return await redis.use_external(self._settings.external_redis, self._say)
        layout, fsync = self._settings.layout, self._settings.fsync
        url = await redis.start_embedded(self._crew, layout, fsync, self._say)
        if fsync is Fsync.SECOND:
            self._syncing = asyncio.create_task(keep_synced(layout.redis, self._say))
        return url

    def _site(self, redis_url: str) -> Site:
        return Site(
            layout=self._settings.layout,
            redis_url=redis_url,
            engine=self._engine,
            host=self._sockets.host,
            port=self._sockets.port,
            tcp_fd=self._sockets.tcp.fileno(),
            unix_fd=self._sockets.unix.fileno(),
            workers=self._settings.workers,
            dispatchers=self._settings.dispatchers,
            log_level=self._settings.log_level,
        )

    async def _healthy(self) -> None:
        """Wait until a gateway is healthy, however long it takes; say so when that is long."""
        layout = self._settings.layout
        slow_at: float | None = time.monotonic() + SLOW_START_S
        while not await is_healthy(layout.gateway_socket):
            if slow_at is not None and time.monotonic() > slow_at:
                slow_at = None
                self._say("gateway", f"not healthy after {SLOW_START_S:g} s; still waiting (logs: {layout.logs})")
            self._crew.check()
            await asyncio.sleep(_POLL_S)

    def _announce(self) -> None:
        sockets, number = self._sockets, self._settings.workers
        self._say("gateway", f"{sockets.url} ({number} worker{'s' if number > 1 else ''})")
        if not self._settings.token and not sockets.is_local:
            where = f"{sockets.host}:{sockets.port}"
            self._say("warning", f"whoever reaches {where} can run code here: set FNGW_TOKEN")
        self._say("ready", "Ctrl-C stops")

    async def _stop(self, stops: Stops) -> None:
        """Stop all parts, in the order that ``Stage`` gives the reasons for."""
        serving = self._crew.has(Stage.CONTROLLER)
        if serving:
            self._say("stopping", "draining replicas; again Ctrl-C to stop at once")
        for stage in (Stage.DISPATCHER, Stage.CONTROLLER):
            await self._crew.stop(stage, stops.hurried)
        self._sockets.close()  # from here on a new connection is refused, rather than left waiting for nobody
        for stage in (Stage.GATEWAY, Stage.BUILDER, Stage.REDIS):
            await self._crew.stop(stage, stops.hurried)
        await self._forks.close()
        if self._syncing is not None:
            self._syncing.cancel()
        self._settings.layout.remove_run()
        if serving:
            self._say("stopped", "the deployments come back at the next fngw up")
