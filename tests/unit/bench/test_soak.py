"""What the soak holds against fngw: it must notice what it is there for."""

from __future__ import annotations

import asyncio
import random
import time

import pytest
import soak_requests as requests
from soak_app import answer
from soak_book import Book
from soak_link import Link
from soak_requests import Answer, Request, Wrong, check
from soak_watch import Held, Sample, leaks, slope

RNG = random.Random(1)
GET = requests.get(RNG, "frail", "7")
POST = requests.post(RNG, "frail", "8")
STREAM = requests.stream(RNG, "frail", "9")
LATE = requests.stream(RNG, "late", "11", query="&hang=2", outcome="late")
CUT = requests.stream(RNG, "steady", "10", query="&break=1", outcome="cut")


def right(request: Request, **changed: object) -> Answer:
    number = request.number.encode()
    fields = {b"x-request-id": b"soak-" + number, b"soak-number": number}
    given = {"status": 200, "fields": fields, "body": request.body, "whole": True, **changed}
    return Answer(**given)


def problem(request: Request, status: int, code: str) -> Answer:
    found = right(request, status=status, body=b'{"code": "%b"}' % code.encode())
    found.fields[b"content-type"] = b"application/problem+json"
    return found


# -- answers to other requests ------------------------------------------------------------------------------


@pytest.mark.parametrize("request_", [GET, POST, STREAM], ids=lambda request: request.kind)
def test_the_right_answer_is_right(request_):
    assert check(request_, right(request_))


@pytest.mark.parametrize(
    "found",
    [
        right(GET),
        right(POST, fields=right(GET).fields),
        right(POST, body=GET.body),
        right(POST, body=POST.body + b"x"),
        right(POST, body=POST.body[:-1]),
        right(POST, body=answer("8", b"another body")),
        right(POST, body=b"x", whole=False),
        right(POST, status=502, fields=right(GET).fields),
    ],
)
def test_an_answer_to_another_request_is_wrong(found):
    with pytest.raises(Wrong):
        check(POST, found)


def test_a_part_of_a_stream_from_elsewhere_is_wrong():
    mixed = STREAM.body[:20_000] + CUT.body[20_000:30_000]
    with pytest.raises(Wrong):
        check(STREAM, right(STREAM, body=mixed, whole=False))
    assert not check(STREAM, right(STREAM, body=STREAM.body[:20_000], whole=False))


async def connected(answers: bytes) -> tuple[asyncio.Server, Link]:
    """A connection to a server that sends this, whatever it is asked."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answers)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    return server, await Link.open(server.sockets[0].getsockname()[1])


def raw(request: Request) -> bytes:
    lines = f"HTTP/1.1 200 OK\r\nx-request-id: soak-{request.number}\r\nsoak-number: {request.number}\r\n"
    return lines.encode() + b"content-length: %d\r\n\r\n%b" % (len(request.body), request.body)


async def asked(answers: bytes, *many: Request) -> list[bool]:
    server, link = await connected(answers)
    futures = [link.expect() for _ in many]
    link.write(b"".join(request.data for request in many))
    try:
        return [check(request, await link.wait(future)) for request, future in zip(many, futures, strict=True)]
    finally:
        link.leave()
        server.close()
        await server.wait_closed()


async def test_pipelined_answers_have_to_come_in_order():
    assert await asked(raw(GET) + raw(POST), GET, POST) == [True, True]
    with pytest.raises(Wrong):
        await asked(raw(POST) + raw(GET), GET, POST)


async def test_an_answer_that_nobody_asked_for_is_wrong():
    with pytest.raises(Wrong, match="nobody"):
        await asked(raw(GET) + raw(POST), GET)


async def test_half_an_answer_and_none_are_told_apart_from_whole_ones():
    assert await asked(raw(GET) + raw(STREAM)[:-9], GET, STREAM, POST) == [True, False, False]


# -- the book -----------------------------------------------------------------------------------------------


def entered(request: Request, found: Answer, *, death: bool = False) -> Book:
    book = Book()
    if death:
        book.death()
    book.enter(request, found, time.perf_counter())
    assert book.done == 1
    return book


def test_a_death_explains_a_lost_post_and_a_cut_stream():
    assert not entered(POST, problem(POST, 502, "replica_lost"), death=True).complaints
    assert not entered(STREAM, right(STREAM, body=b"", whole=False), death=True).complaints


def test_what_was_asked_for_is_due():
    assert not entered(CUT, right(CUT, body=b"", whole=False)).complaints
    assert not entered(LATE, right(LATE, body=b"", whole=False)).complaints
    assert not entered(LATE, problem(LATE, 504, "timeout")).complaints


@pytest.mark.parametrize(
    ("request_", "found", "death"),
    [
        (POST, problem(POST, 502, "replica_lost"), False),
        (POST, problem(POST, 503, "overloaded"), True),
        (POST, Answer(), True),
        (GET, problem(GET, 502, "replica_lost"), True),  # it could have been repeated
        (STREAM, right(STREAM, body=b"", whole=False), False),
        (CUT, right(CUT), False),
        (CUT, problem(CUT, 504, "timeout"), False),
        (LATE, problem(LATE, 502, "replica_lost"), False),
    ],
)
def test_what_no_fault_explains_is_held_against_fngw(request_, found, death):
    assert sum(entered(request_, found, death=death).complaints.values()) == 1


async def test_one_can_wait_for_a_count():
    book = Book()
    waiting = asyncio.create_task(book.reached(2))
    for _ in range(2):
        await asyncio.sleep(0)
        assert not waiting.done()
        book.count("GET", "right")
    await waiting
    never = asyncio.create_task(book.reached(9))
    await asyncio.sleep(0)
    book.close()
    await never


# -- leaks --------------------------------------------------------------------------------------------------


def held(part: str = "gateway", **changed: float) -> Held:
    return Held(**{"part": part, "files": 20, "connections": 30, "threads": 3, "tasks": 5, "objects": 9, **changed})


def sample(one: Held | None, done: int = 0, **changed: int) -> Sample:
    return Sample(
        **{"done": done, "seconds": 0.0, "in_flight": 0, "queued": 0, **changed, "held": {1: one} if one else {}}
    )


BEFORE = sample(held(rss=60.0, pss=50.0, own=40.0))


def after(one: Held | None = None, **changed: int) -> list[str]:
    return list(leaks(BEFORE, sample(one, **changed)))


def test_nothing_more_than_before_is_no_leak():
    assert not after(held(rss=90.0, pss=90.0, own=90.0, connections=99))


@pytest.mark.parametrize(
    "found",
    [
        after(),
        after(held(rss=0.0, pss=0.0, own=0.0, files=29)),
        after(held(rss=0.0, pss=0.0, own=0.0, tasks=6)),
        after(held(rss=0.0, pss=0.0, own=0.0), in_flight=1),
        after(held(rss=0.0, pss=0.0, own=0.0), queued=1),
    ],
)
def test_what_is_still_held_at_rest_is_a_leak(found):
    assert len(found) == 1


def grown(per_sample: float) -> float | None:
    own = [100.0 + (n > 14) * (n - 14) * per_sample for n in range(21)]
    return slope([sample(held(rss=0.0, pss=0.0, own=own[n]), n * 50_000) for n in range(21)], 1)


def test_growth_is_that_of_the_last_third():
    assert grown(0.0) == 0.0
    assert grown(0.5) == pytest.approx(1.0)
    few = [sample(held(rss=0.0, pss=0.0, own=float(n)), n * 100) for n in range(21)]
    assert slope(few, 1) is None
