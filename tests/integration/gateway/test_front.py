"""Bad input on real sockets: heads that are too large, too slow or no HTTP. Others are served meanwhile."""

from __future__ import annotations

import asyncio

import pytest

from fngw_gateway import front

from .clock import Clock
from .conftest import Site
from .wire import Message, Peer, Upstream, echo, eventually

START = b"GET /f HTTP/1.1\r\nHost: t\r\n"


async def refused(site: Site, *parts: bytes) -> Message:
    """Send parts, each once the one before has left; return the answer. The gateway closes after it."""
    client = await site.client(limit=2**20)
    for part in parts:
        client.write(part)
        await client.writer.drain()
    answer = await client.answer()
    assert answer.get("connection") == "close"
    assert answer.get("content-type") == "application/problem+json"
    assert answer.get("x-request-id")
    assert answer.json()["hint"]
    assert await client.head() is None
    return answer


def told(answer: Message) -> tuple[int, str]:
    return answer.status, answer.json()["code"]


async def uploads(peer: Peer, upstream: Upstream) -> None:
    """A replica that asks for every body, and reads it."""
    while (request := await peer.request()) is not None:
        peer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.body = await peer.body(request)
        upstream.requests.append(request)
        peer.answer(b"read")


MANY = b"".join(b"x-%d: y\r\n" % n for n in range(10_000))
TINY = b"a:b\r\n" * 10_000
TOO_LARGE = {
    "10,000 headers": (START, MANY, b"\r\n"),
    "10,000 tiny headers, less than 64 KiB of bytes": (START + TINY + b"\r\n",),
    "one header of 1 MiB": (START, b"cookie: " + b"x" * 2**20, b"\r\n\r\n"),
    "one header of 100 KiB, complete in one write": (START + b"cookie: " + b"x" * 102_400 + b"\r\n\r\n",),
    "a header's name of 1 MiB": (START, b"x" * 2**20),
    "trailers of 1 MiB": (
        b"POST /f HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n",
        b"x: " + b"y" * 2**20,
    ),
    "a chunk extension of 1 MiB": (
        b"POST /f HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n2;x=",
        b"y" * 2**20,
    ),
    "empty lines instead of a request": (b"\r\n" * 2**19,),
}


@pytest.mark.parametrize("parts", TOO_LARGE.values(), ids=TOO_LARGE)
async def test_too_much_besides_the_body(site: Site, parts: tuple[bytes, ...]) -> None:
    upstream = await site.one(echo)
    assert told(await refused(site, *parts)) == (431, "headers_too_large")
    assert upstream.requests == []
    assert (await site.ask("GET", "/f")).status == 200


@pytest.mark.parametrize("size", [100 * 1024, 2**20])
async def test_a_request_line_that_is_too_long(site: Site, size: int) -> None:
    upstream = await site.one(echo)
    line = b"GET /f?" + b"x" * size + b" HTTP/1.1\r\nHost: t\r\n\r\n"
    assert told(await refused(site, line)) == (414, "uri_too_long")
    assert upstream.requests == []


async def test_what_just_fits_arrives_whole(site: Site) -> None:
    upstream = await site.one(echo)
    cookie, query = "c" * 30_000, "q" * 30_000
    client = await site.client(limit=2**20)
    for _ in range(2):
        answer = await client.ask("GET", f"/f?{query}", f"Cookie: {cookie}\r\n")
        assert answer.status == 200
    head = f"GET /f?{query} HTTP/1.1\r\nHost: t\r\nCookie: {cookie}\r\n\r\n".encode()
    for start in range(0, len(head), 5000):
        client.write(head[start : start + 5000])
        await client.writer.drain()
    assert (await client.answer()).status == 200
    assert {(r.target, r.get("cookie")) for r in upstream.requests} == {(f"/f?{query}", cookie)}


async def test_a_large_body_in_small_reads_is_not_taken_for_a_head(site: Site) -> None:
    upstream = await site.one(uploads)
    body = b"x" * 300_000
    chunks = b"".join(b"10\r\n%b\r\n" % body[:16] for _ in range(20_000)) + b"0\r\n\r\n"
    client = await site.client(limit=2**22)
    for framing, sent in ((b"Content-Length: 300000", body), (b"Transfer-Encoding: chunked", chunks)):
        client.write(b"POST /f HTTP/1.1\r\nHost: t\r\n" + framing + b"\r\n\r\n")
        for start in range(0, len(sent), 10_000):
            client.write(sent[start : start + 10_000])
            await client.writer.drain()
        assert (await client.answer()).status == 200
    assert [len(r.body) for r in upstream.requests] == [300_000, 320_000]


