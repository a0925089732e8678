"""Follows one deploy over server-sent events, to its end.

The stream in Redis tells how it goes; how it *ended* is read from desired state, so that an end is never missed.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from fngw_gateway.settings import GatewaySettings
from fngw_state.records import Desired
from fngw_state.store import Store

router = APIRouter(tags=["deployments"])

TERMINAL = frozenset({"done", "failed", "superseded", "deleted"})


@router.get("/deployments/{name}/events")
async def follow_events(name: str, revision: int, request: Request) -> StreamingResponse:
    """Stream the events of one revision; ends after ``done``, ``failed``, ``superseded`` or ``deleted``.

    ``Last-Event-ID`` continues where an earlier stream broke off.
    """
    store: Store = request.app.state.store
    after = request.headers.get("last-event-id") or "0"
    lines = _stream(store, request.app.state.settings, name, revision, after)
    return StreamingResponse(lines, media_type="text/event-stream", headers={"Cache-Control": "no-store"})


async def _stream(
    store: Store, settings: GatewaySettings, name: str, number: int, after: str
) -> AsyncIterator[bytes]:
    yield b": following\n\n"
    async for entry, event in store.follow(name, number, after):
        if event is None:
            event = end_of(await store.desired(name), name, number)
            if event is None:
                yield b": waiting\n\n"
                continue
        if event["kind"] == "done":
            event["url"] = await _url(store, settings, name)
        yield f"id: {entry}\ndata: {json.dumps(event)}\n\n".encode()
        if event["kind"] in TERMINAL:
            return


async def _url(store: Store, settings: GatewaySettings, name: str) -> str | None:
    desired = await store.desired(name)
    route = desired.target.spec.route_prefix if desired else None
    return None if route is None else settings.base_url + route


def end_of(desired: Desired | None, name: str, number: int) -> dict[str, Any] | None:
    """Return the event that ends revision ``number``, or None while it goes on.

    Args:
        desired: what is desired under ``name`` now.
        name: the deployment.
        number: the revision that is followed.
    """
    if desired is None:
        return _event(number, "deleted", f"{name} is deleted")
    if desired.target.number > number:
        text = f"{name}: revision {number} was overtaken by revision {desired.target.number}"
        return _event(number, "superseded", text)
    if desired.failed and desired.failure:
        return _event(number, "failed", desired.failure.message, problem=desired.failure.problem())
    if desired.settled and not desired.deleting:
        return _event(number, "done", f"{name} is healthy")
    return None


def _event(number: int, kind: str, message: str, **more: Any) -> dict[str, Any]:
    return {"number": number, "kind": kind, "message": message, **more}
