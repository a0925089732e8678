"""Schedules: calls that are made by the clock. Those of deployments lie in their specs, the others here.

Several dispatchers look at the same schedules. Each makes the call of a tick under an idempotency key that names
the tick, so that there is one; then the tick counts as dealt with.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from zoneinfo import ZoneInfo

from croniter import croniter

from fngw import protocol
from fngw.cron import PROBLEMS
from fngw.errors import FngwError, ValidationError
from fngw_state import keys
from fngw_state.call_records import NewCall
from fngw_state.calls import from_text, to_text
from fngw_state.records import Desired
from fngw_state.store import Store

__all__ = ["Schedule", "Schedules", "due_ticks", "next_tick", "of_deployment", "ticks_to_run"]

TICK_HEADER = "fngw-schedule-tick"
#: A tick that is found this late was missed.
MISSED_AFTER_S = 60.0
#: Of more ticks than this nobody wants to know.
MOST_TICKS = 10_000


@dataclass(frozen=True)
class Schedule:
    """What is called, and when.

    Args:
        name: unique.
        deployment: whose calls they are.
        cron: five fields, such as ``"*/5 * * * *"``.
        timezone: an IANA name.
        missed: what becomes of ticks at which no dispatcher ran: ``"skip"``, or ``"once"``: one call for all.
        method, target, content_type, body: of the request.
    """

    name: str
    deployment: str
    cron: str
    target: str
    timezone: str = "UTC"
    missed: Literal["skip", "once"] = "skip"
    method: str = "POST"
    content_type: str = ""
    body: bytes = b""

    def call(self, tick: float) -> NewCall:
        """Return the call of one tick."""
        at = datetime.fromtimestamp(tick, ZoneInfo(self.timezone)).isoformat()
        kind = (("content-type", self.content_type),) if self.content_type else ()
        return NewCall(
            self.deployment,
            self.method,
            self.target,
            (*kind, (TICK_HEADER, at)),
            self.body,
            idempotency_key=f"schedule:{self.name}:{int(tick)}",
        )

    def to_json(self) -> str:
        return json.dumps({**vars(self), "body": to_text(self.body)})

    @classmethod
    def from_json(cls, text: str) -> Schedule:
        found = json.loads(text)
        return cls(**{**found, "body": from_text(found["body"])})


def of_deployment(desired: Desired) -> Schedule | None:
    """Return the schedule that a deployment's options ask for.

    It is called at its route; one without a route by handle, without arguments.
    """
    running = desired.effective
    if running is None or running.spec.schedule is None:
        return None
    spec = running.spec
    by_handle = f"{protocol.CALL_PREFIX}{spec.name}/{protocol.DEFAULT_METHOD}"
    return Schedule(
        name=f"@{spec.name}",
        deployment=spec.name,
        cron=spec.schedule,  # type: ignore[arg-type]  # told above
        target=spec.route_prefix or by_handle,
        timezone=spec.schedule_timezone,
        missed=spec.schedule_missed,  # type: ignore[arg-type]  # checked when it was deployed
        content_type="" if spec.route_prefix else protocol.CALL_TYPE,
        body=b"" if spec.route_prefix else b"".join(protocol.encode_frame(((), {}), protocol=4)),
    )


def due_ticks(schedule: Schedule, after: float, now: float) -> list[float]:
    """Return the ticks after one time and up to another, in Unix seconds, oldest first."""
    zone = ZoneInfo(schedule.timezone)
    ticks = croniter(schedule.cron, datetime.fromtimestamp(after, zone), ret_type=float)
    found: list[float] = []
    while len(found) < MOST_TICKS and (tick := float(ticks.get_next())) <= now:
        found.append(tick)
    return found


def next_tick(schedule: Schedule, after: float) -> float:
    """Return the first tick after a time, in Unix seconds."""
    start = datetime.fromtimestamp(after, ZoneInfo(schedule.timezone))
    return float(croniter(schedule.cron, start, ret_type=float).get_next())


def ticks_to_run(schedule: Schedule, due: Iterable[float], now: float) -> list[float]:
    """Return those of the due ticks that get a call: all that are not missed, and of the missed ones what
    ``missed`` says."""
    due = list(due)
    fresh = [tick for tick in due if now - tick <= MISSED_AFTER_S]
    missed = [tick for tick in due if now - tick > MISSED_AFTER_S]
    return [*missed[-1:], *fresh] if schedule.missed == "once" else fresh


HINTS = {
    "schedule": "for example '*/5 * * * *', every five minutes, or '0 6 * * mon-fri'",
    "schedule_timezone": "a name such as 'UTC' or 'Europe/Berlin'",
    "schedule_missed": "'skip' or 'once'",
}


class Schedules:
    """All schedules of one installation."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._redis: Any = store.redis

    async def put(self, schedule: Schedule) -> None:
        """Store a schedule, or change the one of that name.

        Raises:
            ValidationError: a value that cannot work.
        """
        checks = {
            "schedule": schedule.cron,
            "schedule_timezone": schedule.timezone,
            "schedule_missed": schedule.missed,
        }
        for option, value in checks.items():
            if problem := PROBLEMS[option](value):
                raise ValidationError(f"{schedule.name}: {option} {value!r}: {problem}", hint=HINTS[option])
        if schedule.name.startswith("@"):
            raise ValidationError(f"{schedule.name!r}: names with @ are those of deployments' own schedules")
        await self._redis.hset(keys.SCHEDULES, schedule.name, schedule.to_json())

    async def remove(self, name: str) -> None:
        """Forget a schedule.

        Raises:
            FngwError: ``schedule_not_found``.
        """
        if not await self._redis.hdel(keys.SCHEDULES, name):
            hint = "`fngw calls schedule` lists them; a deployment's own goes with its option"
            raise FngwError(f"no schedule is called {name!r}", code="schedule_not_found", status=404, hint=hint)

    async def all(self) -> tuple[Schedule, ...]:
        """Return the stored schedules and those of deployments, by name."""
        stored = [Schedule.from_json(text) for text in (await self._redis.hgetall(keys.SCHEDULES)).values()]
        own = [of_deployment(desired) for desired in (await self._store.all_desired()).values()]
        return tuple(sorted([*stored, *(s for s in own if s)], key=lambda schedule: schedule.name))

    async def ticks(self) -> dict[str, float]:
        """Return, by name, the last tick that was dealt with."""
        return {name: float(tick) for name, tick in (await self._redis.hgetall(keys.SCHEDULE_TICKS)).items()}

    async def dealt_with(self, name: str, tick: float) -> None:
        """All ticks up to this one are dealt with."""
        await self._redis.hset(keys.SCHEDULE_TICKS, name, repr(tick))

    async def forget_ticks(self, names: Iterable[str]) -> None:
        """Forget the ticks of schedules that are gone: should one come back, it begins anew."""
        if gone := list(names):
            await self._redis.hdel(keys.SCHEDULE_TICKS, *gone)
