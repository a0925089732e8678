"""A gateway and an event loop that many cases share: to start one takes longer than most cases do."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import uvloop

from .conftest import Site, site_of
from .h11_ends import Caller, Replica
from .wire import Upstream, eventually

T = TypeVar("T")


class Ground:
    """Runs coroutines beside a site that stays up between them."""

    def __init__(self, runner: asyncio.Runner, site: Site) -> None:
        self._runner = runner
        self.site = site

    def run(self, work: Callable[[Site], Awaitable[T]]) -> T:
        """Run one case; whatever it left is cleared away after it."""

        async def case() -> T:
            try:
                return await work(self.site)
            finally:
                await clear(self.site)

        return self._runner.run(case())


async def clear(site: Site) -> None:
    for upstream in site.upstreams:
        await upstream.stop()
    site.upstreams.clear()
    site.route()
    site.generation += 1


@contextlib.contextmanager
def shared_site(**settings: Any) -> Iterator[Ground]:
    """A site on a loop of its own, for the tests of one module."""
    directory = Path(tempfile.mkdtemp(prefix="gw-"))
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            stack = contextlib.AsyncExitStack()
            site = runner.run(stack.enter_async_context(site_of(directory, **settings)))
            try:
                yield Ground(runner, site)
            finally:
                runner.run(stack.aclose())
    finally:
        shutil.rmtree(directory, ignore_errors=True)


async def behind(site: Site, replica: Replica, **limits: Any) -> Upstream:
    """Start ``replica`` and route ``/f`` to it."""
    return await site.one(replica.script, **limits)


async def call(site: Site) -> Caller:
    """Return a new connection to the gateway."""
    return Caller(*await asyncio.open_connection("127.0.0.1", site.port, limit=2**20))


async def works(caller: Caller) -> None:
    """The next request on this connection gets its own answer."""
    await caller.send(b"GET /f/next HTTP/1.1\r\nHost: t\r\n\r\n")
    answer = await caller.answer()
    assert answer is not None, "the connection ended"
    assert (answer.status, answer.body) == (200, b"GET /f/next "), answer


async def all_quiet(site: Site) -> None:
    """Nothing is in flight, and no request holds a connection."""
    backend = site.plane.backends["f"]
    await eventually(lambda: not any(backend.in_flight.values()) and backend.tally.under_way == 0)
