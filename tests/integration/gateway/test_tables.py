"""Following the routing table in a real Redis, also when it goes, comes back, or has forgotten."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator

import pytest

from fngw_gateway.tables import READ_EVERY_S, Tables, gateway_id
from fngw_state import keys
from fngw_state.records import RoutedDeployment, RoutingTable
from fngw_state.store import LOST, Store

from .conftest import RedisServer
from .wire import eventually


def table(generation: int, name: str = "f") -> RoutingTable:
    return RoutingTable(generation, (RoutedDeployment(name, f"/{name}", (), 1, 1, None),))


async def publish(store: Store, name: str = "f") -> RoutingTable:
    """Publish a table as the controller does: with a number of its own."""
    new = table(await store.next_number(), name)
    await store.put_routes(await store.lead("c"), new)
    return new


class Following:
    """A ``Tables`` and what it applied."""

    def __init__(self, store: Store) -> None:
        self.applied: list[RoutingTable] = []
        self.store = store
        self.tables = Tables(store, "g1", self.applied.append)

    @property
    def last(self) -> RoutingTable | None:
        return self.applied[-1] if self.applied else None

    async def acknowledged(self) -> int | None:
        try:
            return (await self.store.gateways()).get("g1")
        except LOST:
            return None

    async def acknowledges(self, generation: int) -> None:
        async def is_it() -> bool:
            return await self.acknowledged() == generation

        await eventually(is_it)


@contextlib.asynccontextmanager
async def following(store: Store, wait_s: float = 60) -> AsyncIterator[Following]:
    it = Following(store)
    await it.tables.start(wait_s)
    try:
        yield it
    finally:
        await it.tables.stop()


async def test_the_table_is_read_at_the_start_and_acknowledged(store: Store) -> None:
    first = await publish(store)
    async with following(store) as it:
        assert it.applied == [first]
        await it.acknowledges(first.generation)
    assert await store.gateways() == {}


async def test_no_table_yet_is_an_empty_one(store: Store) -> None:
    async with following(store) as it:
        assert it.tables.lost is None
        assert it.applied == [RoutingTable()]
        await it.acknowledges(0)
        first = await publish(store)
        await it.acknowledges(first.generation)
        assert it.last == first


async def test_a_nudge_is_faster_than_the_clock(store: Store) -> None:
    async with following(store) as it:
        await publish(store)
        await eventually(lambda: len(it.applied) == 2)
        took = []
        for number in range(3, 8):
            began = time.monotonic()
            await publish(store)
            await eventually(lambda n=number: len(it.applied) == n)
            took.append(time.monotonic() - began)
        assert sorted(took)[2] < READ_EVERY_S / 4


async def test_without_a_nudge_the_table_is_found_soon(store: Store) -> None:
    async with following(store) as it:
        await store.redis.set(keys.ROUTES, table(await store.next_number()).to_json())
        await eventually(lambda: len(it.applied) == 2, READ_EVERY_S * 3)


async def test_the_acknowledgement_stays_alive(store: Store) -> None:
    async with following(store) as it:
        await it.acknowledges(0)
        await store.redis.pexpire(keys.GATEWAY + "g1", 100)

        async def renewed() -> bool:
            return int(await store.redis.pttl(keys.GATEWAY + "g1")) > 1000

        await eventually(renewed)


async def test_an_older_table_is_ignored(store: Store) -> None:
    old = await publish(store)
    async with following(store) as it:
        new = await publish(store, "g")
        await it.acknowledges(new.generation)
        await store.next_number()
        await store.redis.set(keys.ROUTES, old.to_json())
        await it.tables.read()
        assert it.last == new
        assert await it.acknowledged() == new.generation


async def test_an_emptied_redis_keeps_the_table_in_use(store: Store) -> None:
    for _ in range(5):
        await publish(store)
    async with following(store) as it:
        in_use = it.last
        await store.redis.flushall()
        await it.acknowledges(0)
        assert it.last == in_use
        anew = await publish(store, "anew")
        assert anew.generation < in_use.generation  # type: ignore[union-attr]
        await it.acknowledges(anew.generation)
        assert it.last == anew


async def test_a_redis_that_was_emptied_unseen_counts_anew(store: Store) -> None:
    for _ in range(5):
        await publish(store)
    async with following(store) as it:
        await store.redis.execute_command(
            "EVAL", "redis.call('FLUSHALL') redis.call('INCR', KEYS[1])", 1, keys.GENERATION
        )
        await store.redis.set(keys.ROUTES, table(1, "anew").to_json())
        await eventually(lambda: it.last == table(1, "anew"))


async def test_redis_killed_and_restarted(redis: RedisServer, store: Store) -> None:
    first = await publish(store)
    async with following(store) as it:
        await redis.kill()
        await eventually(lambda: it.tables.lost is not None, 60)
        assert it.applied == [first]
        await redis.start()
        await eventually(lambda: it.tables.lost is None, 60)
        anew = await publish(store, "anew")
        await it.acknowledges(anew.generation)
        assert it.last == anew


@pytest.mark.parametrize("redis", ["append_only"], indirect=True)
async def test_a_redis_that_comes_back_with_its_data_changes_nothing(redis: RedisServer, store: Store) -> None:
    first = await publish(store)
    async with following(store) as it:
        await redis.kill()
        await redis.start()
        await eventually(lambda: it.tables.lost is None, 60)
        await it.acknowledges(first.generation)
        assert it.applied == [first]


async def test_starting_without_redis(redis: RedisServer, store: Store) -> None:
    await redis.kill()
    async with following(store, wait_s=0.5) as it:
        assert it.tables.table is None
        assert it.tables.lost
        await redis.start()
        await eventually(lambda: it.applied == [RoutingTable()], 60)
        assert it.tables.lost is None


def test_gateway_ids_differ_between_starts() -> None:
    assert gateway_id() != gateway_id()
