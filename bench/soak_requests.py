"""What the soak asks, as bytes; what the one right answer is; and whether an answer is that. Pure."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

from soak_app import PART, answer, part

from fngw import protocol

__all__ = ["KINDS", "Answer", "Request", "Wrong", "check", "make", "never_ending", "shaped", "small", "stream"]

IDEMPOTENT = frozenset({"GET", "HEAD", "PUT"})
UPLOAD = 300 * 1024
_NOISE = random.Random(0).randbytes(UPLOAD + 4096)


class Wrong(Exception):
    """An answer that belongs to another request, or was made up: the soak ends at once."""


@dataclass(slots=True)
class Answer:
    """What came: ``status`` 0 when no head did; ``whole`` tells whether its end came."""

    status: int = 0
    fields: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """One request, and what answers it.

    ``outcome`` is what the answer has to be: ``right``; ``cut``, a true beginning with no end; ``504``; or
    ``late``, either of these two.
    """

    number: str
    kind: str
    deployment: str
    method: str
    data: bytes
    body: bytes
    outcome: str = "right"

    @property
    def idempotent(self) -> bool:
        return self.method in IDEMPOTENT

    @property
    def head_only(self) -> bool:
        return self.method == "HEAD"


# -- asking -------------------------------------------------------------------------------------------------


def _head(method: str, path: str, number: str, *more: str) -> bytes:
    lines = (f"{method} {path} HTTP/1.1", "host: soak", f"x-request-id: soak-{number}", *more, "", "")
    return "\r\n".join(lines).encode()


def _sized(method: str, kind: str, deployment: str, number: str, body: bytes) -> Request:
    head = _head(method, f"/{deployment}/echo/{number}", number, f"content-length: {len(body)}")
    return Request(number, kind, deployment, method, head + body, answer(number, body))


def _noise(rng: random.Random, size: int) -> bytes:
    start = rng.randrange(4096)
    return _NOISE[start : start + size]


def get(rng: random.Random, deployment: str, number: str) -> Request:
    path = f"/{deployment}/echo/{number}"
    return Request(number, "GET", deployment, "GET", _head("GET", path, number), answer(number, b""))


def head(rng: random.Random, deployment: str, number: str) -> Request:
    path = f"/{deployment}/echo/{number}"
    return Request(number, "HEAD", deployment, "HEAD", _head("HEAD", path, number), b"")


def post(rng: random.Random, deployment: str, number: str) -> Request:
    return _sized("POST", "POST 1 KiB", deployment, number, _noise(rng, 1024))


def put(rng: random.Random, deployment: str, number: str) -> Request:
    return _sized("PUT", "PUT 1 KiB", deployment, number, _noise(rng, 1024))


def upload(rng: random.Random, deployment: str, number: str) -> Request:
    return _sized("POST", "POST 300 KiB", deployment, number, _noise(rng, UPLOAD))


def chunked(rng: random.Random, deployment: str, number: str) -> Request:
    body = _noise(rng, rng.randrange(1, 3000))
    cuts = sorted({0, len(body), *(rng.randrange(len(body)) for _ in range(3))})
    pieces = [body[a:b] for a, b in pairwise(cuts)]
    framed = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    start = _head("POST", f"/{deployment}/echo/{number}", number, "transfer-encoding: chunked")
    data = start + framed + b"0\r\n\r\n"
    return Request(number, "POST chunked", deployment, "POST", data, answer(number, body))


def call(rng: random.Random, deployment: str, number: str) -> Request:
    """A call by handle, as the SDK sends it."""
    body = _noise(rng, 200)
    frame = b"".join(map(bytes, protocol.encode_frame(((number, body), {}))))
    fields = (f"content-type: {protocol.CALL_TYPE}", f"content-length: {len(frame)}")
    data = _head("POST", f"{protocol.CALL_PREFIX}{deployment}/tell", number, *fields) + frame
    return Request(number, "handle", deployment, "POST", data, answer(number, body))


def stream(
    rng: random.Random, deployment: str, number: str, *, parts: int = 4, query: str = "", outcome: str = "right"
) -> Request:
    data = _head("GET", f"/{deployment}/stream/{number}?parts={parts}{query}", number)
    body = b"".join(part(number, n) for n in range(parts))
    return Request(number, f"GET {parts * PART // 1024} KiB", deployment, "GET", data, body, outcome)


def never_ending(rng: random.Random, number: str) -> Request:
    """A request that exceeds its time limit: before its answer begins, or in the middle of it."""
    if rng.random() < 0.5:
        data = _head("GET", f"/late/echo/{number}", number)
        return Request(number, "too late", "late", "GET", data, b"", "504")
    return stream(rng, "late", number, query="&hang=2", outcome="late")


Maker = Callable[[random.Random, str, str], Request]
#: Every kind of ordinary request, and how many of 1000 it is.
KINDS: dict[Maker, int] = {
    get: 470,
    post: 200,
    chunked: 100,
    stream: 80,
    call: 80,
    put: 50,
    head: 15,
    upload: 5,
}
SMALL: dict[Maker, int] = {get: 6, post: 2, chunked: 1, put: 1}


def make(rng: random.Random, deployment: str, number: str) -> Request:
    """Return any ordinary request."""
    return shaped(rng, KINDS, deployment, number)


def small(rng: random.Random, deployment: str, number: str) -> Request:
    """Return one that can be sent behind others, without waiting for their answers."""
    return shaped(rng, SMALL, deployment, number)


def shaped(rng: random.Random, kinds: dict[Maker, int], deployment: str, number: str) -> Request:
    """Return one of ``kinds``, by their weights."""
    (maker,) = rng.choices(list(kinds), weights=kinds.values())
    return maker(rng, deployment, number)


# -- answers ------------------------------------------------------------------------------------------------


def check(request: Request, found: Answer) -> bool:
    """Tell whether this is the right answer; False for an error, or half an answer, to this very request.

    Raises:
        Wrong: it is none to this request at all.
    """
    if not found.status:
        return False
    if found.fields.get(b"x-request-id") != b"soak-" + request.number.encode():
        raise Wrong(f"request {request.number}: the answer is to {found.fields.get(b'x-request-id')!r}")
    if found.status != 200:
        return False
    if request.kind != "handle" and found.fields.get(b"soak-number") != request.number.encode():
        raise Wrong(f"request {request.number}: answered to {found.fields.get(b'soak-number')!r}")
    if request.kind == "handle" and not found.whole:
        return False  # half a frame
    body = _result(found) if request.kind == "handle" else found.body
    if found.whole and body == request.body:
        return True
    if found.whole or not request.body.startswith(body):
        raise Wrong(f"request {request.number} ({request.kind}): answered {body[:200]!r} ({len(body)} bytes)")
    return False


def _result(found: Answer) -> bytes:
    if found.fields.get(b"content-type") != protocol.RESULT_TYPE.encode():
        return found.body
    value: bytes = protocol.decode_frame(found.body)
    return value
