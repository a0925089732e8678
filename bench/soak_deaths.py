"""What the soak does to the replicas of `frail`: kills, ends in mid-answer, freezes, replaces them."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import redirect_stderr, suppress
from io import StringIO
from typing import Any

import httpx
import soak_app
import soak_requests as requests
from soak_book import Book
from soak_link import Link

__all__ = ["Reaper"]

REPLICAS = 3
#: A replica that dies young is replaced later each time.
PATIENCE_S = 180.0


class Reaper:
    """Causes one thing after the other.

    Args:
        url: of the gateway.
        book: is told of every death beforehand.
        seed: of all that is random.
    """

    def __init__(self, url: str, book: Book, seed: int) -> None:
        self._url = url
        self._book = book
        self._rng = random.Random(f"{seed}/reaper")
        self._numbers = 0
        self.finished_first_round = False

    async def reap(self, every: int) -> None:
        """Go on until the book is closed, one after each ``every`` requests: first each kind once, then any."""
        for name, act in self._acts():
            due = self._book.done + every
            self._book.fault(name)
            await act()
            await self._all_ready()
            await self._book.reached(due)
            if self._book.closed:
                return

    def _acts(self) -> Iterator[tuple[str, Callable[[], Awaitable[None]]]]:
        acts = {
            "replica killed": self._kill,
            "replica ended in mid-answer": self._die_answering,
            "replica frozen for a while": self._freeze,
            "rolling redeploy": self._redeploy,
            "replica killed during a redeploy": self._kill_while_deploying,
        }
        yield from acts.items()
        self.finished_first_round = True
        while True:
            yield self._rng.choices(list(acts.items()), weights=(6, 2, 2, 1, 1))[0]

    # -- what it does -------------------------------------------------------------------------------------

    async def _kill(self) -> None:
        victims = await self._replicas()
        self._book.death()
        with suppress(ProcessLookupError):  # a redeploy was faster
            os.kill(self._rng.choice(victims), signal.SIGKILL)

    async def _die_answering(self) -> None:
        self._numbers += 1
        number, query = f"reaper-{self._numbers}", f"&die={self._rng.randint(1, 3)}"
        request = requests.stream(self._rng, "frail", number, query=query, outcome="cut")
        link, began = await Link.open(int(self._url.rpartition(":")[2])), time.perf_counter()
        future = link.expect()
        self._book.death()
        link.write(request.data)
        found = await link.wait(future)
        self._book.death()  # it was between then and now
        self._book.enter(request, found, began)

    async def _freeze(self) -> None:
        victim = self._rng.choice(await self._replicas())
        with suppress(ProcessLookupError):
            os.kill(victim, signal.SIGSTOP)
            await asyncio.sleep(self._rng.random())
            os.kill(victim, signal.SIGCONT)

    async def _redeploy(self) -> None:
        await asyncio.to_thread(deploy, soak_app.Frail)

    async def _kill_while_deploying(self) -> None:
        deploying = asyncio.create_task(self._redeploy())
        await asyncio.sleep(self._rng.random())
        await self._kill()
        await deploying

    # -- looking ------------------------------------------------------------------------------------------

    async def _replicas(self) -> list[int]:
        """Return the processes that serve."""
        found = await asyncio.to_thread(status, self._url, "frail")
        return [replica["pid"] for replica in found["replicas"] if replica["state"] == "READY"]

    async def _all_ready(self) -> None:
        """Wait until what died is replaced."""
        async with asyncio.timeout(PATIENCE_S):
            while len(await self._replicas()) < REPLICAS:  # noqa: ASYNC110  nobody tells of it unasked
                await asyncio.sleep(0.05)


def status(url: str, name: str) -> dict[str, Any]:
    """Return what fngw says of a deployment."""
    answer = httpx.get(f"{url}/-/api/v1/deployments/{name}", timeout=30)
    answer.raise_for_status()
    found: dict[str, Any] = answer.json()
    return found


def deploy(what: Any) -> None:
    """Deploy, without its story."""
    with redirect_stderr(StringIO()):
        what.deploy()
