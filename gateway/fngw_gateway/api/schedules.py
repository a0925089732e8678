"""Schedules: calls by the clock, besides those that deployments' own options ask for."""

from __future__ import annotations

import base64
import binascii
import time
from typing import Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from fngw import protocol
from fngw.errors import ValidationError
from fngw.options import NAME_PATTERN
from fngw_gateway.api.deployments import find
from fngw_state.schedules import Schedule, Schedules, next_tick
from fngw_state.store import Store

router = APIRouter(tags=["calls"])

#: Bytes of a schedule's arguments: they lie in Redis, and are read with every look at the schedules.
LARGEST_FRAME = 64 * 1024


class ScheduleRequest(BaseModel):
    """What ``PUT /schedules/{name}`` takes."""

    deployment: str = Field(description="Whose calls they are.")
    cron: str = Field(description="Five fields, or such as @hourly.")
    timezone: str = Field("UTC", description="Where its clock hangs.")
    missed: Literal["skip", "once"] = Field("skip", description="Ticks that passed while nobody was there.")
    method: str = Field(protocol.DEFAULT_METHOD, description="The method that is called, as by a handle.")
    frame: str = Field("", description="Its arguments: a call frame in base 64. Empty: none.")


@router.get("/schedules")
async def list_schedules(request: Request) -> dict[str, Any]:
    """All schedules, those of deployments' options included: their names begin with @."""
    found = Schedules(request.app.state.store)
    ticks, now = await found.ticks(), time.time()
    return {"schedules": [_described(schedule, ticks, now) for schedule in await found.all()]}


@router.put("/schedules/{name}")
async def put_schedule(name: str, body: ScheduleRequest, request: Request) -> dict[str, Any]:
    """Call a deployment by the clock from now on, or change how that is done."""
    store: Store = request.app.state.store
    await find(store, body.deployment)
    if len(name) > 63 or not NAME_PATTERN.fullmatch(name):
        hint = "letters, digits, '_' and '-', starting and ending with a letter or digit, at most 63"
        raise ValidationError(f"{name!r} is not a schedule's name", hint=hint)
    schedule = Schedule(
        name=name,
        deployment=body.deployment,
        cron=body.cron,
        target=f"{protocol.CALL_PREFIX}{quote(body.deployment)}/{quote(body.method, safe='')}",
        timezone=body.timezone,
        missed=body.missed,
        content_type=protocol.CALL_TYPE,
        body=_frame(body.frame),
    )
    await Schedules(store).put(schedule)
    return _described(schedule, {}, time.time())


@router.delete("/schedules/{name}", status_code=204)
async def remove_schedule(name: str, request: Request) -> Response:
    """Forget a schedule. The calls that it made stay."""
    await Schedules(request.app.state.store).remove(name)
    return Response(status_code=204)


def _frame(text: str) -> bytes:
    try:
        frame = base64.b64decode(text, validate=True)
    except binascii.Error:
        frame = b"?"
    if not frame:
        frame = b"".join(protocol.encode_frame(((), {}), protocol=4))  # which every Python reads
    if not frame.startswith(protocol.MAGIC):
        raise ValidationError("frame: it is not a call frame in base 64", hint="see docs/reference/http.md")
    if len(frame) > LARGEST_FRAME:
        raise ValidationError(f"frame: a schedule's arguments have at most {LARGEST_FRAME >> 10} KiB")
    return frame


def _described(schedule: Schedule, ticks: dict[str, float], now: float) -> dict[str, Any]:
    return {
        "name": schedule.name,
        "deployment": schedule.deployment,
        "cron": schedule.cron,
        "timezone": schedule.timezone,
        "missed": schedule.missed,
        "target": schedule.target,
        "last": ticks.get(schedule.name),
        "next": next_tick(schedule, now),
    }
