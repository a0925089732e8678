"""Builds without a deploy, and the locks that builds come to."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import anyio
from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse, StreamingResponse
from pydantic import BaseModel, Field

from fngw.errors import FngwError
from fngw.spec import DeploymentSpec
from fngw_gateway.api.deployments import claim_blobs, parse
from fngw_state.records import BuildProgress, BuildRequest, BuildResult

if TYPE_CHECKING:
    from fngw_state.building import Building, News
    from fngw_state.store import Store

router = APIRouter(tags=["builds"])

#: Silence after which a comment tells the client that the line is alive.
COMMENT_S = 5.0
#: What a controller may take to start, and to take the lease of one that was killed (6 s).
TOLD_S = 10.0
_POLL_S = 0.1


class WantedBuild(BaseModel):
    """What ``POST /builds`` takes."""

    spec: dict[str, Any] = Field(description="The deployment, as fngw.spec.DeploymentSpec.to_dict() writes it.")


@router.post("/builds")
async def build(body: WantedBuild, request: Request) -> StreamingResponse:
    """Build what a spec runs from, and stream how it goes as server-sent events.

    The last one is ``done``, with ``result``, or ``failed``, with ``problem``. A client that leaves before that
    stops the build, unless a deploy waits for it, too.
    """
    spec = parse(str(body.spec.get("name", "")), body.spec)
    claim_blobs(spec, request.app.state.settings)
    lines = _stream(_building(request), await _wanted(spec, request))
    return StreamingResponse(lines, media_type="text/event-stream", headers={"Cache-Control": "no-store"})


@router.get("/locks/{digest}")
async def lock(digest: str, request: Request) -> PlainTextResponse:
    """What dependencies were solved to: every package with its hash, as JSON."""
    try:
        text = request.app.state.settings.layout.lock(digest).read_text("utf-8")
    except (ValueError, FileNotFoundError):
        raise FngwError(
            f"there is no lock {digest!r}",
            code="lock_missing",
            hint="fngw versions --json lists those of a deployment",
            status=404,
        ) from None
    return PlainTextResponse(text, media_type="application/json")


def _building(request: Request) -> Building:
    """Made when it is first asked for: RQ, which it imports, takes a tenth of an idle gateway's memory."""
    from fngw_state.building import Building

    state = request.app.state
    if not hasattr(state, "building"):
        state.building = Building(state.store, state.settings.redis_url)
    building: Building = state.building
    return building


async def _wanted(spec: DeploymentSpec, request: Request) -> BuildRequest:
    from fngw_state.builds import request_for

    engine = await _engine(request.app.state.store)
    if engine is None:
        raise FngwError(
            "no controller has told yet what runs replicas",
            code="engine_unknown",
            hint="try again in a moment; `fngw up` shows whether its controller runs",
            status=503,
        )
    return request_for(spec, engine["name"])


async def _engine(store: Store) -> dict[str, str] | None:
    """Return what runs replicas, once a controller has told: it may start later than this gateway."""
    deadline = time.monotonic() + TOLD_S
    while (engine := await store.engine()) is None and time.monotonic() < deadline:  # noqa: ASYNC110 - others tell
        await asyncio.sleep(_POLL_S)
    return engine


async def _stream(building: Building, wanted: BuildRequest) -> AsyncGenerator[bytes, None]:
    ended = False
    try:
        async with aclosing(building.follow(wanted)) as followed, aclosing(paced(followed, COMMENT_S)) as told:
            async for one in told:
                ended = isinstance(one, BuildResult)
                yield b": building\n\n" if one is None else f"data: {json.dumps(event_of(one))}\n\n".encode()
    finally:
        if not ended:
            with anyio.CancelScope(shield=True):  # Starlette goes on cancelling who waits for something here
                await building.cancel(wanted)


async def paced(news: AsyncGenerator[News, None], pause_s: float) -> AsyncGenerator[News | None, None]:
    """Yield what there is, and None whenever there was nothing for ``pause_s`` seconds."""
    coming = asyncio.ensure_future(anext(news, None))
    try:
        while True:
            await asyncio.wait({coming}, timeout=pause_s)
            if not coming.done():
                yield None
                continue
            one = coming.result()
            if one is None:
                return
            yield one
            coming = asyncio.ensure_future(anext(news, None))
    finally:
        coming.cancel()
        with anyio.CancelScope(shield=True):
            await asyncio.wait({coming})


def event_of(news: News) -> dict[str, Any]:
    """Return what a client is told."""
    if isinstance(news, str):
        return {"kind": "build", "message": news}
    if isinstance(news, BuildProgress):
        return {"kind": "progress", "message": news.step, **dataclasses.asdict(news)}
    if news.artifact is None:
        return {"kind": "failed", "message": str((news.error or {}).get("detail", "")), "problem": news.error}
    result = {
        **dataclasses.asdict(news.artifact),
        "layers": [dataclasses.asdict(layer) for layer in news.layers],
        "reused": news.reused,
        "seconds": news.seconds,
    }
    return {"kind": "done", "message": news.artifact.image, "result": result}
