"""Logs of replicas (asked from the controller, which alone can read the engine's) and of builds."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response, StreamingResponse

from fngw.errors import FngwError, Unreachable, ValidationError, from_problem
from fngw.protocol import PROBLEM_TYPE
from fngw_gateway.api.deployments import find
from fngw_gateway.settings import GatewaySettings
from fngw_state.history import History
from fngw_state.records import Desired
from fngw_state.store import Store

if TYPE_CHECKING:
    import httpx

router = APIRouter(tags=["logs"])

#: Lines of each replica, unless told otherwise.
TAIL = 100
#: Between looks at a build that is followed.
BUILD_POLL_S = 0.2
AGES = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@router.get("/deployments/{name}/logs")
async def get_logs(
    name: str,
    request: Request,
    tail: Annotated[int | None, Query(ge=0)] = None,
    since: str = "",
    follow: bool = False,
    build: bool = False,
) -> Response:
    """The logs of a deployment's replicas, oldest first; or of its last build.

    ``tail`` is lines per replica, 100 unless given; ``since`` an age such as ``10m``, or Unix seconds; ``follow``
    goes on, also with replicas that start later, until the deployment is deleted or the client leaves. That of a
    build is whole unless ``tail`` is given, has no times, and is followed until the build is over.
    """
    store: Store = request.app.state.store
    await find(store, name)
    if build:
        return StreamingResponse(build_lines(store, name, tail, follow), media_type="text/plain; charset=utf-8")
    query: dict[str, str] = {"tail": str(TAIL if tail is None else tail)}
    if since:
        query["since"] = str(moment(since, time.time()))
    if follow:
        query["follow"] = "1"
    lines = await ask_controller(request.app.state.settings, name, query)
    return StreamingResponse(lines, media_type="text/plain; charset=utf-8")


def moment(since: str, now: float) -> float:
    """Return the Unix time that ``since`` means.

    Args:
        since: an age (``"90s"``, ``"10m"``, ``"2h"``, ``"1d"``) or Unix seconds.
        now: Unix seconds.

    Raises:
        ValidationError: neither.

    Example:
        >>> moment("10m", now=1000.0)
        400.0
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", since)
    if match is None:
        raise ValidationError(f"since: {since!r} is not a time", hint="an age such as 10m or 2h, or Unix seconds")
    amount, unit = float(match.group(1)), match.group(2)
    return now - amount * AGES[unit] if unit else amount


async def ask_controller(settings: GatewaySettings, name: str, query: Mapping[str, str]) -> AsyncIterator[bytes]:
    """Return the controller's answer, once it has begun: after that, an error could no longer be told.

    Raises:
        Unreachable: the controller does not answer.
    """
    import httpx  # 5 MiB with what it brings along: only once logs are asked for

    transport = httpx.AsyncHTTPTransport(uds=str(settings.layout.controller_socket))
    client = httpx.AsyncClient(transport=transport, timeout=httpx.Timeout(10, read=None))
    request = client.build_request("GET", f"http://controller/logs/{name}", params=query)
    try:
        answer = await client.send(request, stream=True)
        if answer.is_error:
            raise await _refusal(answer)
    except httpx.TransportError as error:
        await client.aclose()
        raise Unreachable(f"the controller does not answer: {error}", hint="see the controller's log") from error
    except BaseException:
        await client.aclose()
        raise
    return _passed_on(client, answer)


async def _refusal(answer: httpx.Response) -> FngwError:
    """Return why there are no logs, such as an engine that is away."""
    text = await answer.aread()
    if answer.headers.get("content-type", "").startswith(PROBLEM_TYPE):
        return from_problem(dict(answer.json()))
    told = text[:200].decode(errors="replace")
    hint = "see the controller's log"
    return FngwError(
        f"the controller answered {answer.status_code}: {told}", code="unexpected_answer", hint=hint, status=502
    )


async def _passed_on(client: httpx.AsyncClient, answer: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for chunk in answer.aiter_bytes():
            yield chunk
    finally:
        await answer.aclose()
        await client.aclose()


async def build_lines(store: Store, name: str, tail: int | None, follow: bool) -> AsyncIterator[str]:
    """Yield the log of the build of what was deployed last.

    Args:
        tail: at most so many of the lines that are there.
        follow: go on until that build is over.
    """
    key, seen = "", 0
    while (desired := await store.desired(name)) is not None:
        found, over = await _build_of(store, desired)
        if found != key:  # it was deployed again
            key, seen = found, 0
        _, lines, _ = await store.build_news(key, seen)
        for line in _last(lines, None if seen else tail):
            yield f"{line}\n"
        seen += len(lines)
        if over or not follow:
            return
        await asyncio.sleep(BUILD_POLL_S)


async def _build_of(store: Store, desired: Desired) -> tuple[str, bool]:
    """Return the key of the build of what was deployed last, and whether it is over."""
    from fngw_state.builds import request_for, request_key  # RQ, which it imports, takes memory

    target = desired.target
    made = await History(store).artifact((desired.name, target.generation))
    if made is not None and made.build:
        return made.build, True
    engine = await store.engine()
    key = request_key(request_for(target.spec, engine["name"] if engine else ""))
    return key, made is not None or desired.failed or desired.deleting


def _last(lines: list[str], count: int | None) -> list[str]:
    return lines if count is None else lines[max(0, len(lines) - count) :]
