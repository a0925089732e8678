"""Large bodies that the kernel moves: none but their own bytes, on to what comes next, whoever leaves or waits."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import random
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from fngw_gateway import front
from fngw_gateway.proxy import forward
from fngw_gateway.proxy.connection import Lost
from fngw_gateway.proxy.splicing import Loan, splice

from .conftest import Site
from .test_front import UPLOAD, refused, told, uploads
from .wire import Peer, Upstream, eventually

BODY = random.Random(5).randbytes(3_000_000)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def lines() -> Iterator[tuple[socket.socket, ...]]:
    """A client, the gateway's two ends, a replica."""
    both = [*socket.socketpair(), *socket.socketpair()]
    for line in both:
        line.setblocking(False)
    yield tuple(both)
    for line in both:
        line.close()


def lent(line: socket.socket, left: int) -> Loan:
    return Loan(line.fileno(), b"", 0.0, left)


async def read(line: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (part := await asyncio.get_running_loop().sock_recv(line, size - len(data))):
        data += part
    return data


async def test_it_moves_what_is_left_and_no_more(lines: tuple[socket.socket, ...]) -> None:
    client, source, target, replica = lines
    held, loop = descriptors(), asyncio.get_running_loop()
    loan = lent(source, len(BODY))
    sending = asyncio.create_task(loop.sock_sendall(client, BODY + b"next"))
    moving = asyncio.create_task(splice(loan, target.fileno()))
    assert await read(replica, len(BODY)) == BODY
    await asyncio.gather(moving, sending)
    assert loan.left == 0 and loan.fed_at > 0
    assert await read(source, 4) == b"next"
    assert descriptors() == held


async def test_a_client_that_leaves_is_told_by_what_is_left(lines: tuple[socket.socket, ...]) -> None:
    client, source, target, replica = lines
    loan = lent(source, len(BODY))
    client.send(BODY[:1000])
    client.close()
    await splice(loan, target.fileno())
    assert loan.left == len(BODY) - 1000
    assert replica.recv(2000) == BODY[:1000]


async def test_a_replica_that_leaves_is_lost(lines: tuple[socket.socket, ...]) -> None:
    client, source, target, replica = lines
    client.send(BODY[:1000])
    replica.close()
    with pytest.raises(Lost):
        await splice(lent(source, len(BODY)), target.fileno())


async def test_a_replica_that_does_not_read_is_waited_for_and_says_so(lines: tuple[socket.socket, ...]) -> None:
    client, source, target, replica = lines
    held, loan = descriptors(), lent(source, len(BODY))
    sending = asyncio.create_task(asyncio.get_running_loop().sock_sendall(client, BODY))
    moving = asyncio.create_task(splice(loan, target.fileno()))
    await eventually(lambda: loan.held_up)
    assert await read(replica, len(BODY)) == BODY
    await asyncio.gather(moving, sending)
    assert not loan.held_up

    loan.left = 1
    moving = asyncio.create_task(splice(loan, target.fileno()))
    await eventually(lambda: descriptors() > held)
    moving.cancel()
    await asyncio.gather(moving, return_exceptions=True)
    assert descriptors() == held


@pytest.fixture
def moved(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The bytes that were spliced, by request."""
    found: list[int] = []

    async def counting(loan: Loan, target: int) -> None:
        before = loan.left
        try:
            await splice(loan, target)
        finally:
            found.append(before - loan.left)

    monkeypatch.setattr(forward, "splice", counting)
    return found


async def digests(peer: Peer, upstream: Upstream) -> None:
    """A replica that asks for bodies, and answers with their digests."""
    while (request := await peer.request()) is not None:
        if request.get("expect"):
            peer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.body = await peer.body(request)
        upstream.requests.append(request)
        peer.answer(hashlib.sha256(request.body).digest())


@pytest.mark.parametrize("expect", ["", "Expect: 100-continue\r\n"])
async def test_requests_after_a_large_body_on_the_same_line(site: Site, moved: list[int], expect: str) -> None:
    upstream = await site.one(digests)
    client = await site.client()
    for n in range(3):
        body = BODY[n:]
        client.write(UPLOAD + f"Content-Length: {len(body)}\r\n{expect}\r\n".encode())
        if expect:
            asked = await client.head()
            assert asked is not None and asked.status == 100
        client.write(body + UPLOAD + b"Content-Length: 5\r\n\r\nsmall" + b"GET /f HTTP/1.1\r\nHost: t\r\n\r\n")
        for sent in (body, b"small", b""):
            assert (await client.answer()).body == hashlib.sha256(sent).digest()
    assert [len(request.body) for request in upstream.requests[::3]] == [len(BODY) - n for n in range(3)]
    assert len(moved) == 3 and all(size > len(BODY) // 2 for size in moved)
    assert upstream.connections == 1


async def test_small_and_chunked_bodies_are_not_spliced(site: Site, moved: list[int]) -> None:
    await site.one(digests)
    client = await site.client()
    assert (await client.ask("POST", "/f", body=BODY[:100_000])).status == 200
    client.write(UPLOAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY))
    assert (await client.answer()).body == hashlib.sha256(BODY).digest()
    assert not moved


async def test_a_large_body_that_stops(site: Site, moved: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "BODY_S", 0.2)
    upstream = await site.one(uploads)
    head = UPLOAD + b"Content-Length: %d\r\n\r\n" % len(BODY)
    assert told(await refused(site, head, BODY[:2_000_000])) == (408, "request_too_slow")
    await eventually(lambda: upstream.ended == upstream.connections)
    assert [request.complete for request in upstream.requests] == [False]
    assert len(moved) == 1
    assert site.plane.backends["f"].in_flight == {"r0": 0}


async def test_a_client_that_leaves_in_a_large_body(site: Site, moved: list[int]) -> None:
    upstream, held = await site.one(uploads), descriptors()
    client = await site.client()
    client.write(UPLOAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY[:2_000_000])
    await eventually(lambda: upstream.connections == 1)
    await client.writer.drain()
    client.abort()
    await eventually(lambda: upstream.ended == 1 and len(moved) == 1)
    assert [request.complete for request in upstream.requests] == [False]
    await eventually(lambda: site.plane.backends["f"].in_flight == {"r0": 0})
    await eventually(lambda: descriptors() <= held)


async def test_without_a_descriptor_for_it_a_body_is_copied(
    site: Site, moved: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(fd: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "dup", fails)
    await site.one(digests)
    held = descriptors()
    assert (await site.ask("POST", "/f", body=BODY)).body == hashlib.sha256(BODY).digest()
    assert moved == [0]
    await eventually(lambda: descriptors() <= held + 2)  # the replica's line, both ends


async def test_without_splice_bodies_go_through_this_process(
    site: Site, moved: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on systems other than Linux."""
    monkeypatch.delattr(os, "splice")
    await site.one(digests)
    assert (await site.ask("POST", "/f", body=BODY)).body == hashlib.sha256(BODY).digest()
    assert not moved
