"""Schedules, by the dispatcher's scheduler on a clock of the test's, with a real Redis."""

from __future__ import annotations

import asyncio

import pytest

from fngw.errors import FngwError, ValidationError
from fngw_dispatcher.scheduler import Scheduler
from fngw_state.schedules import Schedule, Schedules

from .conftest import Site


class Clock:
    now = 1_800_000_000.0  # a full minute

    def __call__(self) -> float:
        return self.now


async def test_one_call_for_each_tick_with_two_schedulers(site: Site) -> None:
    clock, schedules = Clock(), Schedules(site.store)
    await schedules.put(Schedule("nightly", "G", "* * * * *", "/G"))
    both = [Scheduler(schedules, site.calls, clock) for _ in range(2)]
    await both[0].look()
    assert await site.calls.list() == ()
    for _ in range(3):
        clock.now += 60
        await asyncio.gather(*(scheduler.look() for scheduler in both))
        await both[1].look()
    assert len(await site.calls.list()) == 3


@pytest.mark.parametrize(("missed", "count"), [("skip", 0), ("once", 1)])
async def test_missed_ticks(site: Site, missed: str, count: int) -> None:
    clock, schedules = Clock(), Schedules(site.store)
    await schedules.put(Schedule("hourly", "G", "0 * * * *", "/G", missed=missed))  # type: ignore[arg-type]
    scheduler = Scheduler(schedules, site.calls, clock)
    await scheduler.look()
    clock.now += 5 * 3600 + 1800
    await scheduler.look()
    await scheduler.look()
    assert len(await site.calls.list()) == count


async def test_a_schedule_that_comes_back_begins_anew(site: Site) -> None:
    clock, schedules = Clock(), Schedules(site.store)
    scheduler = Scheduler(schedules, site.calls, clock)
    await schedules.put(Schedule("s", "G", "* * * * *", "/G", missed="once"))
    await scheduler.look()
    await schedules.remove("s")
    await scheduler.look()
    assert await schedules.ticks() == {}
    with pytest.raises(FngwError) as caught:
        await schedules.remove("s")
    assert (caught.value.code, caught.value.status) == ("schedule_not_found", 404)
    clock.now += 3600
    await schedules.put(Schedule("s", "G", "* * * * *", "/G", missed="once"))
    await scheduler.look()
    assert await site.calls.list() == ()


async def test_bad_schedules_are_refused(site: Site) -> None:
    schedules = Schedules(site.store)
    for bad in (
        Schedule("s", "G", "61 * * * *", "/G"),
        Schedule("s", "G", "* * * * *", "/G", timezone="Mars/Olympus"),
        Schedule("@G", "G", "* * * * *", "/G"),
    ):
        with pytest.raises(ValidationError):
            await schedules.put(bad)
    assert await schedules.all() == ()
