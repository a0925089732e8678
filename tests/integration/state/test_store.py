"""The store on a real Redis: what must be atomic is, under contention, too."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from fngw.errors import RouteConflict
from fngw.spec import CodeRef, DeploymentSpec
from fngw_state import keys
from fngw_state.records import (
    Desired,
    Replica,
    ReplicaState,
    Revision,
    RoutedDeployment,
    RoutedReplica,
    RoutingTable,
    Status,
)
from fngw_state.store import Fenced, Store

CODE = CodeRef("sha256:0", target="app:f")


def desired(name: str, number: int, route: str | None = None) -> Desired:
    spec = DeploymentSpec(name=name, code=CODE, python="3.11", route_prefix=route, pip=("numpy",))
    return Desired(name, Revision(number, number, number, spec, deployed_at=1.5))


async def test_desired_state_round_trips(store: Store):
    before = desired("f", 1, "/f")
    before = dataclasses.replace(before, stable=before.target)
    stored = await store.put_desired(None, before)
    assert stored == dataclasses.replace(before, serial=1)
    assert await store.desired("f") == stored
    assert await store.all_desired() == {"f": stored}
    assert await store.desired("g") is None


async def test_a_write_on_an_outdated_record_is_refused(store: Store):
    first = await store.put_desired(None, desired("f", 1))
    assert first and await store.put_desired(first, desired("f", 2))
    assert await store.put_desired(first, desired("f", 3)) is None
    assert await store.put_desired(None, desired("f", 4)) is None
    assert not await store.remove_desired(first)


async def test_of_many_writers_at_once_each_gets_its_turn(store: Store):
    async def deploy() -> None:
        while True:
            before = await store.desired("f")
            if await store.put_desired(before, desired("f", await store.next_number())):
                return

    await asyncio.gather(*(deploy() for _ in range(40)))
    last = await store.desired("f")
    assert last and last.serial == 40


async def test_a_route_has_one_holder(store: Store):
    first = await store.put_desired(None, desired("f", 1, "/api"))
    with pytest.raises(RouteConflict, match="'/api' is taken by deployment 'f'"):
        await store.put_desired(None, desired("g", 2, "/api"))
    moved = await store.put_desired(first, desired("f", 3, "/moved"))
    assert await store.put_desired(None, desired("g", 4, "/api"))
    assert moved and await store.remove_desired(moved)
    assert await store.put_desired(None, desired("h", 5, "/moved"))


async def test_the_route_of_the_version_that_still_serves_is_held(store: Store):
    old, new = desired("f", 1, "/old"), desired("f", 2, "/new")
    await store.put_desired(None, dataclasses.replace(new, stable=old.target))
    for route in ("/old", "/new"):
        with pytest.raises(RouteConflict):
            await store.put_desired(None, desired("g", 3, route))


async def test_one_leads_and_a_successor_shuts_it_out(store: Store):
    token = await store.lead("a")
    assert token and await store.lead("a") == token
    assert await store.lead("b") == 0
    await store.resign("b")  # not its to give back
    assert await store.lead("b") == 0
    await store.resign("a")
    successor = await store.lead("b")
    assert successor > token
    status = Status("f", "HEALTHY", "", 1, None, None, ())
    with pytest.raises(Fenced):
        await store.put_status(token, status)
    await store.put_status(successor, status)
    assert await store.status("f") == status


async def test_a_lease_ends_by_itself(store: Store):
    await store.lead("a")
    assert 0 < await store.redis.pttl(keys.LEADER) <= keys.LEADER_TTL_MS


async def test_status_and_routes_round_trip(store: Store):
    token = await store.lead("a")
    replica = Replica("r1", "f", 1, ReplicaState.READY, 1.5, pid=7, gpus=("GPU-0",), address="/run/x")
    status = Status("f", "UPDATING", "1 of 2", 3, "sha256:1", None, (replica,))
    await store.put_status(token, status)
    assert await store.all_status() == {"f": status}
    routed = RoutedDeployment("f", "/f", (RoutedReplica("r1", "/run/x"),), 100, 1000, None)
    table = RoutingTable(7, (routed,))
    await store.put_routes(token, table)
    assert await store.routes() == table


async def test_gateways_that_died_are_forgotten(store: Store):
    await store.applied("g1", 3)
    await store.applied("g2", 4)
    assert await store.gateways() == {"g1": 3, "g2": 4}
    await store.redis.delete(keys.GATEWAY + "g1")  # what its time to live does
    assert await store.gateways() == {"g2": 4}
    assert await store.redis.smembers(keys.GATEWAYS) == {"g2"}
    await store.gateway_gone("g2")
    assert await store.gateways() == {}


async def test_events_are_followed_from_the_beginning_and_by_revision(store: Store):
    await store.emit("f", 1, "accepted", "one")
    await store.emit("f", 2, "accepted", "two")
    seen = []

    async def follow() -> None:
        async for _, event in store.follow("f", 1):
            if event:
                seen.append(event["message"])
            if event and event["kind"] == "done":
                return

    task = asyncio.create_task(follow())
    await store.emit("f", 2, "done", "not this one")
    await store.emit("f", 1, "done", "end")
    await asyncio.wait_for(task, 60)
    assert seen == ["one", "end"]


async def test_an_empty_redis_is_noticed_once(store: Store):
    assert not await store.installed(1.0)
    assert await store.installed(2.0)
