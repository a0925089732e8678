"""One family of queues: claims calls as long as there is room, and has each of them sent by a task of its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from fngw_dispatcher.desk import Desk, Held
from fngw_state.call_records import Claimed
from fngw_state.call_work import Ending
from fngw_state.store import LOST

__all__ = ["Lane", "Send"]

log = logging.getLogger(__name__)

#: Sends a call and says how it goes on.
Send = Callable[[Claimed], Awaitable[Ending]]

CLAIM_AT_MOST = 100
#: An idle dispatcher looks by itself this often: a wake-up may have gone to one that died.
LOOK_EVERY_S = 1.0
RETRY_S = 0.5


@dataclass(frozen=True)
class Family:
    """Queues that are worked on together.

    Args:
        name: the wake-up list's.
        queues: RQ's, the more urgent first.
        size: most calls under way here.
        default_limit: most calls under way of a deployment without a limit of its own.
    """

    name: Literal["calls", "callbacks"]
    queues: tuple[str, ...]
    size: int
    default_limit: int


class Lane:
    """Works on one family.

    Args:
        family: which.
        desk: where calls under way are held.
        send: what to do with each.
        limits: the newest limits of deployments.
    """

    def __init__(self, family: Family, desk: Desk, send: Send, limits: Callable[[], Mapping[str, int]]) -> None:
        self._family = family
        self._desk = desk
        self._send = send
        self._limits = limits
        self._busy = 0
        self._freed = asyncio.Event()

    async def run(self) -> None:
        """Claim and send, for ever."""
        while True:
            try:
                await self._round()
            except LOST as error:
                log.warning("redis: lost (%s); no %s are claimed", error, self._family.name)
                await asyncio.sleep(RETRY_S)

    async def _round(self) -> None:
        free = min(self._family.size - self._busy, CLAIM_AT_MOST)
        if free <= 0:
            self._freed.clear()
            await self._freed.wait()
            return
        found = await self._desk.work.claim(self._family.queues, free, self._limits(), self._family.default_limit)
        for call in found.calls:
            self._start(call)
        if not found.more:
            due = LOOK_EVERY_S if found.next_due_s is None else found.next_due_s
            await self._desk.work.wait(self._family.name, min(due, LOOK_EVERY_S))

    def _start(self, call: Claimed) -> None:
        self._busy += 1
        task = asyncio.create_task(self._carry(call), name=f"call {call.id}")
        self._desk.put(Held(call, task, self._free))

    def _free(self) -> None:
        self._busy -= 1
        self._freed.set()

    async def _carry(self, call: Claimed) -> None:
        try:
            ending = await self._send(call)
        except asyncio.CancelledError:
            fate = self._desk.fate(call.id)
            if fate == "lost":
                log.warning("call %s: its lease was lost; another dispatcher sends it", call.id)
                self._desk.drop(call.id)
                return
            if not fate:
                raise
            ending = Ending(call.id, call.token, fate)  # type: ignore[arg-type]
        self._desk.ended(ending)
