"""The story of ``fngw up``: prepare, start, wait until healthy, and stop in order."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Coroutine, Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeVar

from fngw_supervisor import datadir, redis
from fngw_supervisor.crew import Crew
from fngw_supervisor.engine import Engine, ask_docker, choose_engine
from fngw_supervisor.lock import Lock, Running
from fngw_supervisor.parts import Part, Site, Stage, plan_parts
from fngw_supervisor.probe import is_healthy
from fngw_supervisor.say import say
from fngw_supervisor.settings import UpSettings
from fngw_supervisor.sockets import Listening, listening
from fngw_supervisor.takeover import take_lock

T = TypeVar("T")
Plan = Callable[[Site], Iterable[Part]]

#: When a start takes longer than this, a person is told where to look; it goes on trying.
SLOW_START_S = 60.0
_POLL_S = 0.05


def up(settings: UpSettings, ready: Callable[[], None] = lambda: None, plan: Plan = plan_parts) -> None:
    """Run fngw until a signal stops it.

    Args:
        settings: what to start, and where.
        ready: called once, when the gateway is healthy.
        plan: returns the parts besides Redis.

    Raises:
        FngwError: it cannot be started: what is in the way, and what to do about it.
    """
    layout = settings.layout
    datadir.prepare(layout)
    lock = take_lock(layout.data, say)
    try:
        say("data", str(layout.data))
        engine = choose_engine(settings.engine, ask_docker)
        for note in engine.notes:
            say("engine", note)
        with listening(settings.host, settings.port, layout.gateway_socket) as sockets:
            with datadir.explained(layout.data):
                lock.write(_running(sockets, engine))
            asyncio.run(_supervise(settings, engine, sockets, lock, ready, plan))
    finally:
        lock.release()


def _running(sockets: Listening, engine: Engine) -> Running:
    return Running(os.getpid(), sockets.url, time.time(), engine.name, fngw_version())


def fngw_version() -> str:
    """Return the installed version of fngw."""
    try:
        return version("fngw")
    except PackageNotFoundError:  # run from its sources
        return "0"


async def _supervise(
    settings: UpSettings,
    engine: Engine,
    sockets: Listening,
    lock: Lock,
    ready: Callable[[], None],
    plan: Plan,
) -> None:
    stops = Stops()
    crew = Crew((lock.fd,), say)
    try:
        redis_url = await stops.unless(_redis(settings, crew))
        for part in plan(_site(settings, engine, sockets, redis_url)):
            crew.start(part)
        await stops.unless(_healthy(settings, crew))
        _announce(settings, sockets)
        ready()
        await crew.until(stops.asked)
    except Stopped:
        pass  # asked to, by a signal, while it was still starting
    finally:
        await _stop(crew, sockets, stops)


async def _redis(settings: UpSettings, crew: Crew) -> str:
    if settings.external_redis:
        return await redis.use_external(settings.external_redis, say)
    return await redis.start_embedded(crew, settings.layout, say)


def _site(settings: UpSettings, engine: Engine, sockets: Listening, redis_url: str) -> Site:
    return Site(
        layout=settings.layout,
        redis_url=redis_url,
        engine=engine.name,
        host=sockets.host,
        port=sockets.port,
        tcp_fd=sockets.tcp.fileno(),
        unix_fd=sockets.unix.fileno(),
        workers=settings.workers,
        log_level=settings.log_level,
    )


async def _healthy(settings: UpSettings, crew: Crew) -> None:
    """Wait until a gateway is healthy, however long it takes; say so when that is long."""
    slow_at: float | None = time.monotonic() + SLOW_START_S
    while not await is_healthy(settings.layout.gateway_socket):
        if slow_at is not None and time.monotonic() > slow_at:
            slow_at = None
            say("gateway", f"not healthy after {SLOW_START_S:g} s; still waiting (logs: {settings.layout.logs})")
        for keeper in crew.keepers:
            if keeper.task.done():
                keeper.task.result()
        await asyncio.sleep(_POLL_S)


def _announce(settings: UpSettings, sockets: Listening) -> None:
    workers = "1 worker" if settings.workers == 1 else f"{settings.workers} workers"
    say("gateway", f"{sockets.url} ({workers})")
    if not settings.token and not sockets.is_local:
        say("warning", f"whoever reaches {sockets.host}:{sockets.port} can run code here: set FNGW_TOKEN")
    say("ready", "Ctrl-C stops")


async def _stop(crew: Crew, sockets: Listening, stops: Stops) -> None:
    """Stop all parts, in the order that ``Stage`` gives the reasons for."""
    serving = any(k.part.stage is Stage.CONTROLLER for k in crew.keepers)
    if serving:
        say("stopping", "draining replicas; again Ctrl-C to stop at once")
    await crew.stop(Stage.CONTROLLER, stops.hurried)
    sockets.close()  # from here on a new connection is refused, rather than left waiting for nobody
    for stage in (Stage.GATEWAY, Stage.BUILDER, Stage.REDIS):
        await crew.stop(stage, stops.hurried)
    if serving:
        say("stopped", "the deployments come back at the next fngw up")


class Stopped(Exception):
    """A signal asked for the end."""


class Stops:
    """What SIGINT, SIGTERM and SIGHUP ask for: the first one to stop, the second one to hurry."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.hurried = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._heard)

    def _heard(self) -> None:
        (self.hurried if self.asked.is_set() else self.asked).set()

    async def unless(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what ``work`` returns.

        Raises:
            Stopped: a signal came first; the work was cancelled.
        """
        doing, asked = asyncio.create_task(work), asyncio.create_task(self.asked.wait())
        try:
            await asyncio.wait({doing, asked}, return_when=asyncio.FIRST_COMPLETED)
            if doing.done():
                return doing.result()
            raise Stopped
        finally:
            asked.cancel()
            doing.cancel()
            await asyncio.gather(doing, asked, return_exceptions=True)
