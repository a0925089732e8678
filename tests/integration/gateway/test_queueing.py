"""Requests that wait for a replica: full ones, none, other ones."""

from __future__ import annotations

import asyncio

from .conftest import Site
from .wire import Message, Peer, Upstream, echo, eventually


class Gate:
    """A replica that holds its requests until told."""

    def __init__(self) -> None:
        self.open = asyncio.Event()

    async def __call__(self, peer: Peer, upstream: Upstream) -> None:
        while request := await peer.request():
            upstream.requests.append(request)
            upstream.count += 1
            await self.open.wait()
            peer.answer(upstream.path.stem.encode())
            upstream.count -= 1


async def test_no_more_than_the_limit_reach_a_replica(site: Site) -> None:
    gate = Gate()
    upstream = await site.one(gate, max_concurrent_queries=2)
    asked = [asyncio.create_task(site.ask("GET", f"/f/{n}")) for n in range(6)]
    await eventually(lambda: upstream.count == 2 and site.plane.backends["f"].queued == 4)
    gate.open.set()
    assert [a.status for a in await asyncio.gather(*asked)] == [200] * 6
    assert upstream.connections == 2


async def test_over_a_full_queue_requests_are_refused(site: Site) -> None:
    gate = Gate()
    upstream = await site.one(gate, max_concurrent_queries=1, max_queued_requests=2)
    asked = [asyncio.create_task(site.ask("GET", "/f")) for _ in range(3)]
    await eventually(lambda: upstream.count == 1 and site.plane.backends["f"].queued == 2)
    answer = await site.ask("GET", "/f")
    assert (answer.status, answer.json()["code"], answer.get("retry-after")) == (503, "overloaded", "1")
    gate.open.set()
    assert [a.status for a in await asyncio.gather(*asked)] == [200] * 3


async def test_a_client_that_leaves_the_queue_never_reaches_a_replica(site: Site) -> None:
    gate = Gate()
    upstream = await site.one(gate, max_concurrent_queries=1)
    backend = site.plane.backends["f"]
    first = asyncio.create_task(site.ask("GET", "/f/first"))
    await eventually(lambda: upstream.count == 1)
    leaving = [await site.client() for _ in range(3)]
    leaving[0].write(b"GET /f/left HTTP/1.1\r\nHost: t\r\n\r\n")
    leaving[1].write(b"POST /f/left HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\nhi")
    leaving[2].write(b"POST /f/left HTTP/1.1\r\nHost: t\r\nContent-Length: 900000\r\n\r\nhi")
    await eventually(lambda: backend.queued == 3)
    last = asyncio.create_task(site.ask("GET", "/f/last"))
    await eventually(lambda: backend.queued == 4)
    for client in leaving:
        client.close()
    await eventually(lambda: backend.queued == 1)
    gate.open.set()
    await asyncio.gather(first, last)
    assert [r.target for r in upstream.requests] == ["/f/first", "/f/last"]


async def test_time_in_the_queue_counts(site: Site) -> None:
    upstream = await site.one(Gate(), max_concurrent_queries=1, request_timeout_s=1.5)
    first, second = await asyncio.gather(site.ask("GET", "/f"), site.ask("GET", "/f"))
    assert {first.status, second.status} == {504}
    assert first.json()["code"] == "timeout"
    assert len(upstream.requests) == 1


async def test_no_replicas_and_then_one_arrives(site: Site) -> None:
    site.route()
    asked = [asyncio.create_task(site.ask("POST", "/f", body=b"x")) for _ in range(4)]
    await eventually(lambda: site.plane.backends["f"].queued == 4)
    site.route(await site.upstream(echo))
    answers = await asyncio.gather(*asked)
    assert [a.status for a in answers] == [200] * 4
    assert float(answers[0].get("server-timing").split(";dur=")[1].split(",")[0]) > 0


def metrics(answer: Message) -> list[str]:
    """The names in ``Server-Timing``."""
    return [metric.partition(";")[0].strip() for metric in (answer.get("server-timing") or "").split(",")]


async def test_who_waited_for_a_start_is_told(site: Site) -> None:
    site.route()
    backend = site.plane.backends["f"]
    first = asyncio.create_task(site.ask("GET", "/f"))
    await eventually(lambda: backend.queued == 1)
    gate = Gate()
    replica = await site.upstream(gate)
    site.route(replica, max_concurrent_queries=1)
    await eventually(lambda: replica.count == 1)
    second = asyncio.create_task(site.ask("GET", "/f"))
    await eventually(lambda: backend.queued == 1)
    gate.open.set()
    assert metrics(await first) == ["queue", "cold", "replica"]
    assert metrics(await second) == ["queue", "replica"], "this one waited for a place, not for a start"
    assert metrics(await site.ask("GET", "/f")) == ["queue", "replica"]


