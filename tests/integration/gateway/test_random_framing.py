"""Framing by hypothesis: however bytes are split, wherever they break off, a body arrives whole or not at all."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .conftest import Site
from .corpus import HOST
from .ground import Ground, all_quiet, call, shared_site, works
from .h11_ends import Answer, Caller, Line, Replica
from .wire import eventually

#: The same examples each time: a failure is of the change that is tested. To look further: `derandomize=False`.
EXAMPLES = settings(
    max_examples=150,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
NAMES = st.text("abcdefghijklmnopqrstuvwxyzABC0123456789-_.!#$%&'*+^`|~", min_size=1, max_size=20)
VALUES = st.binary(max_size=30).map(lambda value: bytes(b for b in value if b >= 32 and b != 127).strip())
FIELDS = st.lists(st.tuples(NAMES.map(lambda name: b"x-" + name.encode()), VALUES), max_size=8)
BODIES = st.lists(st.binary(max_size=3000), max_size=5)
CUTS = st.lists(st.integers(0, 6000), max_size=8)


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    with shared_site() as ground:
        yield ground


def framed(pieces: list[bytes], *, chunked: bool) -> tuple[bytes, bytes]:
    """The header line for a body of these pieces, and its bytes."""
    if not chunked:
        return b"Content-Length: %d\r\n" % sum(map(len, pieces)), b"".join(pieces)
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces if piece)
    return b"Transfer-Encoding: chunked\r\n", chunks + b"0\r\n\r\n"


def written(fields: list[tuple[bytes, bytes]]) -> bytes:
    return b"".join(b"%b: %b\r\n" % field for field in fields)


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    marks = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    return [data[start:end] for start, end in itertools.pairwise(marks)]


async def trickle(writer: asyncio.StreamWriter, parts: list[bytes]) -> None:
    """Write parts so that each is a read of its own, as far as one process can see to that."""
    for part in parts:
        writer.write(part)
        await writer.drain()
        await asyncio.sleep(0)


class Answering(Replica):
    """A replica that answers ``/f/case`` with these bytes, part by part, and is gone after ``most`` of them.

    ``got`` is what h11 read of the last such request.
    """

    def __init__(self, parts: list[bytes] | None = None, most: int | None = None) -> None:
        super().__init__(self._answer)
        self.parts, self.most = parts or [], most
        self.fields: list[tuple[bytes, bytes]] = []
        self.got: bytes | None = None

    async def _answer(self, line: Line) -> bool:
        if await line.body() is None:
            return False
        data = b"".join(self.parts)
        if self.most is not None:
            line.writer.write(data[: self.most])
            return False
        await trickle(line.writer, self.parts)
        line.answered()
        return True


def has_all(passed: list[tuple[bytes, bytes]], fields: list[tuple[bytes, bytes]]) -> bool:
    """Whether the headers arrived, in their order."""
    mine = [(name.lower(), value) for name, value in fields]
    return [field for field in passed if field[0].startswith(b"x-") and field in mine] == mine


@EXAMPLES
@given(fields=FIELDS, pieces=BODIES, chunked=st.booleans(), cuts=CUTS, twice=st.booleans())
def test_requests_arrive_as_they_were_sent(
    ground: Ground,
    fields: list[tuple[bytes, bytes]],
    pieces: list[bytes],
    chunked: bool,
    cuts: list[int],
    twice: bool,
) -> None:
    framing, body = framed(pieces, chunked=chunked)
    request = b"POST /f/any HTTP/1.1\r\n" + HOST + written(fields) + framing + b"\r\n" + body
    said = b"POST /f/any " + b"".join(pieces)

    async def work(site: Site) -> None:
        replica = Replica()
        await site.one(replica.script)
        caller = await call(site)
        await trickle(caller.writer, split(request * (1 + twice), cuts))
        for _ in range(1 + twice):
            answer = await caller.answer()
            assert answer is not None
            assert (answer.status, answer.body) == (200, said)
        await works(caller)
        caller.close()
        assert replica.faults == []
        assert all(name.lower() + b": " + value in replica.raw for name, value in fields)
        await all_quiet(site)

    ground.run(work)


@EXAMPLES
@given(fields=FIELDS, pieces=BODIES, chunked=st.booleans(), cuts=CUTS)
def test_answers_arrive_as_they_were_sent(
    ground: Ground, fields: list[tuple[bytes, bytes]], pieces: list[bytes], chunked: bool, cuts: list[int]
) -> None:
    framing, body = framed(pieces, chunked=chunked)
    reply = b"HTTP/1.1 200 OK\r\n" + written(fields) + framing + b"\r\n" + body

    async def work(site: Site) -> None:
        replica = Answering(split(reply, cuts))
        await site.one(replica.script)
        caller = await call(site)
        answer = await ask(caller)
        assert answer is not None
        assert answer.body == b"".join(pieces)
        assert has_all(answer.headers, fields)
        await works(caller)
        caller.close()
        assert len(replica.lines) == 1
        await all_quiet(site)

    ground.run(work)


async def ask(caller: Caller) -> Answer | None:
    await caller.send(b"GET /f/case HTTP/1.1\r\n" + HOST + b"\r\n")
    return await caller.answer()


BODY = [b"hello", b" there, ", b"this is a body"]


@pytest.mark.parametrize("chunked", [False, True])
def test_a_client_that_leaves_after_any_byte(ground: Ground, chunked: bool) -> None:
    """Nothing of it is taken for whole, nothing of it stays."""
    framing, body = framed(BODY, chunked=chunked)
    request = b"POST /f/any HTTP/1.1\r\n" + HOST + framing + b"\r\n" + body

    async def leave(site: Site, n: int) -> None:
        caller = await call(site)
        await caller.send(request[:n])
        if n % 2:
            caller.writer.write_eof()
            assert await caller.ended()
        caller.close()

    async def work(site: Site) -> None:
        replica = Replica()
        await site.one(replica.script)
        for start in range(0, len(request), 10):
            await asyncio.gather(*(leave(site, n) for n in range(start, min(start + 10, len(request)))))
        await all_quiet(site)
        assert replica.reached == []
        assert replica.faults == []
        caller = await call(site)
        await works(caller)
        caller.close()
        await eventually(lambda: sum(not line.over for line in replica.lines) == 1)

    ground.run(work)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_replica_that_leaves_after_any_byte(ground: Ground, chunked: bool) -> None:
    """The client gets the whole answer, a 502, or one that is seen to be cut off."""
    framing, body = framed(BODY, chunked=chunked)
    reply = b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n" + body
    begun = len(reply) - len(body)

    async def work(site: Site) -> None:
        replica = Answering([reply])
        await site.one(replica.script)
        for replica.most in range(len(reply) + 1):
            caller = await call(site)
            answer = await ask(caller)
            assert answer is not None
            if replica.most < begun:
                assert (answer.status, answer.cut) == (502, False)
                await works(caller)
            elif replica.most < len(reply):
                assert (answer.status, answer.cut) == (200, True)
                assert b"".join(BODY).startswith(answer.body)
            else:
                assert (answer.status, answer.body, answer.cut) == (200, b"".join(BODY), False)
                await works(caller)
            caller.close()
            await all_quiet(site)

    ground.run(work)


@EXAMPLES
@given(data=st.binary(max_size=200), cuts=CUTS)
def test_any_bytes_instead_of_a_request(ground: Ground, data: bytes, cuts: list[int]) -> None:
    """Whatever comes, what goes out is HTTP, and nobody else is harmed."""

    async def work(site: Site) -> None:
        replica = Replica()
        await site.one(replica.script)
        caller = await call(site)
        await trickle(caller.writer, split(b"GET /f/any HTTP/1.1\r\n" + data, cuts))
        caller.writer.write_eof()
        while (answer := await caller.answer()) is not None and answer.get(b"connection") != b"close":
            pass
        caller.close()
        assert replica.faults == []
        other = await call(site)
        await works(other)
        other.close()
        await all_quiet(site)

    ground.run(work)


@EXAMPLES
@given(data=st.binary(max_size=200), cuts=CUTS)
def test_any_bytes_instead_of_an_answer(ground: Ground, data: bytes, cuts: list[int]) -> None:
    async def work(site: Site) -> None:
        replica = Answering([b"HTTP/1.1 200 OK\r\n" + data], most=10_000)
        await site.one(replica.script)
        caller = await call(site)
        answer = await ask(caller)
        assert answer is not None
        assert answer.cut or answer.status in (200, 502)
        caller.close()
        other = await call(site)
        await works(other)
        other.close()
        await all_quiet(site)

    ground.run(work)
