"""WebSocket handshakes, byte by byte: what is joined, and what must not be."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .conftest import Site
from .corpus import HOST, SMUGGLED
from .ground import Ground, all_quiet, call, shared_site
from .wire import Peer, Script, Upstream, eventually

HANDSHAKE = b"GET /f/ws HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    with shared_site() as ground:
        yield ground


class Seen:
    """A replica that answers a handshake with these bytes, and keeps what comes after it."""

    def __init__(self, answer: bytes, *, closes: bool = False) -> None:
        self.answer, self.closes = answer, closes
        self.after = b""

    async def script(self, peer: Peer, upstream: Upstream) -> None:
        await peer.head()
        peer.write(self.answer)
        while not self.closes and (data := await peer.reader.read(65536)):
            self.after += data


REFUSALS = {
    "a declared body": (b"HTTP/1.1 426 No\r\ncontent-length: 5\r\n\r\nhello", 426, b"hello"),
    "more than declared": (b"HTTP/1.1 426 No\r\ncontent-length: 5\r\n\r\nhello there", 426, b"hello"),
    "no body": (b"HTTP/1.1 204 No\r\nconnection: keep-alive\r\n\r\n", 204, b""),
    "chunks": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 200, b"hello"),
}


@pytest.mark.parametrize(("answer", "status", "body"), REFUSALS.values(), ids=REFUSALS)
def test_after_a_refusal_nothing_reaches_the_replica(
    ground: Ground, answer: bytes, status: int, body: bytes
) -> None:
    """A replica that refuses, and would go on in HTTP, must not be asked past the gateway."""

    async def work(site: Site) -> None:
        replica = Seen(answer)
        await site.one(replica.script)
        caller = await call(site)
        await caller.send(HANDSHAKE + SMUGGLED)
        refused = await caller.answer()
        assert refused is not None
        assert (refused.status, refused.body, refused.get(b"connection")) == (status, body, b"close")
        await caller.send(SMUGGLED)
        caller.writer.write_eof()
        assert await caller.ended()
        caller.close()
        await all_quiet(site)
        assert replica.after == b""

    ground.run(work)


@pytest.mark.parametrize(
    "answer",
    [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 101 Sw", b"HTTP/1.1 99 Odd\r\n\r\n"],
    ids=["nothing", "no HTTP", "100", "half a head", "99"],
)
def test_no_answer_to_a_handshake_is_a_lost_replica(ground: Ground, answer: bytes) -> None:
    async def work(site: Site) -> None:
        await site.one(Seen(answer, closes=True).script)
        caller = await call(site)
        await caller.send(HANDSHAKE)
        refused = await caller.answer()
        assert refused is not None
        assert refused.status == 502
        assert await caller.ended()
        caller.close()
        await all_quiet(site)

    ground.run(work)


@pytest.mark.parametrize("parts", [(HANDSHAKE + b"early",), (HANDSHAKE, b"early")], ids=["one", "two"])
def test_frames_that_do_not_wait_arrive(ground: Ground, parts: tuple[bytes, ...]) -> None:
    async def work(site: Site) -> None:
        replica = Seen(SWITCH + b"hello")
        await site.one(replica.script)
        caller = await call(site)
        await caller.send(*parts)
        head = await caller.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        assert await caller.reader.readexactly(5) == b"hello"
        await eventually(lambda: replica.after == b"early")
        caller.close()
        await all_quiet(site)

    ground.run(work)


def never() -> Script:
    async def script(peer: Peer, upstream: Upstream) -> None:
        await peer.head()
        upstream.count += 1
        await peer.reader.read()

    return script


def test_a_client_that_leaves_before_the_answer(ground: Ground) -> None:
    async def work(site: Site) -> None:
        upstream = await site.one(never())
        caller = await call(site)
        await caller.send(HANDSHAKE)
        await eventually(lambda: upstream.count == 1)
        caller.close()
        await all_quiet(site)
        await eventually(lambda: upstream.ended == 1)

    ground.run(work)