async def test_who_waited_for_the_successor_of_a_dead_replica_is_told(site: Site) -> None:
    dead = await site.one(echo)
    await dead.stop()
    asked = asyncio.create_task(site.ask("POST", "/f", body=b"x"))
    await eventually(lambda: site.plane.backends["f"].queued == 1)
    site.route(await site.upstream(echo))
    assert metrics(await asked) == ["queue", "cold", "replica"]


async def test_no_replicas_in_time(site: Site) -> None:
    site.route(request_timeout_s=0.2)
    answer = await site.ask("GET", "/f")
    assert (answer.status, answer.json()["code"], answer.get("retry-after")) == (503, "no_replicas", "1")


async def test_a_deployment_that_is_deleted_while_requests_wait(site: Site) -> None:
    site.route()
    asked = asyncio.create_task(site.ask("GET", "/f"))
    await eventually(lambda: site.plane.backends["f"].queued == 1)
    site.route(prefix="/g", name="g")
    answer = await asked
    assert (answer.status, answer.json()["code"]) == (404, "deployment_not_found")
    assert (await site.ask("GET", "/f")).json()["code"] == "route_not_found"


# -- at capacity ------------------------------------------------------------------------------------------


class Limited:
    """A replica that takes ``most`` requests at a time, whoever they come from."""

    def __init__(self, most: int) -> None:
        self.most, self.refused, self.open = most, 0, asyncio.Event()
        self.open.set()

    async def __call__(self, peer: Peer, upstream: Upstream) -> None:
        while request := await peer.request():
            if upstream.count >= self.most:
                self.refused += 1
                peer.answer(b"private", "503 Service Unavailable", "fngw-at-capacity: 1\r\n")
                continue
            upstream.count += 1
            if request.get("expect"):
                peer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                request.body = await peer.body(request)
            upstream.requests.append(request)
            await self.open.wait()
            await asyncio.sleep(0)
            peer.answer(str(len(request.body)).encode())
            upstream.count -= 1


async def test_what_a_full_replica_refuses_is_queued_again(site: Site) -> None:
    limited = Limited(2)
    upstream = await site.one(limited, max_concurrent_queries=50)
    limited.open.clear()
    sizes = [0, 10, 300_000] * 4
    asked = [asyncio.create_task(site.ask("POST", "/f", body=b"x" * size)) for size in sizes]
    await eventually(lambda: limited.refused and upstream.count == 2)
    limited.open.set()
    answers = await asyncio.gather(*asked)
    assert [a.status for a in answers] == [200] * len(sizes)
    assert [a.body for a in answers] == [str(size).encode() for size in sizes]
    assert len(upstream.requests) == len(sizes)
    assert site.plane.backends["f"].in_flight == {"r0": 0}


async def test_a_full_replica_is_not_asked_all_the_time(site: Site) -> None:
    limited = Limited(0)
    await site.one(limited, request_timeout_s=1)
    answers = await asyncio.gather(*(site.ask("GET", "/f") for _ in range(20)))
    assert {a.status for a in answers} == {504}
    assert limited.refused < 20 + 40, "one probe per pause, and the pauses grow"


async def test_refused_ones_go_to_the_replica_with_room(site: Site) -> None:
    full, free = await site.upstream(Limited(0)), await site.upstream(echo)
    site.route(full, free)
    for _ in range(10):
        assert (await site.ask("POST", "/f", body=b"x")).status == 200


# -- tables -----------------------------------------------------------------------------------------------


async def test_tables_swapped_under_traffic_lose_nothing(site: Site) -> None:
    upstreams = [await site.upstream(echo) for _ in range(4)]
    site.route(*upstreams[:2], max_concurrent_queries=4)
    statuses: list[int] = []
    done = asyncio.Event()

    async def traffic(method: str) -> None:
        client = await site.client()
        while not done.is_set():
            statuses.append((await client.ask(method, "/f", body=b"x")).status)
        client.close()

    tasks = [asyncio.create_task(traffic(m)) for m in ["GET", "POST"] * 6]
    for turn in range(60):
        seen = len(statuses)
        chosen = [upstreams[turn % 4], upstreams[(turn + 1) % 4]] if turn % 7 else []
        site.route(*chosen, max_concurrent_queries=1 + turn % 4)
        await eventually(lambda n=seen, some=bool(chosen): len(statuses) > n + 5 or not some)
    site.route(*upstreams)
    done.set()
    await asyncio.gather(*tasks)
    assert set(statuses) == {200}
    assert len(statuses) > 200
    assert set(site.plane.backends["f"].in_flight.values()) == {0}


async def test_a_replica_that_left_finishes_what_it_has(site: Site) -> None:
    gate = Gate()
    old = await site.one(gate)
    asked = [asyncio.create_task(site.ask("POST", "/f", body=b"x")) for _ in range(3)]
    await eventually(lambda: old.count == 3)
    site.route(await site.upstream(echo))
    assert (await site.ask("GET", "/f")).json()["replica"] == "r1"
    gate.open.set()
    assert [a.body for a in await asyncio.gather(*asked)] == [b"r0"] * 3
    await eventually(lambda: old.ended == old.connections)
