"""When the ticks of a schedule are, and which of them get a call."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from fngw_state.schedules import Schedule, due_ticks, ticks_to_run

BERLIN = ZoneInfo("Europe/Berlin")


def at(*when: int) -> float:
    return datetime(*when, tzinfo=BERLIN).timestamp()  # type: ignore[arg-type,misc]


def schedule(cron: str, missed: str = "skip", timezone: str = "Europe/Berlin") -> Schedule:
    return Schedule("s", "G", cron, "/G", timezone=timezone, missed=missed, body=b"\xff")  # type: ignore[arg-type]


def test_ticks_lie_in_the_named_zone() -> None:
    found = due_ticks(schedule("0 9 * * *"), at(2026, 7, 1, 8), at(2026, 7, 3, 10))
    assert found == [at(2026, 7, 1, 9), at(2026, 7, 2, 9), at(2026, 7, 3, 9)]


def test_the_last_tick_is_not_due_again_and_now_is() -> None:
    every = schedule("*/5 * * * *")
    assert due_ticks(every, at(2026, 1, 1, 0, 5), at(2026, 1, 1, 0, 10)) == [at(2026, 1, 1, 0, 10)]
    assert due_ticks(every, at(2026, 1, 1, 0, 10), at(2026, 1, 1, 0, 14)) == []


@pytest.mark.parametrize("day", [(2026, 3, 29), (2026, 10, 25)])
def test_one_tick_a_day_when_the_clocks_change(day: tuple[int, int, int]) -> None:
    year, month, date = day
    found = due_ticks(schedule("30 9 * * *"), at(year, month, date, 0), at(year, month, date, 23))
    assert found == [at(year, month, date, 9, 30)]


def test_missed_ticks() -> None:
    due, now = [0.0, 300.0, 600.0, 1200.0], 1210.0
    assert ticks_to_run(schedule("* * * * *"), due, now) == [1200.0]
    assert ticks_to_run(schedule("* * * * *", "once"), due, now) == [600.0, 1200.0]
    assert ticks_to_run(schedule("* * * * *"), [0.0, 300.0], now) == []


def test_it_is_the_same_after_a_journey_through_redis() -> None:
    one = schedule("* * * * *")
    assert Schedule.from_json(one.to_json()) == one


def test_a_ticks_call_names_it() -> None:
    call = schedule("0 9 * * *").call(at(2026, 7, 1, 9))
    assert call.idempotency_key == f"schedule:s:{int(at(2026, 7, 1, 9))}"
    assert call.headers == (("fngw-schedule-tick", "2026-07-01T09:00:00+02:00"),)
