"""What a row of the corpus is, and how it is played: raw bytes in, and what must come of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import h11

from .h11_ends import Answer, Caller, Line, Replica

__all__ = ["HOST", "SMUGGLED", "Case", "bad", "get", "play", "post", "replica_of", "reply"]

HOST = b"Host: t\r\n"
#: Comes after a request that is refused: must never be taken for a request of its own.
SMUGGLED = b"GET /f/smuggled HTTP/1.1\r\nHost: t\r\n\r\n"


@dataclass(frozen=True)
class Case:
    """One row.

    Args:
        name: what it is about.
        sent: what the client writes, part by part.
        statuses: of the answers, in order.
        kept: whether another request on the same connection is answered after that; else it is closed.
        reached: what the replica was asked, whole: method, target and body.
        methods: of the requests that are answered.
        has, lacks: header lines, and names, of the last answer.
        passed, held: what must, and must not, be among the bytes that the replica received.
        body: of the last answer, where it is not the echo.
        cut: whether the last answer breaks off.
        answer: what the replica answers to ``/f/case`` with, part by part.
        early: whether it does so before it reads the body.
        closes: whether it then closes the connection.
        lines: connections that the replica sees in all, with the request after the case; None: any number.
        timeout_s: the deployment's ``request_timeout_s``.
        nginx: why nginx rightly does something else; empty where it must agree.
    """

    name: str
    sent: tuple[bytes, ...]
    statuses: tuple[int, ...] = (200,)
    kept: bool = True
    reached: tuple[bytes, ...] = ()
    methods: tuple[str, ...] = ()
    has: tuple[bytes, ...] = ()
    lacks: tuple[bytes, ...] = ()
    passed: tuple[bytes, ...] = ()
    held: tuple[bytes, ...] = ()
    body: bytes | None = None
    cut: bool = False
    answer: tuple[bytes, ...] | None = None
    early: bool = False
    closes: bool = False
    lines: int | None = None
    timeout_s: float | None = None
    nginx: str = ""


def get(target: bytes = b"/f/x", *fields: bytes) -> bytes:
    """A request without a body; each of ``fields`` is a header line without its end."""
    return b"GET %b HTTP/1.1\r\n%b%b\r\n" % (target, HOST, b"".join(field + b"\r\n" for field in fields))


def post(rest: bytes, *fields: bytes) -> bytes:
    """A POST whose framing is in ``fields``, and what follows its head."""
    return b"POST /f/x HTTP/1.1\r\n%b%b\r\n%b" % (HOST, b"".join(field + b"\r\n" for field in fields), rest)


def bad(name: str, request: bytes, status: int = 400, *, lines: int | None = 1, nginx: str = "") -> Case:
    """A request that is refused: one answer, the connection closed, nothing of it at the replica."""
    return Case(name, (request + SMUGGLED,), (status,), kept=False, lines=lines, nginx=nginx)


def reply(
    name: str, *answer: bytes, body: bytes | None = b"", status: int = 200, lines: int = 1, **more: object
) -> Case:
    """A GET that the replica answers with these bytes."""
    fields = {"sent": (get(b"/f/case"),), "statuses": (status,), "body": body, "answer": answer, "lines": lines}
    return Case(f"answered: {name}", **{**fields, **more})  # type: ignore[arg-type]


def replica_of(case: Case) -> Replica:
    """Return a replica that does what the row says."""
    replica = Replica()

    async def act(line: Line) -> bool:
        assert case.answer is not None
        if not case.early and await line.body() is None:
            return False
        for part in case.answer:
            line.writer.write(part)
            await line.writer.drain()
        if case.closes:
            return False
        if line.parser.their_state is h11.DONE:
            line.answered()
            return True
        await line.body()
        return False

    if case.answer is not None:
        replica.act = act
    return replica


async def play(case: Case, call: Callable[[], Awaitable[Caller]]) -> list[Answer]:
    """Send the case's bytes, read its answers, and see whether the connection is kept."""
    caller = await call()
    try:
        await caller.send(*case.sent)
        answers = []
        for n, status in enumerate(case.statuses):
            answer = await caller.answer(case.methods[n] if n < len(case.methods) else "GET")
            assert answer is not None, f"no answer: expected {status}"
            answers.append(answer)
        if case.kept:
            await _next(caller)
        else:
            assert await caller.ended(), "the connection stays open"
    finally:
        caller.close()
    return answers


async def _next(caller: Caller) -> None:
    """The next request on this connection gets its own answer."""
    await caller.send(get(b"/f/next"))
    answer = await caller.answer()
    assert answer is not None, "the connection ended"
    assert (answer.status, answer.body) == (200, b"GET /f/next "), answer
