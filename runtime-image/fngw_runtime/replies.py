"""Answers that the runtime itself sends, as ASGI messages."""

from __future__ import annotations

import json
from typing import Any, Awaitable, Callable, Dict, Iterable, List, MutableMapping, Optional, Tuple

from fngw import protocol
from fngw.errors import FngwError, to_problem

__all__ = ["Message", "Outbox", "Receive", "Scope", "Send", "send_body", "send_json", "send_problem"]

Message = MutableMapping[str, Any]
Scope = Dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = List[Tuple[bytes, bytes]]


class Outbox:
    """An ASGI ``send`` for an HTTP answer that remembers whether it has begun.

    Args:
        send: the server's.
        prefix: ``"websocket."`` to refuse a WebSocket with an answer (its ``http.response`` extension).
    """

    __slots__ = ("_prefix", "_send", "started")

    def __init__(self, send: Send, prefix: str = "") -> None:
        self._send = send
        self._prefix = prefix
        self.started = False

    async def __call__(self, message: Message) -> None:
        self.started = True
        if self._prefix:
            message["type"] = self._prefix + message["type"]
        await self._send(message)


async def send_body(
    send: Send, status: int, parts: Iterable[Any], content_type: str = "", headers: Optional[Headers] = None
) -> None:
    """Send a whole answer; ``parts`` are bytes-like and written one after the other without being joined."""
    pieces = [part for part in parts if len(part)]
    fields = [(b"content-length", str(sum(map(len, pieces))).encode())]
    if content_type:
        fields.append((b"content-type", content_type.encode()))
    await send({"type": "http.response.start", "status": status, "headers": fields + (headers or [])})
    for piece in pieces[:-1]:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": pieces[-1] if pieces else b"", "more_body": False})


async def send_json(send: Send, status: int, value: Any) -> None:
    """Send ``value`` as JSON."""
    await send_body(send, status, [json.dumps(value).encode()], "application/json")


async def send_problem(send: Send, error: FngwError, headers: Optional[Headers] = None) -> None:
    """Send ``error`` as a problem document, under its own status."""
    body = json.dumps(to_problem(error)).encode()
    await send_body(send, error.status, [body], protocol.PROBLEM_TYPE, headers)
