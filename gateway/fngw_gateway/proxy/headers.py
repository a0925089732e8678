"""Heads of requests to replicas and headers of their answers. Pure.

Hop-by-hop headers end here (RFC 9110 §7.6.1), those named in ``Connection`` included. Private headers
(``fngw-*``) end here in both directions. Framing is never passed on but made anew.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from fngw import protocol

__all__ = [
    "HOP_BY_HOP",
    "PRIVATE",
    "REQUEST_ID",
    "RequestHead",
    "answer_headers",
    "connection_names",
    "is_at_capacity",
    "read_request",
    "request_id",
]

Header = tuple[bytes, bytes]

PRIVATE = b"fngw-"
REQUEST_ID = protocol.REQUEST_ID_HEADER.encode()
_AT_CAPACITY = protocol.AT_CAPACITY_HEADER.encode()
#: Private ones that go on to the replica, where the dispatcher sends them.
_OF_CALL = frozenset({protocol.CALL_ID_HEADER.encode(), protocol.ATTEMPT_HEADER.encode()})
_VALID_ID = re.compile(rb"[\x21-\x7e]{1,128}")

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
#: What the gateway reads or writes itself; all else is passed on as it is.
_READ = HOP_BY_HOP | {b"content-length", b"expect", b"prefer", b"x-forwarded-for", REQUEST_ID}
_WRITTEN = frozenset({b"x-forwarded-proto", b"x-forwarded-host"})
_HANDLED = _READ | _WRITTEN
#: Naming these in ``Connection`` does not remove them: the request would mean something else without.
_KEPT = frozenset({b"host", b"close", b"keep-alive"})
#: Of an answer: also what this gateway states itself. ``date`` is added by its server.
_NOT_ANSWERED = HOP_BY_HOP | {REQUEST_ID, b"date"}


@dataclass(slots=True)
class RequestHead:
    """What the gateway knows of a request's headers.

    ``lines`` are the header lines for the replica, without framing. ``length`` is the declared length of the
    body, None for a chunked one, 0 for none.
    """

    lines: list[bytes]
    request_id: bytes
    length: int | None = 0
    framed: bool = False
    coding: bytes = b""
    expects: bool = False
    prefer: bytes = b""


def request_id(headers: Iterable[Header]) -> bytes:
    """Return the caller's request id if it sent a usable one, else a new one."""
    for name, value in headers:
        if name == REQUEST_ID and _VALID_ID.fullmatch(value):
            return value
    return _new_id()


def _new_id() -> bytes:
    return b"%032x" % random.getrandbits(128)  # no secret: uuid4 asks the kernel, and takes four times as long


def read_request(scope: Any, drop: frozenset[bytes] = frozenset()) -> RequestHead:
    """Read a request's headers once: what to pass on, and what it says about its body.

    Args:
        scope: ASGI's, of a request.
        drop: further names not to pass on (lower case).
    """
    headers: list[Header] = scope["headers"]
    lines: list[bytes] = []
    special: list[Header] = []
    host: bytes | None = None
    for name, value in headers:
        if name in _HANDLED:
            special.append((name, value))
        elif not name.startswith(PRIVATE) and name not in drop:
            lines += (name, b": ", value, b"\r\n")
            if name == b"host":
                host = value
        elif name in _OF_CALL and scope["server"][1] is None:  # the Unix socket: nobody from outside
            lines += (name, b": ", value, b"\r\n")
    head = RequestHead(lines, b"")
    forwarded = _read_special(head, special)
    client = scope.get("client")
    if client:
        forwarded += client[0].encode()
    else:  # a replica, or the dispatcher, which says whose call it is
        forwarded = forwarded[:-2] or b"unknown"
    if host is None:  # of HTTP/1.0; what is passed on is 1.1, and needs one
        host = b""
        lines.append(b"host: \r\n")
    lines.append(b"x-forwarded-for: %b\r\n" % forwarded)
    lines.append(b"x-forwarded-proto: %b\r\nx-forwarded-host: %b\r\n" % (scope["scheme"].encode(), host))
    if not head.request_id:
        head.request_id = _new_id()
    lines.append(b"x-request-id: %b\r\n" % head.request_id)
    return head


def _read_special(head: RequestHead, special: list[Header]) -> bytes:
    """Take in the headers that the gateway handles itself; return the ``X-Forwarded-For`` so far."""
    forwarded = named = b""
    for name, value in special:
        if name == b"content-length":
            head.length, head.framed = int(value), True
        elif name == b"transfer-encoding":
            coding = value.strip().lower()
            head.length, head.framed = None, True
            head.coding = head.coding + b", " + coding if head.coding else coding
        elif name == b"x-forwarded-for":
            forwarded += value + b", "
        elif name == REQUEST_ID:
            if not head.request_id and _VALID_ID.fullmatch(value):
                head.request_id = value
        elif name == b"expect":
            head.expects = value.strip().lower() == b"100-continue"
        elif name == b"prefer":
            head.prefer += b", " + value
            head.lines += (name, b": ", value, b"\r\n")
        elif name == b"connection":
            named += value + b","
    if named:
        _drop_named(head.lines, named)
    return forwarded


def _drop_named(lines: list[bytes], connection: bytes) -> None:
    """Remove the header lines that ``Connection`` names; ``lines`` holds four items per header."""
    named = connection_names(connection)
    if named:
        kept = [lines[i : i + 4] for i in range(0, len(lines), 4) if lines[i] not in named]
        lines[:] = [part for header in kept for part in header]


def connection_names(value: bytes) -> frozenset[bytes]:
    """Return the header names that a ``Connection`` header asks to remove."""
    return frozenset(token.strip() for token in value.lower().split(b",")) - _KEPT - {b""}


# -- answers ----------------------------------------------------------------------------------------------


def is_at_capacity(status: int, headers: list[Header]) -> bool:
    """Whether this is the replica's private way to say that it is full."""
    return status == 503 and any(name == _AT_CAPACITY for name, _ in headers)


def answer_headers(status: int, headers: list[Header], own: tuple[Header, ...]) -> list[Header]:
    """Return the headers for the client.

    Args:
        status: of the answer.
        headers: the replica's, names in lower case.
        own: what the gateway adds.
    """
    passed = [h for h in headers if h[0] not in _NOT_ANSWERED and not h[0].startswith(PRIVATE)]
    for name, value in headers:
        if name == b"connection" and (named := connection_names(value)):
            passed = [h for h in passed if h[0] not in named]
    if status in (204, 304):  # no body follows; the server would wait for one (RFC 9110 §8.6 allows to omit it)
        passed = [h for h in passed if h[0] != b"content-length"]
    passed += own
    return passed
