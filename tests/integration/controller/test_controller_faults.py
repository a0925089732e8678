"""What a controller does when Redis, the engine or another controller lets it down, step by step."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from fngw_controller import controller as controllers
from fngw_controller import leader as leadership
from fngw_controller.engines.base import StartFailed
from fngw_controller.leader import Leader
from fngw_state import keys
from fngw_state.records import RoutingTable
from fngw_state.store import Fenced


async def nothing_to_stop(site):
    async def check():
        status = await site.store.status("f")
        return status is not None and sorted(r.id for r in status.replicas) == site.running and site.running

    return await site.until(check, "the engine and the status to agree")


async def test_rolls_out_and_replaces(site):
    await site.control()
    await site.deploy("f", num_replicas=3)
    first = await site.settled("f")
    assert first == site.running and len(first) == 3
    await site.deploy("f", version="2", num_replicas=3)
    second = await site.settled("f")
    assert second == site.running and not set(first) & set(second)


async def test_an_image_that_was_removed_is_built_again(site):
    await site.control()
    await site.deploy("f")
    (old,) = await site.settled("f")
    site.world.refuse("f", StartFailed("the image is gone", code="image_missing"))
    site.world.die(old)

    async def replaced():
        return site.running and old not in site.running

    await site.until(replaced, "a new replica")
    assert site.images.asked["1"] == 2


async def test_a_new_leader_takes_over_without_a_table_that_lacks_anything(site):
    first = await site.control()
    for name in "efgh":
        await site.deploy(name, num_replicas=2)
    before = {name: await site.settled(name) for name in "efgh"}
    table = await site.store.routes_text()
    await site.kill(first)
    tables = []

    async def published():
        async with site.store.redis.pubsub() as channel:
            await channel.subscribe(keys.ROUTES_CHANNEL)
            async for _ in channel.listen():
                tables.append(await site.store.routes_text())

    spy = asyncio.create_task(published())
    await site.control()
    await site.deploy("f", num_replicas=3)
    assert set(before["f"]) < set(await site.settled("f"))
    spy.cancel()
    for text in [table, *tables]:
        routed = {d.name: {r.id for r in d.replicas} for d in RoutingTable.from_json(text or "{}").deployments}
        assert all(set(before[name]) <= routed.get(name, set()) for name in "efgh"), routed
    assert not site.stopped


async def test_a_new_leader_finishes_draining_what_was_to_leave(site):
    first = await site.control()
    await site.deploy("f", num_replicas=2)
    await site.settled("f")
    await site.store.applied("gateway", 0)  # a gateway that is behind holds the draining up
    await site.deploy("f", num_replicas=1)

    async def draining():
        status = await site.store.status("f")
        return [r.id for r in status.replicas if r.state == "DRAINING"]

    [leaving] = await site.until(draining, "a replica to drain")
    await site.kill(first)
    await site.control()
    assert await draining() == [leaving]
    await site.store.gateway_gone("gateway")
    assert leaving not in await site.settled("f")
    assert leaving not in site.running


async def test_an_emptied_redis_is_filled_again_and_nothing_is_stopped(site):
    await site.control()
    desired = await site.deploy("f", num_replicas=2)
    await site.deploy("g")
    before = await site.settled("f"), await site.settled("g")
    last = await site.store.last_number()
    await site.store.redis.flushall()
    assert (await site.settled("f"), await site.settled("g")) == before
    await site.until(lambda: site.store.routes_text(), "a routing table")
    assert await site.store.last_number() >= last >= desired.target.number
    assert not site.stopped
    await site.deploy("f", version="2")
    assert not set(await site.settled("f")) & set(before[0])


async def test_desired_state_comes_back_when_the_controller_was_away_too(site):
    first = await site.control()
    await site.deploy("f", num_replicas=2)
    before = await site.settled("f")
    await site.kill(first)
    await site.store.redis.flushall()
    await site.control()
    assert await site.settled("f") == before
    assert not site.stopped


async def test_what_was_deleted_while_nobody_looked_does_not_come_back(site):
    first = await site.control()
    await site.deploy("f")
    await site.settled("f")
    await site.kill(first)
    desired = await site.store.desired("f")
    assert desired and await site.store.remove_desired(desired)
    second = await site.control()

    async def empty():
        return not site.running

    await site.until(empty, "what nobody wants to be stopped")
    await site.kill(second)
    await site.store.redis.flushall()
    await site.control()
    await site.until(lambda: site.store.in_use(), "the restoration")
    assert await site.store.desired("f") is None


# -- Redis away -------------------------------------------------------------------------------------------


async def test_a_replica_that_drains_while_redis_is_away_still_leaves(site, monkeypatch):
    await site.control()
    await site.deploy("f", num_replicas=2)
    await site.settled("f")
    tries = failing(site.store, "put_routes", 3, monkeypatch)
    await site.deploy("f", num_replicas=1)
    await site.settled("f")
    assert len(site.running) == 1 and tries[0] >= 3


async def test_a_replica_that_starts_while_redis_is_away_still_starts(site, monkeypatch):
    await site.control()
    tries = failing(site.store, "emit", 4, monkeypatch)
    await site.deploy("f", num_replicas=2)
    await site.settled("f")
    assert len(site.running) == 2 and tries[0] >= 4


def failing(store, method, times, monkeypatch):
    """Let a method of the store lose Redis for its next calls; return the count of calls."""
    whole, tries = getattr(store, method), [0]

    async def broken(*args, **kwargs):
        tries[0] += 1
        if tries[0] <= times:
            raise RedisConnectionError("gone")
        return await whole(*args, **kwargs)

    monkeypatch.setattr(store, method, broken)
    return tries


# -- the engine -------------------------------------------------------------------------------------------


async def test_an_engine_that_is_away_is_waited_for(site):
    await site.control()
    await site.deploy("f")
    old = await site.settled("f")
    site.world.away = True
    await site.deploy("f", version="2")

    async def asked():
        return sum(method == "start" for method, _ in site.engine.calls) >= 2

    await site.until(asked, "a try to start")
    site.world.away = False
    assert not set(await site.settled("f")) & set(old)
    assert len(site.running) == 1


async def test_replicas_that_ended_while_the_engine_was_away_are_replaced(site):
    await site.control()
    await site.deploy("f", num_replicas=2)
    old = await site.settled("f")
    site.world.away = True
    for replica_id in old:
        site.world.die(replica_id, announce=False)
    site.world.away = False

    async def replaced():
        return len(site.running) == 2 and not set(site.running) & set(old)

    await site.until(replaced, "two new replicas")
    assert await site.settled("f") == site.running


async def test_a_replica_that_is_overtaken_while_the_engine_starts_it_is_no_orphan(site):
    await site.control()
    gate = site.world.hang("f")
    await site.deploy("f")

    async def asked():
        return [id for method, id in site.engine.calls if method == "start"]

    [overtaken] = await site.until(asked, "a start")
    await site.deploy("f", version="2")

    async def draining():
        status = await site.store.status("f")
        return status and any(r.id == overtaken and r.state == "DRAINING" for r in status.replicas)

    await site.until(draining, "the overtaken one to be told to leave")
    gate.set()
    assert overtaken not in await site.settled("f")
    await nothing_to_stop(site)


async def test_a_failing_update_keeps_the_old_replicas_and_cleans_up(site):
    await site.control()
    await site.deploy("f", num_replicas=2)
    old = await site.settled("f")
    site.engine.broken.add("f")
    await site.deploy("f", version="2", num_replicas=2)

    async def failed():
        desired = await site.store.desired("f")
        return desired and desired.failed and desired.failure

    failure = await site.until(failed, "the update to fail")
    assert failure.code == "constructor_failed"

    async def alone():
        return await nothing_to_stop(site) == old

    await site.until(alone, "only the old replicas to be left")
    site.engine.broken.clear()
    await site.deploy("f", version="2", num_replicas=2)
    assert not set(await site.settled("f")) & set(old)


# -- leadership -------------------------------------------------------------------------------------------


async def test_one_controller_leads_and_its_successor_has_a_greater_token(site):
    one, other = Leader(site.store, "one"), Leader(site.store, "other")
    await one.acquire()
    waiting = asyncio.create_task(other.acquire())
    await asyncio.sleep(0)
    assert not other.token
    await one.resign()
    await waiting
    assert other.token > one.token
    with pytest.raises(Fenced):
        await site.store.fenced(one.token, ["SET", "x", "1"])


async def test_a_leader_that_was_frozen_notices_before_it_acts(site, monkeypatch):
    one, other = Leader(site.store, "one"), Leader(site.store, "other")
    await one.acquire()
    await one.confirm()
    await site.store.redis.delete(keys.LEADER)  # its lease has run out
    await other.acquire()
    frozen = time.monotonic() + leadership.DOUBTFUL_AFTER_S + 1
    monkeypatch.setattr(leadership.time, "monotonic", lambda: frozen)
    with pytest.raises(Fenced, match="another controller leads"):
        await one.confirm()
    await other.resign()  # and though nobody leads now, what the frozen one knows is out of date
    with pytest.raises(Fenced, match="has led meanwhile"):
        await one.confirm()


async def test_a_lease_that_ran_out_unnoticed_is_taken_again(site, monkeypatch):
    one = Leader(site.store, "one")
    await one.acquire()
    held = one.token
    await site.store.redis.flushall()
    later = time.monotonic() + leadership.DOUBTFUL_AFTER_S + 1
    monkeypatch.setattr(leadership.time, "monotonic", lambda: later)
    await one.confirm()
    assert one.token == held + 1


# -- why replicas die --------------------------------------------------------------------------------------


async def deaths(site: Any, name: str, count: int) -> list[tuple[str, str, str]]:
    """Wait until so many deaths are told in the status of a deployment; return them."""

    async def told() -> Any:
        status = await site.store.status(name)
        return status if status and len(status.lost) == count else None

    status = await site.until(told, f"{count} deaths of {name} to be told")
    return [(lost.replica, lost.code, lost.message) for lost in status.lost]


async def test_why_a_replica_died_stays_in_the_status_and_in_its_log(site):
    controller = await site.control()
    await site.deploy("f")
    (first,) = await site.settled("f")
    site.world.say(first, b"taking more\n")
    site.world.die(first, exit_code=0, oom=True)  # a child was killed, and the main process left in peace
    killed = (first, "out_of_memory", f"replica {first} was killed: out of memory (the host has no more)")
    assert await deaths(site, "f", 1) == [killed]
    (second,) = await site.settled("f")
    log = site.layout.replica_log("f", first)
    await site.until(lambda: in_file(log, f"taking more\nfngw: {killed[2]}\n"), "the log to be kept")
    await site.kill(controller)
    await site.control()
    await site.deploy("f", num_replicas=2)
    await site.settled("f")  # by the new controller, which knows them therefore
    site.world.die(second, exit_code=3)
    assert await deaths(site, "f", 2) == [killed, (second, "replica_died", f"replica {second} died with status 3")]


async def in_file(path: Any, text: str) -> bool:
    return bool(path.exists() and text == path.read_text())


async def test_how_a_replica_ended_is_known_though_the_event_was_lost(site, monkeypatch):
    monkeypatch.setattr(controllers, "SWEEP_S", 0.1)
    await site.control()
    await site.deploy("f")
    (replica,) = await site.settled("f")
    site.world.die(replica, exit_code=137, oom=True, announce=False)
    ((lost, code, _),) = await deaths(site, "f", 1)
    assert (lost, code) == (replica, "out_of_memory")
