"""Schedules: what can be meant, and what is told of what cannot."""

from __future__ import annotations

import pytest

from fngw.cron import problem_of, problem_of_zone
from fngw.options import Options
from fngw.spec import CodeRef, DeploymentSpec, spec_from_options


@pytest.mark.parametrize(
    "schedule",
    [
        "* * * * *",
        "*/5 * * * *",
        "0 9-17 * * mon-fri",
        "15,45 */2 1,15 jan,Jul *",
        "0 0 L * *",
        "0 0 29 2 *",
        "10-50/10 0 * * 7",
        "@hourly",
        " @Daily ",
        "0 0 31 2,3 *",
    ],
)
def test_schedules_that_make_sense(schedule: str):
    assert problem_of(schedule) is None


@pytest.mark.parametrize(
    ("schedule", "told"),
    [
        ("* * * *", "has 4 fields"),
        ("* * * * * *", "has 6 fields"),
        ("", "has 0 fields"),
        ("60 * * * *", "minute: 60 is not within 0 to 59"),
        ("* 24 * * *", "hour: 24"),
        ("* * 0 * *", "day of the month: 0"),
        ("* * * foo *", "month: 'foo' is not known"),
        ("* * * * 8", "day of the week: 8"),
        ("*/0 * * * *", "a step of 0"),
        ("5-1 * * * *", "ends before it begins"),
        ("*-5 * * * *", "cannot be read"),
        ("1,,2 * * * *", "cannot be read"),
        ("0 0 31 2,4 *", "never comes"),
        ("0 0 30 feb *", "never comes"),
        ("@sometimes", "has 1 fields"),
    ],
)
def test_schedules_that_cannot_be_meant(schedule: str, told: str):
    assert told in (problem_of(schedule) or "")


@pytest.mark.parametrize("zone", ["Europe/Berlin", "UTC", "Etc/GMT+3"])
def test_time_zones(zone: str):
    assert problem_of_zone(zone) is None


@pytest.mark.parametrize("zone", ["", "Mars/Olympus", "../etc/passwd", "Europe/", "+03:00"])
def test_what_is_no_time_zone(zone: str):
    assert problem_of_zone(zone)


def test_a_schedule_is_part_of_what_can_change_without_new_replicas():
    options = Options(name="f", schedule="@hourly", schedule_timezone="Europe/Berlin", schedule_missed="once")
    spec = spec_from_options(options, CodeRef("sha256:" + "0" * 64), None, "3.11")
    assert {k: v for k, v in spec.live().items() if k.startswith("schedule")} == {
        "schedule": "@hourly",
        "schedule_timezone": "Europe/Berlin",
        "schedule_missed": "once",
    }
    assert DeploymentSpec.from_dict(spec.to_dict()) == spec
