"""What the soak deploys. No answer fits any request but its own.

steady   an ASGI app; its replicas live through all of it, and must not grow
frail    a class; its replicas are killed, kill themselves, and are replaced
late     has a time limit that its requests never keep
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import json
import os
import signal
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qsl

import fngw

__all__ = ["LATE_S", "PART", "Frail", "Late", "Steady", "answer", "part"]

PART = 16384
LATE_S = 0.3
FOREVER_S = 60.0


def answer(number: str, body: bytes) -> bytes:
    """Return what a request is told: its number, and a checksum over that and its body."""
    return f"{number} {hashlib.blake2s(body, key=number.encode()).hexdigest()}".encode()


def part(number: str, n: int) -> bytes:
    """Return one part of a streamed answer."""
    unit = f"{number}:{n};".encode()
    return (unit * (PART // len(unit) + 1))[:PART]


async def stream(number: str, query: dict[str, str]) -> AsyncIterator[bytes]:
    """Yield ``parts`` parts; but before that number ``break`` raise, ``die`` end this process, ``hang`` wait."""
    for n in range(int(query.get("parts", 4))):
        if query.get("break") == str(n):
            raise RuntimeError("asked for")
        if query.get("die") == str(n):
            os.kill(os.getpid(), signal.SIGKILL)
        if query.get("hang") == str(n):
            await asyncio.sleep(FOREVER_S)
        yield part(number, n)


def asked(scope: dict[str, Any]) -> tuple[str, str, dict[str, str]]:
    """Return what kind of answer is wanted, the request's number, and its query."""
    *_, kind, number = scope["path"].split("/")
    return kind, number, dict(parse_qsl(scope["query_string"].decode()))


# -- steady -------------------------------------------------------------------------------------------------


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Serve HTTP and WebSockets."""
    if scope["type"] == "http":
        await http(scope, receive, send)
    elif scope["type"] == "websocket":
        await websocket(scope, receive, send)


async def http(scope: dict[str, Any], receive: Any, send: Any) -> None:
    kind, number, query = asked(scope)
    if kind == "stream":
        await begin(send, number)
        async for data in stream(number, query):
            await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        return
    data = census() if kind == "census" else answer(number, await read(receive))
    await begin(send, number, (b"content-length", b"%d" % len(data)))
    await send({"type": "http.response.body", "body": data})


async def begin(send: Any, number: str, *more: tuple[bytes, bytes]) -> None:
    fields = [(b"soak-number", number.encode()), *more]
    await send({"type": "http.response.start", "status": 200, "headers": fields})


async def read(receive: Any) -> bytes:
    parts, more = [], True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


async def websocket(scope: dict[str, Any], receive: Any, send: Any) -> None:
    _, number, _ = asked(scope)
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] != "websocket.disconnect":
        if message["type"] == "websocket.receive":
            told = answer(number, message["text"].encode())
            await send({"type": "websocket.send", "text": told.decode()})


def census() -> bytes:
    """Tell what this process holds."""
    gc.collect()
    return json.dumps({"tasks": len(asyncio.all_tasks()), "objects": len(gc.get_objects())}).encode()


@fngw.deployment(name="steady", num_replicas=2)
@fngw.ingress(app)
class Steady:
    """Answers over HTTP and WebSockets by ``app``, and calls by handle."""

    async def tell(self, number: str, body: bytes) -> bytes:
        return answer(number, body)


# -- frail --------------------------------------------------------------------------------------------------


@fngw.deployment(name="frail", num_replicas=3, max_concurrent_queries=6)
class Frail:
    """Answers over HTTP and calls by handle."""

    async def __call__(self, request: Any) -> Any:
        from starlette.responses import Response, StreamingResponse

        kind, number, query = asked(request.scope)
        fields = {"soak-number": number}
        if kind == "stream":
            return StreamingResponse(stream(number, query), headers=fields)
        return Response(answer(number, await request.body()), headers=fields)

    async def tell(self, number: str, body: bytes) -> bytes:
        return answer(number, body)


# -- late ---------------------------------------------------------------------------------------------------


@fngw.deployment(name="late", request_timeout_s=LATE_S, max_concurrent_queries=4)
async def Late(request: Any) -> Any:
    """Never finish: answers nothing, or a part."""
    from starlette.responses import StreamingResponse

    kind, number, query = asked(request.scope)
    if kind != "stream":
        await asyncio.sleep(FOREVER_S)
    return StreamingResponse(stream(number, query), headers={"soak-number": number})
