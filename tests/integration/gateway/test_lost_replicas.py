"""Replicas that close early, answer nonsense, or are not there; and what may be sent again."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fngw_gateway.proxy import pool
from fngw_state.records import RoutingTable

from .conftest import Site, site_of
from .wire import Peer, Upstream, echo, eventually


async def close_at_once(peer: Peer, upstream: Upstream) -> None:
    """Takes a request and leaves without a byte of an answer."""
    if request := await peer.request():
        upstream.requests.append(request)


async def close_after_one(peer: Peer, upstream: Upstream) -> None:
    """Answers the first request of a connection and closes when the second one comes."""
    if await peer.request():
        peer.answer(b"first")
    if request := await peer.request():
        upstream.requests.append(request)


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"])
async def test_an_idempotent_request_is_tried_elsewhere(site: Site, method: str) -> None:
    bad, good = await site.upstream(close_at_once), await site.upstream(echo)
    site.route(bad)
    site.route(bad, good)
    for _ in range(8):
        assert (await site.ask(method, "/f", body=b"x" if method == "PUT" else b"")).status == 200
    assert len(good.requests) == 8
    assert site.plane.backends["f"].in_flight == {"r0": 0, "r1": 0}


@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_another_request_is_not_repeated(site: Site, method: str) -> None:
    upstream = await site.one(close_at_once)
    answer = await site.ask(method, "/f", body=b"x")
    assert (answer.status, answer.json()["code"]) == (502, "replica_lost")
    assert answer.get("x-request-id")
    assert len(upstream.requests) == 1
    assert site.plane.backends["f"].in_flight == {"r0": 0}


async def test_the_answer_says_why_the_replica_died_where_that_is_known(short_dir: Path) -> None:
    async def why(deployment: str, replica: str) -> str:
        assert (deployment, replica) == ("f", "r0")
        return "replica r0 was killed: out of memory" if known else ""

    async with site_of(short_dir, why_lost=why) as site:
        await site.one(close_at_once)
        known = True
        answer = (await site.ask("POST", "/f", body=b"x")).json()
        assert answer["code"] == "replica_lost"
        assert answer["title"].endswith("was lost before it had answered: replica r0 was killed: out of memory")
        known = False
        assert "out of memory" not in (await site.ask("POST", "/f", body=b"x")).json()["title"]


async def test_what_kills_replicas_is_not_tried_for_ever(site: Site) -> None:
    upstreams = [await site.upstream(close_at_once) for _ in range(6)]
    site.route(*upstreams)
    answer = await site.ask("GET", "/f")
    assert (answer.status, answer.json()["code"]) == (502, "replica_lost")
    assert sum(len(u.requests) for u in upstreams) == 3


async def test_a_stale_connection_is_replaced(site: Site) -> None:
    upstream = await site.one(close_after_one)
    client = await site.client()
    for _ in range(5):
        assert (await client.ask("GET", "/f")).body == b"first"
    assert upstream.connections == 5


async def test_a_stale_connection_is_noticed_before_a_post(site: Site) -> None:
    """The end of an idle connection that has arrived is seen, even when the loop has not come to it."""

    async def script(peer: Peer, upstream: Upstream) -> None:
        await peer.request()
        peer.answer(b"one")

    upstream = await site.one(script)
    client = await site.client()
    for number in range(1, 30):
        answer = await client.ask("POST", "/f", body=b"x")
        assert (answer.status, answer.body) == (200, b"one")
        assert upstream.connections == number


async def test_bytes_nobody_asked_for_end_a_connection(site: Site) -> None:
    async def script(peer: Peer, upstream: Upstream) -> None:
        await peer.request()
        peer.answer(b"mine")
        await upstream_may_go_on.wait()
        peer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nevil!")
        await peer.reader.read()

    upstream_may_go_on = asyncio.Event()
    upstream = await site.one(script)
    client = await site.client()
    assert (await client.ask("GET", "/f")).body == b"mine"
    upstream_may_go_on.set()
    await eventually(lambda: upstream.ended == 1)
    assert (await client.ask("GET", "/f")).body == b"mine"


async def test_bytes_that_come_together_with_the_next_request_are_not_its_answer(site: Site) -> None:
    """The gateway learns of both in the same turn of its loop, of the request first."""
    peers: list[Peer] = []

    async def script(peer: Peer, upstream: Upstream) -> None:
        while await peer.request():
            peers.append(peer)
            peer.answer(b"mine")

    await site.one(script)
    client = await site.client()
    for _ in range(20):
        client.write(b"GET /f HTTP/1.1\r\nHost: t\r\n\r\n")
        if peers:
            peers[-1].write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nevil!")
        assert (await client.answer()).body == b"mine"


async def test_nonsense_is_a_lost_replica_and_not_repeated(site: Site) -> None:
    async def script(peer: Peer, upstream: Upstream) -> None:
        if request := await peer.request():
            upstream.requests.append(request)
            peer.write(b"SSH-2.0-OpenSSH_9.2\r\n")

    upstream = await site.one(script)
    answer = await site.ask("GET", "/f")
    assert (answer.status, answer.json()["code"]) == (502, "replica_lost")
    assert len(upstream.requests) == 1
    await eventually(lambda: upstream.ended == 1)
    assert site.plane.backends["f"].in_flight == {"r0": 0}


async def test_a_replica_that_is_not_there_is_passed_over(site: Site) -> None:
    good = await site.upstream(echo)
    site.route(site.directory / "gone.sock", good)
    for method in ("GET", "POST"):
        for _ in range(5):
            assert (await site.ask(method, "/f")).json()["replica"] == "r0"


async def test_requests_wait_for_a_replica_that_is_not_there_yet(site: Site) -> None:
    site.route(site.directory / "late.sock")
    asked = [asyncio.create_task(site.ask("POST", "/f", body=b"x")) for _ in range(5)]
    backend = site.plane.backends["f"]
    await eventually(lambda: not backend.reachable and backend.queued)
    late = await site.upstream(echo, "late")
    answers = await asyncio.gather(*asked)
    assert [a.status for a in answers] == [200] * 5
    assert len(late.requests) == 5
    assert backend.reachable


async def test_a_replica_that_dies_with_requests_under_way(site: Site) -> None:
    """The idempotent ones wait for its successor, the others are told."""

    async def script(peer: Peer, upstream: Upstream) -> None:
        await peer.request()
        upstream.count += 1
        await peer.reader.read()

    dying = await site.one(script)
    asked = [asyncio.create_task(site.ask(m, "/f", body=b"x")) for m in ("PUT", "PUT", "POST", "POST")]
    await eventually(lambda: dying.count == 4)
    await dying.stop()
    successor = await site.upstream(echo)
    site.route(successor)
    statuses = [a.status for a in await asyncio.gather(*asked)]
    assert statuses == [200, 200, 502, 502]


async def test_a_request_that_is_lost_as_its_deployment_is_deleted(site: Site) -> None:
    """There is nothing to try it on; that there is no such deployment would not be the truth."""
    deleted = asyncio.Event()

    async def script(peer: Peer, upstream: Upstream) -> None:
        await peer.request()
        upstream.count += 1
        await deleted.wait()

    leaving = await site.one(script)
    asked = [asyncio.create_task(site.ask(m, "/f", body=b"x")) for m in ("PUT", "POST")]
    await eventually(lambda: leaving.count == 2)
    site.plane.apply(RoutingTable(site.generation + 1, ()))
    deleted.set()
    answers = await asyncio.gather(*asked)
    assert [(a.status, a.json()["code"]) for a in answers] == [(502, "replica_lost")] * 2


async def test_an_upload_whose_replica_left_before_it_asked_goes_elsewhere(site: Site) -> None:
    async def takes(peer: Peer, upstream: Upstream) -> None:
        request = await peer.request()
        assert request is not None
        peer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        peer.answer(str(len(await peer.body(request))).encode())

    bad = await site.upstream(close_at_once)
    site.route(bad, await site.upstream(takes))
    while not bad.requests:  # either may be chosen
        assert (await site.ask("PUT", "/f", body=b"x" * 500_000)).body == b"500000"


async def test_an_upload_that_had_begun_is_not_repeated(site: Site) -> None:
    async def script(peer: Peer, upstream: Upstream) -> None:
        if request := await peer.request():
            upstream.requests.append(request)
            peer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            await peer.reader.readexactly(1000)

    upstream = await site.one(script)
    answer = await site.ask("PUT", "/f", body=b"x" * 500_000)
    assert (answer.status, answer.json()["code"]) == (502, "replica_lost")
    assert len(upstream.requests) == 1


async def test_idle_connections_of_a_replica_that_leaves_are_closed(site: Site) -> None:
    upstream = await site.one(echo)
    await asyncio.gather(*(site.ask("GET", "/f") for _ in range(5)))
    site.route(site.directory / "other.sock")
    await eventually(lambda: upstream.ended == upstream.connections)


async def test_connections_idle_for_long_are_closed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "IDLE_S", 0.1)
    upstream = await site.one(echo)
    await asyncio.gather(*(site.ask("GET", "/f") for _ in range(3)))
    await eventually(lambda: upstream.ended == upstream.connections)
    assert (await site.ask("GET", "/f")).status == 200


async def test_an_address_on_tcp(site: Site) -> None:
    upstream = await site.upstream(echo, tcp=True)
    site.route(upstream)
    for _ in range(3):
        assert (await site.ask("GET", "/f")).status == 200
    assert upstream.connections == 1
