"""WebSocket connections, as the protocol class that uvicorn hands an upgraded connection to.

Made for every uvicorn: it wants only ``config.loaded_app`` and ``server_state`` of it, and is handed the
request's head again as bytes.
"""

from __future__ import annotations

import asyncio
import struct
from typing import Any, Dict, List, Optional, Tuple
from urllib.parse import unquote

from fngw_runtime import frames
from fngw_runtime.frames import Frame, Malformed
from fngw_runtime.replies import Message, Scope

__all__ = ["ClientLeft", "WebSocketProtocol"]

#: Bytes of one message, as uvicorn's own default; and messages held before the socket is read no further.
LARGEST_MESSAGE = 16 * 1024 * 1024
MOST_HELD = 32

#: Seconds that a client has to read the last of what it was sent, and to close; what it sends is forgotten.
LINGER_S = 2.0

GONE, RESTARTING, FAULT = 1006, 1012, 1011
CONNECTING, OPEN, REFUSING, CLOSED = "connecting", "open", "refusing", "closed"
VERSION = b"13"

#: What an app may send, and in which state.
_ALLOWED: Dict[str, Tuple[str, ...]] = {
    "accept": (CONNECTING,),
    "send": (OPEN,),
    "close": (CONNECTING, OPEN),
    "http.response.start": (CONNECTING,),
    "http.response.body": (REFUSING,),
}


class ClientLeft(OSError):
    """Sending to a client that has left (ASGI, spec version 2.4)."""


class WebSocketProtocol(asyncio.Protocol):
    """One connection: the handshake, the messages, and the ASGI app between them."""

    def __init__(self, config: Any, server_state: Any, app_state: Any = None, _loop: Any = None) -> None:
        self._app = config.loaded_app
        self._server = server_state
        self._parser = frames.Parser(LARGEST_MESSAGE)
        self._head = bytearray()
        self._state = CONNECTING
        self._key = b""
        self._events: asyncio.Queue[Message] = asyncio.Queue()
        self._writable = asyncio.Event()
        self._writable.set()
        self._transport: Any = None
        self._disconnected: Optional[Message] = None
        self._lingering: Optional[asyncio.TimerHandle] = None

    # -- what the server calls ----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._server.connections.add(self)

    def data_received(self, data: bytes) -> None:
        if self._state == CLOSED:
            return
        if not self._key:
            self._receive_head(data)
        elif self._disconnected is None:
            try:
                for frame in self._parser.feed(data):
                    self._receive_frame(frame)
            except Malformed as error:
                self._close(error.code, error.reason)

    def connection_lost(self, error: Optional[Exception]) -> None:
        self._server.connections.discard(self)
        if self._lingering is not None:
            self._lingering.cancel()
        self._disconnect(GONE, "")
        self._state = CLOSED
        self._writable.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def restart(self) -> None:
        """Close an open one: "service restart", so that the client connects again."""
        if self._state == OPEN:
            self._close(RESTARTING, "")

    def shutdown(self) -> None:
        """Close, because the server stops."""
        self.restart()
        self._transport.close()

    # -- the handshake ------------------------------------------------------------------------------------

    def _receive_head(self, data: bytes) -> None:
        self._head += data
        head, end, rest = bytes(self._head).partition(b"\r\n\r\n")
        if not end:
            return
        target, headers = _parse_head(head)
        fields = dict(headers)
        self._key = fields.get(b"sec-websocket-key", b"")
        if not self._key or fields.get(b"sec-websocket-version") != VERSION:
            self._answer(426, [(b"sec-websocket-version", VERSION)], b"this needs WebSocket version 13")
            return
        self._events.put_nowait({"type": "websocket.connect"})
        task = asyncio.get_event_loop().create_task(self._run(_make_scope(target, headers)))
        self._server.tasks.add(task)
        task.add_done_callback(self._server.tasks.discard)
        if rest:
            self.data_received(rest)

    def _accept(self, message: Message) -> None:
        headers = [
            (b"upgrade", b"websocket"),
            (b"connection", b"Upgrade"),
            (b"sec-websocket-accept", frames.accept_key(self._key)),
            *message.get("headers", []),
        ]
        if message.get("subprotocol"):
            headers.append((b"sec-websocket-protocol", message["subprotocol"].encode()))
        self._transport.write(_make_head(101, headers))
        self._state = OPEN

    def _answer(self, status: int, headers: List[Tuple[bytes, bytes]], body: bytes) -> None:
        """Refuse the handshake."""
        fields = [(b"connection", b"close"), (b"content-length", str(len(body)).encode()), *headers]
        self._transport.write(_make_head(status, fields) + body)
        self._hang_up()

    # -- frames -------------------------------------------------------------------------------------------

    def _receive_frame(self, frame: Frame) -> None:
        if frame.opcode == frames.PING:
            self._transport.write(frames.encode_frame(frames.PONG, frame.payload))
        elif frame.opcode == frames.CLOSE:
            code = frame.close_code()
            self._disconnect(code, frame.close_reason())
            self._close(code if code != 1005 else 1000, "")
        elif frame.opcode != frames.PONG:
            self._hold(_as_event(frame))

    def _hold(self, event: Message) -> None:
        self._events.put_nowait(event)
        if self._events.qsize() >= MOST_HELD:
            self._transport.pause_reading()

    def _close(self, code: int, reason: str) -> None:
        if self._state == OPEN:
            payload = struct.pack(">H", code) + reason.encode()[:123]
            self._transport.write(frames.encode_frame(frames.CLOSE, payload))
        self._disconnect(code, reason)
        self._hang_up()

    def _hang_up(self) -> None:
        """Send what there is, and close. At once, that would reset the connection of a client that still sends,
        and it might not see the last of it: why it was closed."""
        self._state = CLOSED
        if self._lingering is None and not self._transport.is_closing():
            self._lingering = asyncio.get_event_loop().call_later(LINGER_S, self._transport.close)
            self._transport.write_eof()
            self._transport.resume_reading()

    def _disconnect(self, code: int, reason: str) -> None:
        if self._disconnected is None:
            self._disconnected = {"type": "websocket.disconnect", "code": code, "reason": reason}
            self._events.put_nowait(self._disconnected)

    # -- the app ------------------------------------------------------------------------------------------

    async def _run(self, scope: Scope) -> None:
        """Run the app, which logs its own errors; then close what it left open."""
        try:
            await self._app(scope, self._receive, self._send)
        except (Exception, SystemExit, asyncio.CancelledError):
            self._end(FAULT)
        else:
            self._end(1000)

    def _end(self, code: int) -> None:
        if self._state == CONNECTING:
            self._answer(500, [], b"")
        elif self._state == OPEN:
            self._close(code, "")
        elif self._state == REFUSING:
            self._hang_up()

    async def _receive(self) -> Message:
        if self._disconnected is not None and self._events.empty():
            return self._disconnected
        event = await self._events.get()
        if self._events.qsize() == MOST_HELD - 1 and self._state != CLOSED:
            self._transport.resume_reading()
        return event

    async def _send(self, message: Message) -> None:
        kind = message["type"].partition(".")[2]
        if self._state == CLOSED:
            if kind == "send":
                raise ClientLeft("the client has left")
            return
        if self._state not in _ALLOWED.get(kind, ()):
            raise RuntimeError(f"{message['type']!r} is not allowed now: the connection is {self._state}")
        getattr(self, "_send_" + kind.replace(".", "_"))(message)
        await self._writable.wait()

    def _send_accept(self, message: Message) -> None:
        self._accept(message)

    def _send_send(self, message: Message) -> None:
        text = message.get("text")
        if text is None:
            self._transport.write(frames.encode_frame(frames.BINARY, bytes(message["bytes"])))
        else:
            self._transport.write(frames.encode_frame(frames.TEXT, text.encode()))

    def _send_close(self, message: Message) -> None:
        if self._state == OPEN:
            self._close(message.get("code", 1000), message.get("reason") or "")
        else:
            self._disconnect(GONE, "")
            self._answer(403, [], b"")  # ASGI: to close before accepting is to refuse

    def _send_http_response_start(self, message: Message) -> None:
        headers = [(b"connection", b"close"), *message.get("headers", [])]
        self._transport.write(_make_head(message["status"], headers))
        self._state = REFUSING

    def _send_http_response_body(self, message: Message) -> None:
        self._transport.write(message.get("body", b""))
        if not message.get("more_body", False):
            self._disconnect(GONE, "")
            self._hang_up()


