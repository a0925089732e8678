"""WebSocket frames (RFC 6455): bytes in, whole messages out. Pure: no sockets, no clock.

The runtime speaks WebSocket itself, so that an ingress app needs no WebSocket package in its environment.
"""

from __future__ import annotations

import base64
import hashlib
import struct
from dataclasses import dataclass
from typing import List, Optional

__all__ = ["BINARY", "CLOSE", "PING", "PONG", "TEXT", "Frame", "Malformed", "Parser", "accept_key", "encode_frame"]

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
_KNOWN = (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG)
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3

PROTOCOL_ERROR, BAD_TEXT, TOO_BIG = 1002, 1007, 1009
#: Registered codes end here; those among them that only tell a program what happened to it.
LAST_CODE = 1014
_NEVER_SENT = (1004, 1005, 1006)


class Malformed(Exception):
    """The peer broke the protocol; ``code`` is the close code to tell it by."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@dataclass(frozen=True)
class Frame:
    """A whole message (``TEXT``, ``BINARY``), or a control frame."""

    opcode: int
    payload: bytes

    def close_code(self) -> int:
        """The code of a close frame; 1005 where it names none (section 7.1.5)."""
        return struct.unpack_from(">H", self.payload)[0] if len(self.payload) >= 2 else 1005

    def close_reason(self) -> str:
        """The reason of a close frame."""
        return self.payload[2:].decode("utf-8", "replace")


def accept_key(key: bytes) -> bytes:
    """Return the ``Sec-WebSocket-Accept`` for a ``Sec-WebSocket-Key``.

    Example:
        >>> accept_key(b"dGhlIHNhbXBsZSBub25jZQ==")
        b's3pPLMBiTxaQ9kYGzzhZRbK+xOo='
    """
    return base64.b64encode(hashlib.sha1(key + _GUID).digest())


def encode_frame(opcode: int, payload: bytes) -> bytes:
    """Return one final, unmasked frame, as servers send them."""
    size = len(payload)
    if size < 126:
        head = struct.pack(">BB", 0x80 | opcode, size)
    elif size < 65536:
        head = struct.pack(">BBH", 0x80 | opcode, 126, size)
    else:
        head = struct.pack(">BBQ", 0x80 | opcode, 127, size)
    return head + payload


class Parser:
    """Collects a client's bytes into messages.

    Args:
        limit: the largest message in bytes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._data = bytearray()
        self._opcode: Optional[int] = None  # of the message that fragments belong to
        self._fragments = bytearray()

    def feed(self, data: bytes) -> List[Frame]:
        """Take bytes; return what they complete.

        Raises:
            Malformed: the connection is to be closed with its code.
        """
        self._data += data
        done: List[Frame] = []
        while True:
            frame = self._next()
            if frame is None:
                return done
            if frame.opcode >= 0:
                done.append(frame)

    def _next(self) -> Optional[Frame]:
        """Take one frame off the data. A fragment that completes nothing has the opcode -1."""
        data = self._data
        if len(data) < 2:
            return None
        final, opcode, size = data[0] & 0x80, data[0] & 0x0F, data[1] & 0x7F
        self._check_head(data[0], data[1])
        offset = {126: 4, 127: 10}.get(size, 2)
        if len(data) < offset:
            return None
        if size > 125:
            (size,) = struct.unpack_from(">H" if size == 126 else ">Q", data, 2)
        if len(self._fragments) + size > self._limit:
            raise Malformed(TOO_BIG, f"a message is larger than {self._limit} bytes")
        end = offset + 4 + size
        if len(data) < end:
            return None
        payload = _unmask(bytes(data[offset + 4 : end]), bytes(data[offset : offset + 4]))
        del data[:end]
        if opcode == CLOSE:
            _check_close(payload)
        return Frame(opcode, payload) if opcode >= CLOSE else self._collect(bool(final), opcode, payload)

    def _check_head(self, first: int, second: int) -> None:
        opcode = first & 0x0F
        if first & 0x70 or opcode not in _KNOWN:
            raise Malformed(PROTOCOL_ERROR, "an extension was used that was not agreed on")
        if not second & 0x80:
            raise Malformed(PROTOCOL_ERROR, "a client's frame must be masked")
        if opcode >= CLOSE and (not first & 0x80 or second & 0x7F > 125):
            raise Malformed(PROTOCOL_ERROR, "a control frame must be whole and short")
        if opcode < CLOSE and (opcode == CONTINUATION) != (self._opcode is not None):
            raise Malformed(PROTOCOL_ERROR, "a fragment out of order")

    def _collect(self, final: bool, opcode: int, payload: bytes) -> Frame:
        if self._opcode is None:
            self._opcode = opcode
        self._fragments += payload
        if not final:
            return Frame(-1, b"")
        message = Frame(self._opcode, bytes(self._fragments))
        self._opcode = None
        self._fragments = bytearray()
        return message


def _check_close(payload: bytes) -> None:
    """A close frame has no body, or a code that may be sent (section 7.4) and a reason in UTF-8."""
    if not payload:
        return
    code = struct.unpack_from(">H", payload)[0] if len(payload) > 1 else 0
    if not (3000 <= code < 5000 or (1000 <= code <= LAST_CODE and code not in _NEVER_SENT)):
        raise Malformed(PROTOCOL_ERROR, "a close frame's code is none that may be sent")
    try:
        payload[2:].decode("utf-8")
    except UnicodeDecodeError as error:
        raise Malformed(BAD_TEXT, "a close frame's reason is not UTF-8") from error


def _unmask(payload: bytes, key: bytes) -> bytes:
    """Exclusive-or with the repeated key, as one large number: a hundred times faster than byte by byte."""
    size = len(payload)
    pad = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(pad, "big")).to_bytes(size, "big")
