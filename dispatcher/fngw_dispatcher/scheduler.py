"""Makes the calls of schedules when their time has come."""

from __future__ import annotations

import logging
from collections.abc import Callable

from fngw.errors import FngwError
from fngw_state.calls import Calls
from fngw_state.schedules import Schedule, Schedules, due_ticks, ticks_to_run

__all__ = ["Scheduler"]

log = logging.getLogger(__name__)


class Scheduler:
    """Looks at all schedules.

    Args:
        schedules: where they are.
        calls: to make theirs.
        clock: Unix seconds.
    """

    def __init__(self, schedules: Schedules, calls: Calls, clock: Callable[[], float]) -> None:
        self._schedules = schedules
        self._calls = calls
        self._clock = clock

    async def look(self) -> None:
        """Make the calls that are due; any number of dispatchers may."""
        schedules, ticks = await self._schedules.all(), await self._schedules.ticks()
        for schedule in schedules:
            await self._look_at(schedule, ticks.get(schedule.name))
        await self._schedules.forget_ticks(ticks.keys() - {schedule.name for schedule in schedules})

    async def _look_at(self, schedule: Schedule, last: float | None) -> None:
        now = self._clock()
        if last is None:  # it is new: what lies before is not its
            await self._schedules.dealt_with(schedule.name, now)
            return
        due = due_ticks(schedule, last, now)
        for tick in ticks_to_run(schedule, due, now):
            await self._run(schedule, tick)
        if due:
            await self._schedules.dealt_with(schedule.name, due[-1])

    async def _run(self, schedule: Schedule, tick: float) -> None:
        try:
            accepted = await self._calls.accept(schedule.call(tick))
        except FngwError as error:  # its queue is full: this tick is lost, as the log tells
            log.error("schedule %s: no call for its tick: %s", schedule.name, error)
            return
        if accepted.created:
            log.info("schedule %s: call %s", schedule.name, accepted.id)
