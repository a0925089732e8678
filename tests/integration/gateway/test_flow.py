"""Back-pressure in both directions, and clients that leave."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import random
from contextlib import suppress

import pytest

from fngw_gateway.proxy.forward import Exchange
from fngw_gateway.proxy.inbound import Inbound

from .conftest import Site
from .wire import Peer, Upstream, at_rest, echo, eventually

PART = b"x" * 65_536
#: What the sockets' and the proxy's buffers hold at most, with room to spare.
BUFFERED = 24 * 2**20
TOTAL = 200 * 2**20


async def test_a_slow_reader_slows_the_replica_down(site: Site) -> None:
    async def script(peer: Peer, upstream: Upstream) -> None:
        await peer.request()
        peer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % TOTAL)
        while upstream.count < TOTAL:
            peer.write(PART)
            await peer.writer.drain()
            upstream.count += len(PART)

    upstream = await site.one(script)
    client = await site.client()
    client.write(b"GET /f HTTP/1.1\r\nHost: t\r\n\r\n")
    assert await at_rest(lambda: upstream.count) < BUFFERED
    answer = await client.head()
    assert answer is not None
    read = 0
    while read < TOTAL:
        read += len(await client.reader.read(2**20))
    assert upstream.count == TOTAL


async def test_a_slow_replica_slows_the_client_down(site: Site) -> None:
    go_on = asyncio.Event()

    async def script(peer: Peer, upstream: Upstream) -> None:
        await peer.request()
        peer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await go_on.wait()
        while upstream.count < TOTAL:
            upstream.count += len(await peer.reader.read(2**20))
        peer.answer(b"all")

    await site.one(script)
    client = await site.client()
    client.write(b"POST /f HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n" % TOTAL)
    sent = 0

    async def upload() -> None:
        nonlocal sent
        while sent < TOTAL:
            client.write(PART)
            await client.writer.drain()
            sent += len(PART)

    uploading = asyncio.create_task(upload())
    assert await at_rest(lambda: sent) < BUFFERED
    go_on.set()
    await uploading
    assert (await client.answer()).body == b"all"


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_keeps_its_order_whoever_is_slow(site: Site, chunked: bool) -> None:
    """Parts go on as they are read, or by a queue when the replica does not read: never one before another."""
    turns = random.Random(1)
    body = turns.randbytes(6_000_000)

    async def script(peer: Peer, upstream: Upstream) -> None:
        request = await peer.request()
        assert request
        peer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        digest, left = hashlib.sha256(), len(body)
        while left:
            data = await peer.chunk() if chunked else await peer.reader.read(turns.randrange(1, 400_000))
            digest.update(data)
            left -= len(data)
            for _ in range(turns.randrange(30)):  # the others' turn
                await asyncio.sleep(0)
        assert not chunked or not await peer.chunk()
        peer.answer(digest.digest())

    await site.one(script)
    client = await site.client()
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}"
    client.write(f"POST /f HTTP/1.1\r\nHost: t\r\n{framing}\r\n\r\n".encode())
    at = 0
    while at < len(body):
        part = body[at : at + turns.randrange(1, 500_000)]
        client.write(b"%x\r\n%b\r\n" % (len(part), part) if chunked else part)
        await client.writer.drain()
        at += len(part)
        for _ in range(turns.randrange(30)):
            await asyncio.sleep(0)
    client.write(b"0\r\n\r\n" if chunked else b"")
    assert (await client.answer()).body == hashlib.sha256(body).digest()


async def test_what_is_left_of_a_body_goes_to_nobody_else(site: Site) -> None:
    """The replica answers in the midst of an upload, and its line is not used for the rest, nor again."""

    async def script(peer: Peer, upstream: Upstream) -> None:
        while request := await peer.request():
            if request.get("expect"):
                peer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                await peer.reader.readexactly(1_000_000)
                peer.answer(b"enough")
            else:
                peer.answer(b"other")

    await site.one(script)
    for _ in range(3):
        client = await site.client()
        client.write(b"POST /f HTTP/1.1\r\nHost: t\r\nContent-Length: 3000000\r\n\r\n" + b"x" * 1_500_000)
        assert (await client.answer()).body == b"enough"
        with suppress(ConnectionError):
            client.write(b"x" * 1_500_000)
            await client.writer.drain()
        assert (await site.ask("GET", "/f")).body == b"other"
    await eventually(lambda: site.plane.backends["f"].in_flight == {"r0": 0})


async def test_a_client_that_leaves_cancels_its_request(site: Site) -> None:
    async def script(peer: Peer, upstream: Upstream) -> None:
        await peer.request()
        upstream.count += 1
        await peer.reader.read()

    upstream = await site.one(script)
    clients = [await site.client() for _ in range(3)]
    clients[0].write(b"GET /f HTTP/1.1\r\nHost: t\r\n\r\n")
    clients[1].write(b"POST /f HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\nhi")
    clients[2].write(b"POST /f HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n")
    await eventually(lambda: upstream.count == 3)
    for client in clients:
        client.close()
    await eventually(lambda: upstream.ended == 3)
    await eventually(lambda: site.plane.backends["f"].in_flight == {"r0": 0})


async def test_a_client_that_leaves_during_an_upload_cancels_it(site: Site) -> None:
    async def script(peer: Peer, upstream: Upstream) -> None:
        await peer.request()
        peer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        upstream.count = len(await peer.reader.read())

    upstream = await site.one(script)
    client = await site.client()
    client.write(b"POST /f HTTP/1.1\r\nHost: t\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1000)
    await eventually(lambda: upstream.connections == 1)
    client.abort()
    await eventually(lambda: upstream.ended == 1)
    assert upstream.count <= 1000


@pytest.mark.parametrize("framing", ["transfer-encoding: chunked", "content-length: 1000000000"])
async def test_a_client_that_leaves_during_an_answer_cancels_it(site: Site, framing: str) -> None:
    async def script(peer: Peer, upstream: Upstream) -> None:
        await peer.request()
        peer.write(f"HTTP/1.1 200 OK\r\n{framing}\r\n\r\n".encode())
        while True:
            peer.write(b"5\r\nabcde\r\n")
            await peer.writer.drain()
            upstream.count += 1
            await asyncio.sleep(0.001)

    upstream = await site.one(script)
    client = await site.client()
    client.write(b"GET /f HTTP/1.1\r\nHost: t\r\n\r\n")
    assert await client.head()
    client.close()
    await eventually(lambda: upstream.ended == 1)


async def test_events_come_through_one_by_one(site: Site) -> None:
    tick = asyncio.Event()

    async def script(peer: Peer, upstream: Upstream) -> None:
        await peer.request()
        peer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for number in range(3):
            await tick.wait()
            tick.clear()
            peer.write(b"9\r\ndata: %d\n\n\r\n" % number)
        peer.write(b"0\r\n\r\n")

    await site.one(script)
    client = await site.client()
    client.write(b"GET /f HTTP/1.1\r\nHost: t\r\n\r\n")
    assert await client.head()
    for number in range(3):
        tick.set()
        assert await client.chunk() == b"data: %d\n\n" % number
    assert await client.chunk() == b""


async def test_a_thousand_requests_leave_nothing_behind(site: Site) -> None:
    upstream = await site.one(echo, max_concurrent_queries=8)
    before = len(asyncio.all_tasks())

    async def many() -> None:
        client = await site.client()
        for _ in range(50):
            assert (await client.ask("POST", "/f", body=b"x")).status == 200
        client.close()

    await asyncio.gather(*(many() for _ in range(20)))
    assert upstream.connections <= 8
    assert site.plane.backends["f"].in_flight == {"r0": 0}
    await eventually(lambda: len(asyncio.all_tasks()) <= before + upstream.connections)


async def test_requests_are_gone_when_they_end(site: Site) -> None:
    """Nothing of them waits for the garbage collector: it would take a tenth of the gateway's time."""

    async def script(peer: Peer, upstream: Upstream) -> None:
        while request := await peer.request():
            if request.get("expect"):
                peer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                await peer.body(request)
            peer.answer(b"x")

    await site.one(script)
    client = await site.client()
    gc.collect()
    gc.disable()
    try:
        for n in range(20):
            assert (await client.ask("GET", f"/f/{n}")).status == 200
            for size in (200_000, 3_000_000):
                assert (await client.ask("POST", "/f", body=b"x" * size)).status == 200
        await eventually(lambda: site.plane.backends["f"].in_flight == {"r0": 0})
        held = [o for o in gc.get_objects() if isinstance(o, Exchange | Inbound)]
    finally:
        gc.enable()
    assert len(held) <= 2  # of the last request
