"""Requests that do not wait for the answers before them: their order, their refusals, and their ends."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from .conftest import Site
from .corpus import SMUGGLED, get, post
from .ground import Ground, all_quiet, call, shared_site
from .wire import Peer, Upstream, eventually


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    with shared_site() as ground:
        yield ground


BAD = {
    "no HTTP": b"nonsense\r\n\r\n",
    "a bad chunk": post(b"zz\r\n", b"Transfer-Encoding: chunked"),
    "a bad header": get(b"/f/bad", b"X : y"),
    "a large header": get(b"/f/bad", b"X: " + b"y" * 2**17),
    "no Host": b"POST /f/bad HTTP/1.1\r\n\r\n",
}


class Slow:
    """A replica that answers when it is told to."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()

    async def script(self, peer: Peer, upstream: Upstream) -> None:
        while request := await peer.request():
            upstream.requests.append(request)
            await self.go_on.wait()
            peer.answer(request.target.encode())


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
@pytest.mark.parametrize("before", [1, 3])
def test_what_is_refused_waits_its_turn(ground: Ground, before: int, bad: bytes) -> None:
    """The refusal of a later request must not be taken for the answer to an earlier one."""

    async def work(site: Site) -> None:
        slow = Slow()
        upstream = await site.one(slow.script)
        caller = await call(site)
        await caller.send(b"".join(get(b"/f/%d" % n) for n in range(before)))
        await eventually(lambda: len(upstream.requests) == 1)
        await caller.send(bad + SMUGGLED)
        slow.go_on.set()
        for n in range(before):
            answer = await caller.answer()
            assert answer is not None
            assert (answer.status, answer.body) == (200, b"/f/%d" % n)
        assert await caller.ended()
        caller.close()
        await all_quiet(site)
        assert [request.target for request in upstream.requests] == [f"/f/{n}" for n in range(before)]

    ground.run(work)


@pytest.mark.parametrize("behind", [0, 1, 5])
def test_a_client_that_leaves_cancels_the_request_that_is_answered(ground: Ground, behind: int) -> None:
    async def work(site: Site) -> None:
        upstream = await site.one(Slow().script)
        caller = await call(site)
        await caller.send(get() * (1 + behind))
        await eventually(lambda: len(upstream.requests) == 1)
        caller.close()
        await all_quiet(site)
        assert len(upstream.requests) == 1

    ground.run(work)


def test_an_answer_that_breaks_off_takes_those_behind_it_along(ground: Ground) -> None:
    async def breaks_off(peer: Peer, upstream: Upstream) -> None:
        upstream.requests.append(await peer.request())
        peer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf of it")

    async def work(site: Site) -> None:
        upstream = await site.one(breaks_off)
        caller = await call(site)
        await caller.send(get() * 3)
        answer = await caller.answer()
        assert answer is not None and answer.cut
        caller.close()
        await all_quiet(site)
        assert len(upstream.requests) == 1

    ground.run(work)
