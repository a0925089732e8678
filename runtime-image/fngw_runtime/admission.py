"""How many requests are in flight, and whether new ones may begin.

Two counts: ``admitted`` is held against ``max_concurrent_queries``; ``running`` are those of them that have
begun. They differ only while a reconfiguration holds new requests back.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import AsyncIterator

__all__ = ["Admission", "Count"]


class Count:
    """A number and the means to wait until it is zero."""

    def __init__(self) -> None:
        self.value = 0
        self._zero = asyncio.Event()
        self._zero.set()

    def up(self) -> None:
        self.value += 1
        if self.value == 1:
            self._zero.clear()

    def down(self) -> None:
        self.value -= 1
        if self.value == 0:
            self._zero.set()

    async def zero(self) -> None:
        """Wait until nothing is counted."""
        await self._zero.wait()

    async def wait(self, seconds: float) -> None:
        """Wait until nothing is counted, or for so long."""
        zero = asyncio.ensure_future(self._zero.wait())
        try:  # not wait_for: before Python 3.12 it loses a cancellation that comes with the end (bpo-37658)
            await asyncio.wait({zero}, timeout=seconds)
        finally:
            zero.cancel()


class Admission:
    """The gate in front of user code: ``admit``, then ``begin``, then ``end``.

    Args:
        limit: the most requests admitted at a time.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.admitted = Count()
        self.running = Count()
        self._open = asyncio.Event()
        self._open.set()

    def admit(self) -> bool:
        """Take a place, to be given back by ``end``; False when all are taken."""
        if self.admitted.value >= self.limit:
            return False
        self.admitted.up()
        return True

    async def begin(self) -> None:
        """Wait while requests are held, then count as running."""
        while not self._open.is_set():
            await self._open.wait()
        self.running.up()

    def end(self, begun: bool) -> None:
        """Give the place back."""
        if begun:
            self.running.down()
        self.admitted.down()

    @contextlib.asynccontextmanager
    async def paused(self) -> AsyncIterator[None]:
        """Hold new requests and wait for the running ones; both go on when the block ends."""
        self._open.clear()
        try:
            await self.running.zero()
            yield
        finally:
            self._open.set()
