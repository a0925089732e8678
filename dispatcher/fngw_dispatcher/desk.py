"""The calls that this dispatcher holds: their leases are renewed, their ends written down, many in one command.

A call is held from its claim until Redis has acknowledged how it goes on. While Redis is away, ends are kept and
tried again: nothing but the fence decides whether they still count.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from fngw_state.call_records import Claimed
from fngw_state.call_work import CallWork, Ending, What
from fngw_state.store import LOST

__all__ = ["Desk", "Held"]

log = logging.getLogger(__name__)

FLUSH_AT_MOST = 100
RETRY_S = 0.5


@dataclass
class Held:
    """A call under way.

    Args:
        task: what sends it.
        freed: told when the call is off the desk.
        fate: why it was stopped, if it was: how it goes on, or "lost": it is another dispatcher's by now.
    """

    call: Claimed
    task: asyncio.Task[None]
    freed: Callable[[], None]
    fate: What | str = ""


class Desk:
    """All that is under way in this process."""

    def __init__(self, work: CallWork) -> None:
        self.work = work
        self._held: dict[str, Held] = {}
        self._endings: asyncio.Queue[Ending] = asyncio.Queue()
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        return len(self._held)

    def put(self, held: Held) -> None:
        """Hold a call."""
        self._held[held.call.id] = held
        self._empty.clear()

    def fate(self, call_id: str) -> str:
        """Why a call was stopped; empty while it was not."""
        held = self._held.get(call_id)
        return held.fate if held else "lost"

    def stop(self, call_id: str, fate: What | str) -> None:
        """Stop sending a call, if it is here."""
        held = self._held.get(call_id)
        if held is not None and not held.task.done() and not held.fate:
            held.fate = fate
            held.task.cancel()

    def stop_all(self, fate: What) -> None:
        for call_id in list(self._held):
            self.stop(call_id, fate)

    async def empty(self) -> None:
        """Return once nothing is held."""
        await self._empty.wait()

    def ended(self, ending: Ending) -> None:
        """Have it written down how a call goes on."""
        self._endings.put_nowait(ending)

    def drop(self, call_id: str) -> None:
        """Let go of a call without a word."""
        held = self._held.pop(call_id, None)
        if held is not None:
            held.freed()
        if not self._held:
            self._empty.set()

    async def write_down(self) -> None:
        """Write ends to Redis as they come, for ever."""
        while True:
            batch = [await self._endings.get()]
            while len(batch) < FLUSH_AT_MOST and not self._endings.empty():
                batch.append(self._endings.get_nowait())
            counted = await self._write(batch)
            for ending, mine in zip(batch, counted, strict=True):
                if not mine:
                    log.warning("call %s: its lease was lost; this end (%s) is dropped", ending.id, ending.what)
                self.drop(ending.id)

    async def _write(self, batch: list[Ending]) -> list[bool]:
        while True:
            try:
                return await self.work.end(batch)
            except LOST as error:
                log.warning("redis: lost (%s); %d ends wait", error, len(batch) + self._endings.qsize())
                await asyncio.sleep(RETRY_S)

    async def renew(self) -> None:
        """Keep the leases, for ever."""
        while True:
            await asyncio.sleep(self.work.lease_s / 3)
            if not self._held:
                continue
            try:
                lost, cancelled = await self.work.renew((i, h.call.token) for i, h in self._held.items())
            except LOST as error:
                log.warning("redis: lost (%s); %d leases were not renewed", error, len(self._held))
                continue
            for call_id in lost:
                self.stop(call_id, "lost")
            for call_id in cancelled:
                self.stop(call_id, "cancelled")
