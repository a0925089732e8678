"""Keeps the routing table current: reads it from Redis, swaps it in, and acknowledges it.

A nudge on the channel or two seconds, whichever comes first; then the key is read, which is the truth. With
Redis away the gateway goes on with the table that it has.

An older table than the one in use is never taken over, unless Redis was emptied or lost its last writes: it was
seen without a table, or its counter of generations is behind the table in use. Then numbering has begun anew,
and what Redis says is what the controller goes by. While Redis has no table the one in use is kept, but
acknowledged as generation 0, so that no deploy takes it for its own.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import socket
from collections.abc import Callable, Coroutine
from contextlib import aclosing, suppress
from typing import Any

from fngw_state import keys
from fngw_state.records import RoutedDeployment, RoutingTable
from fngw_state.store import LOST, Store
from fngw_state.watch import watch

__all__ = ["READ_EVERY_S", "Tables", "gateway_id"]

log = logging.getLogger(__name__)

#: How often the table is read without a nudge, and acknowledged: a third of the acknowledgement's life.
READ_EVERY_S = min(2.0, keys.GATEWAY_TTL_MS / 3000)
RETRY_S = 0.5


def gateway_id() -> str:
    """Return an id for this gateway process, new at each start."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"


class Reader:
    """Reads one routing table after the other. What has not changed since the last one is the same object again.

    Most of a table never changes: comparing it costs a tenth of making records of it.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[dict[str, Any], RoutedDeployment]] = {}

    def read(self, text: str) -> RoutingTable:
        """Return the table that ``text`` holds."""
        data = json.loads(text)
        known, self._known = self._known, {}
        for one in data["deployments"]:
            name = one["name"]
            before = known.get(name)
            same = before is not None and before[0] == one
            self._known[name] = before if before is not None and same else (one, RoutedDeployment.from_dict(one))
        return RoutingTable(data["generation"], tuple(record for _, record in self._known.values()))


class Tables:
    """The current routing table of one gateway process.

    Args:
        store: the shared state.
        gateway: this process' id.
        apply: takes a new table; called in the event loop.

    Example:
        >>> tables = Tables(store, gateway_id(), plane.apply)
        >>> await tables.start()
    """

    def __init__(self, store: Store, gateway: str, apply: Callable[[RoutingTable], None]) -> None:
        self._store = store
        self._gateway = gateway
        self._apply = apply
        self._reader = Reader()
        self._text: str | None = None  # of the table in use
        self._acknowledge = 0
        self._nudged = asyncio.Event()
        self._first = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.table: RoutingTable | None = None
        self.lost: str | None = "no table was read from Redis yet"

    async def start(self, wait_s: float = 5.0) -> None:
        """Begin to follow the table; return when the first one was read, or after ``wait_s`` without."""
        self._tasks = [
            asyncio.create_task(self._guarded(self._follow)),
            asyncio.create_task(self._guarded(self._listen)),
        ]
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._first.wait()

    async def stop(self) -> None:
        """Stop following, and tell that this gateway routes no more."""
        await _end(self._tasks)
        try:
            async with asyncio.timeout(2):
                await self._store.gateway_gone(self._gateway)
        except LOST as error:
            log.warning("redis: could not say goodbye (%s); it will notice", error)

    async def _guarded(self, task: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run a task for ever, whatever it meets."""
        while True:
            try:
                await task()
            except LOST as error:
                self._note_lost(error)
            except Exception:
                log.exception("following the routing table failed; trying again")
            await asyncio.sleep(RETRY_S)

    def _note_lost(self, error: BaseException) -> None:
        if self.lost is None:
            log.warning("redis: lost (%s); going on with the routing table in use", error)
        self.lost = f"Redis does not answer: {error}"

    async def _listen(self) -> None:
        async with aclosing(watch(self._store.redis, keys.ROUTES_CHANNEL)) as nudges:  # type: ignore[type-var]
            async for _ in nudges:
                self._nudged.set()

    async def _follow(self) -> None:
        while True:
            self._nudged.clear()
            await self.read()
            with suppress(TimeoutError):
                async with asyncio.timeout(READ_EVERY_S):
                    await self._nudged.wait()

    async def read(self) -> None:
        """Read the table, swap it in if it is newer, and acknowledge what is in use.

        Raises:
            one of ``LOST``: Redis is away.
        """
        text = await self._store.routes_text()
        if text is None:
            self._text, self._acknowledge = None, 0
            if self.table is None:
                self._adopt(RoutingTable(), None)
        elif text != self._text:
            await self._consider(text)
        elif self.table is not None:
            self._acknowledge = self.table.generation
        if self.lost is not None:
            log.info("routing by generation %s", self.table.generation if self.table else None)
            self.lost = None
        await self._store.applied(self._gateway, self._acknowledge)
        self._first.set()

    async def _consider(self, text: str) -> None:
        """Take a table over unless it is a stale one."""
        # In a thread: 10,000 deployments take 20 ms, in which requests go on.
        table = await asyncio.to_thread(self._reader.read, text)
        if self.table is not None and table.generation <= self.table.generation and self._text is not None:
            counter = await self._store.last_number()
            if counter > self.table.generation:
                log.warning("ignored routing table %s: %s is in use", table.generation, self.table.generation)
                return
            log.warning("redis counts anew: routing table %s replaces %s", table.generation, self.table.generation)
        self._adopt(table, text)

    def _adopt(self, table: RoutingTable, text: str | None) -> None:
        self._apply(table)
        self.table, self._text = table, text
        self._acknowledge = table.generation


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    """Cancel tasks until they end.

    Once is not enough: before Python 3.12 ``asyncio.wait_for``, which redis-py writes with, swallows a cancel that
    comes in the moment it is done (CPython issue 86296; one in six, measured).
    """
    while pending := [task for task in tasks if not task.done()]:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=0.05)
