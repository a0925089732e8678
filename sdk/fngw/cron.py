"""Whether a schedule makes sense: cron's five fields, the name of a time zone, what to do about missed ticks. Pure.

When the ticks are is computed where schedules are kept; here a mistake is told where it was written.

Standard library only, Python >= 3.7: this module is copied into replica images.
"""

from __future__ import annotations

import re
from typing import Callable, Dict, List, Optional, Tuple

__all__ = ["ALIASES", "EXAMPLES", "PROBLEMS", "problem_of", "problem_of_zone"]

#: What stands for all five fields.
ALIASES = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")

_MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec".split()
_DAYS = "sun mon tue wed thu fri sat".split()
#: Name, lowest and highest value, and names of values.
_FIELDS: Tuple[Tuple[str, int, int, Dict[str, int]], ...] = (
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day of the month", 1, 31, {"l": 31}),
    ("month", 1, 12, {name: i + 1 for i, name in enumerate(_MONTHS)}),
    ("day of the week", 0, 7, {name: i for i, name in enumerate(_DAYS)}),
)
_PART = re.compile(r"(\*|[a-z]+|\d{1,2})(?:-([a-z]+|\d{1,2}))?(?:/(\d{1,4}))?")
_LONGEST = (0, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def problem_of(schedule: str) -> Optional[str]:
    """Return what is wrong with a cron expression, or None.

    Example:
        >>> problem_of("*/5 * * * *"), problem_of("0 25 * * *")
        (None, 'hour: 25 is not within 0 to 23')
    """
    text = schedule.strip().lower()
    if text in ALIASES:
        return None
    fields = text.split()
    if len(fields) != len(_FIELDS):
        return f"has {len(fields)} fields, not five: minute, hour, day of the month, month, day of the week"
    problems = (_field_problem(text, *field) for text, field in zip(fields, _FIELDS))
    return next((problem for problem in problems if problem), None) or _never(fields)


def problem_of_zone(name: str) -> Optional[str]:
    """Return what is wrong with a time zone's name, or None.

    Before Python 3.9 there is no list of them: only its form is checked here, and the rest by the gateway.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*", name):
        return "not a time zone's name"
    try:
        import zoneinfo
    except ImportError:
        return None
    try:
        zoneinfo.ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return "no such time zone is known here" if zoneinfo.available_timezones() else None
    return None


def _field_problem(text: str, name: str, low: int, high: int, names: Dict[str, int]) -> Optional[str]:
    for part in text.split(","):
        match = _PART.fullmatch(part)
        if match is None:
            return f"{name}: {part!r} cannot be read"
        first, last, step = match.groups()
        if first == "*" and last is not None:
            return f"{name}: {part!r} cannot be read"
        values = [_value(word, names) for word in (first, last) if word not in (None, "*")]
        for word, value in zip((first, last), values):
            if value is None:
                return f"{name}: {word!r} is not known"
            if not low <= value <= high:
                return f"{name}: {value} is not within {low} to {high}"
        if step is not None and int(step) == 0:
            return f"{name}: a step of 0 leads nowhere"
        if len(values) == 2 and values[0] > values[1]:  # type: ignore[operator]
            return f"{name}: {part!r} ends before it begins"
    return None


def _value(word: str, names: Dict[str, int]) -> Optional[int]:
    return int(word) if word.isdigit() else names.get(word)


def _never(fields: List[str]) -> Optional[str]:
    """Tell of a day that no month has, such as the 31st of February; only where both are plain numbers."""
    _, _, day, month, weekday = fields
    if weekday != "*" or not day.isdigit():
        return None
    months = [_value(word, _FIELDS[3][3]) for word in month.split(",")] if month != "*" else []
    if months and all(m is not None and int(day) > _LONGEST[m] for m in months):
        return f"never comes: month {month} has no day {day}"
    return None


def _missed_problem(text: str) -> Optional[str]:
    return None if text in ("skip", "once") else "neither 'skip' nor 'once'"


#: What checks each option of a deployment, and what to write instead.
PROBLEMS: Dict[str, Callable[[str], Optional[str]]] = {
    "schedule": problem_of,
    "schedule_timezone": problem_of_zone,
    "schedule_missed": _missed_problem,
}
EXAMPLES = {
    "schedule": "for example '*/5 * * * *' or '@daily'",
    "schedule_timezone": "for example 'Europe/Berlin' or 'UTC'",
    "schedule_missed": "'skip': none of them; 'once': one call for all of them",
}
