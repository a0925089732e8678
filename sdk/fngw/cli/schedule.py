"""``fngw calls schedule``: calls by the clock."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from fngw.cli import report
from fngw.cli.values import data_value
from fngw.protocol import DEFAULT_METHOD

__all__ = ["schedule"]


def schedule(words: Sequence[str], given: dict[str, Any], as_json: bool) -> None:
    """List schedules, make one, or remove one.

    Args:
        words: none: list; a deployment (and a cron expression): make or change; with ``remove``: a schedule.
        given: the options: ``remove``, ``name``, ``method``, ``data``, ``timezone``, ``missed``.
        as_json: how to tell.
    """
    from fngw.schedules import list_schedules, remove_schedule

    if given["remove"]:
        if len(words) != 1:
            raise report.usage_error("--remove takes the name of one schedule", "`fngw calls schedule` lists them")
        remove_schedule(words[0])
        _tell({"removed": words[0]}, f"removed {words[0]}", as_json)
    elif words:
        made = _make(words, given)
        _tell(
            made,
            f"{made['name']}: calls {made['deployment']} next at {moment(made['next'], made['timezone'])}",
            as_json,
        )
    else:
        _show(list_schedules(), as_json)


def _make(words: Sequence[str], given: dict[str, Any]) -> dict[str, Any]:
    from fngw.schedules import put_schedule

    if len(words) != 2:
        raise report.usage_error(
            "fngw calls schedule takes a deployment and one cron expression, in quotes",
            "for example: fngw calls schedule Model '*/5 * * * *'",
        )
    data = given["data"]
    return put_schedule(
        given["name"] or words[0],
        words[0],
        words[1],
        () if data is None else (data_value(data),),
        method=given["method"] or DEFAULT_METHOD,
        timezone=given["timezone"],
        missed=given["missed"],
    )


def _tell(value: Any, text: str, as_json: bool) -> None:
    if as_json:
        report.show_json(value)
    else:
        print(text)


def _show(found: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        report.show_json({"schedules": found})
        return
    if not found:
        print("no schedules")
        return
    names = ("name", "deployment", "cron", "timezone", "missed")
    rows = [
        (*(s[name] for name in names), *(moment(s[when], s["timezone"]) for when in ("last", "next")))
        for s in found
    ]
    print(report.table(("NAME", "DEPLOYMENT", "CRON", "TIMEZONE", "MISSED", "LAST", "NEXT"), rows))


def moment(seconds: float | None, zone: str) -> str:
    """Return a time as clocks in a zone show it, or those here where the zone is not known; ``-`` for none."""
    if seconds is None:
        return "-"
    there = None
    with suppress(ZoneInfoNotFoundError):
        there = ZoneInfo(zone)
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).astimezone(there).isoformat(" ", "seconds")