def _parse_head(head: bytes) -> Tuple[bytes, List[Tuple[bytes, bytes]]]:
    """Return the target and the headers of a request's head, which uvicorn has checked and written anew."""
    first, *lines = head.split(b"\r\n")
    fields = [line.partition(b":") for line in lines]
    return first.split(b" ")[1], [(name.strip().lower(), value.strip()) for name, _, value in fields]


def _make_head(status: int, headers: List[Tuple[bytes, bytes]]) -> bytes:
    lines = [b"HTTP/1.1 %d " % status, *[name + b": " + value for name, value in headers]]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def _make_scope(target: bytes, headers: List[Tuple[bytes, bytes]]) -> Scope:
    path, _, query = target.partition(b"?")
    offered = [value for name, value in headers if name == b"sec-websocket-protocol"]
    extensions: Dict[str, Any] = {"websocket.http.response": {}}
    return {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "ws",
        "server": None,
        "client": None,
        "root_path": "",
        "path": unquote(path.decode("ascii")),
        "raw_path": path,
        "query_string": query,
        "headers": headers,
        "subprotocols": [p.strip() for value in offered for p in value.decode("latin-1").split(",")],
        "extensions": extensions,
        "state": {},
    }


def _as_event(frame: Frame) -> Message:
    if frame.opcode == frames.BINARY:
        return {"type": "websocket.receive", "bytes": frame.payload, "text": None}
    try:
        text = frame.payload.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Malformed(frames.BAD_TEXT, "a text message is not UTF-8") from error
    return {"type": "websocket.receive", "text": text, "bytes": None}