async def test_a_head_that_dribbles_in(clock: Clock, site: Site) -> None:
    upstream = await site.one(echo)
    kept = await site.client()
    assert (await kept.ask("GET", "/f")).status == 200
    clients = [kept, *[await site.client() for _ in range(20)]]
    read = clock.read
    for byte in (START + b"x" * 10)[: round(front.HEAD_S)]:  # one each second
        for client in clients:
            client.write(bytes([byte]))
        read += len(clients)
        await clock.has_read(read)
        clock.advance(1.0)
    answers = await asyncio.gather(*(client.answer() for client in clients))
    assert {told(answer) for answer in answers} == {(408, "request_too_slow")}
    assert len(upstream.requests) == 1
    assert (await site.ask("GET", "/f")).status == 200


UPLOAD = b"POST /f HTTP/1.1\r\nHost: t\r\n"


@pytest.mark.parametrize(
    "sent",
    [UPLOAD + b"Content-Length: 9\r\n\r\nhalf", UPLOAD + b"Transfer-Encoding: chunked\r\n\r\n4\r\nha"],
    ids=["declared", "chunked"],
)
async def test_a_body_that_stops(site: Site, monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    monkeypatch.setattr(front, "BODY_S", 0.2)
    upstream = await site.one(uploads)
    assert told(await refused(site, sent)) == (408, "request_too_slow")
    assert upstream.requests == []
    await eventually(lambda: upstream.ended == upstream.connections)
    assert site.plane.backends["f"].in_flight == {"r0": 0}


async def test_a_body_that_is_slow_but_goes_on(clock: Clock, site: Site) -> None:
    upstream = await site.one(echo)
    client = await site.client()
    head = UPLOAD + b"Content-Length: 15\r\n\r\n"
    client.write(head)
    for sent in range(15):
        await clock.has_read(len(head) + sent)
        clock.advance(front.BODY_S - 1)
        client.write(b"x")
    assert (await client.answer()).status == 200
    assert [len(r.body) for r in upstream.requests] == [15]


async def test_a_client_that_was_not_asked_for_its_body_may_wait(
    clock: Clock, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the replica, or by the gateway, which begins to read after a moment: here it does not."""
    monkeypatch.setattr("fngw_gateway.proxy.forward.WATCH_AFTER_S", 3600)
    asked = asyncio.Event()

    async def asks_late(peer: Peer, upstream: Upstream) -> None:
        request = await peer.request()
        assert request is not None
        upstream.count += 1
        await asked.wait()
        peer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        peer.answer(await peer.body(request))

    upstream = await site.one(asks_late)
    client = await site.client()
    client.write(UPLOAD + b"Content-Length: 4\r\nExpect: 100-continue\r\n\r\n")
    await eventually(lambda: upstream.count == 1)
    clock.advance(5 * front.BODY_S)
    asked.set()
    head = await client.head()
    assert head is not None and head.status == 100
    client.write(b"body")
    assert (await client.answer()).body == b"body"


async def test_a_connection_that_stays_silent_is_closed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "HEAD_S", 0.2)
    assert await (await site.client()).head() is None


async def test_a_head_in_time_is_not_cut_off_later(clock: Clock, site: Site) -> None:
    go_on = asyncio.Event()

    async def slow(peer: Peer, upstream: Upstream) -> None:
        while await peer.request():
            upstream.count += 1
            await go_on.wait()
            peer.answer(b"late")

    upstream = await site.one(slow)
    client = await site.client()
    client.write(START)
    await clock.has_read(len(START))
    clock.advance(front.HEAD_S - 1)
    client.write(b"X: 1\r\n\r\n")
    await eventually(lambda: upstream.count == 1)
    clock.advance(2 * front.HEAD_S)
    go_on.set()
    assert (await client.answer()).body == b"late"


async def test_a_body_that_breaks_after_the_answer_began_ends_the_connection(site: Site) -> None:
    async def answers_first(peer: Peer, upstream: Upstream) -> None:
        upstream.requests.append(await peer.head())
        peer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n")
        await peer.reader.read()
        upstream.count += 1

    upstream = await site.one(answers_first)
    client = await site.client()
    client.write(b"POST /f HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n")
    head = await client.head()
    assert head is not None and head.status == 200
    client.write(b"zz\r\n")
    assert (await client.reader.read()).find(b"HTTP/1.1") < 0, "no second answer within the first"
    await eventually(lambda: upstream.count == 1)


async def test_a_websocket_outlives_the_time_for_heads(clock: Clock, site: Site) -> None:
    """The connection changes hands within a read: what was measured there must not go on."""
    go_on = asyncio.Event()

    async def speaks_late(peer: Peer, upstream: Upstream) -> None:
        await peer.head()
        peer.write(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
        await go_on.wait()
        peer.write(b"late")
        await peer.reader.read()

    await site.one(speaks_late)
    client = await site.client()
    client.write(START + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    head = await client.head()
    assert head is not None and head.status == 101
    clock.advance(5 * front.HEAD_S)
    go_on.set()
    assert await client.reader.readexactly(4) == b"late"
