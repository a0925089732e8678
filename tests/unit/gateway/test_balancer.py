"""Which replica, or which place in the queue; in virtual time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fngw.errors import FngwError
from fngw_gateway.proxy.balancer import Backend, Replica
from fngw_state.records import RoutedDeployment, RoutedReplica

from .virtual_loop import VirtualLoop, settle


def entry(*ids: str, most: int = 2, queued: int = 10, timeout: float | None = None) -> RoutedDeployment:
    replicas = tuple(RoutedReplica(i, f"/nowhere/{i}.sock") for i in ids)
    return RoutedDeployment("f", "/f", replicas, most, queued, timeout)


def backend(*ids: str, loop: Any = None, **more: Any) -> Backend:
    return Backend(entry(*ids, **more), loop or VirtualLoop(), random.Random(1).random)


def take(b: Backend) -> Replica:
    replica = b.take()
    assert replica is not None
    return replica


@pytest.fixture
def waiting() -> Iterator[list[asyncio.Task[Any]]]:
    tasks: list[asyncio.Task[Any]] = []
    yield tasks
    for task in tasks:
        task.cancel()


def code(task: asyncio.Task[Any]) -> str:
    error = task.exception()
    assert isinstance(error, FngwError)
    return error.code


# -- choosing ---------------------------------------------------------------------------------------------


def test_never_more_in_flight_than_a_replica_takes() -> None:
    b = backend("a", "b", "c", most=2)
    assert all(b.take() for _ in range(6))
    assert b.take() is None
    assert b.in_flight == {"a": 2, "b": 2, "c": 2}


def test_of_two_the_one_with_fewer_in_flight() -> None:
    b = backend("a", "b", most=100)
    for _ in range(40):
        take(b)
    assert b.in_flight == {"a": 20, "b": 20}


def test_many_replicas_fill_evenly() -> None:
    b = backend(*"abcdefghij", most=1000)
    for _ in range(1000):
        take(b)
    assert max(b.in_flight.values()) - min(b.in_flight.values()) <= 6


def test_nothing_to_take_without_replicas() -> None:
    assert backend().take() is None


# -- the queue --------------------------------------------------------------------------------------------


async def test_first_come_first_served(waiting: list[asyncio.Task[Any]]) -> None:
    b = backend("a", most=1)
    held = take(b)
    order: list[int] = []

    async def request(number: int) -> None:
        replica = await b.wait(float(number))
        order.append(number)
        b.release(replica)

    waiting += [asyncio.create_task(request(n)) for n in range(5)]
    await settle()
    assert b.take() is None
    b.release(held)
    await asyncio.gather(*waiting)
    assert order == [0, 1, 2, 3, 4]
    assert b.in_flight == {"a": 0}


async def test_who_comes_back_gets_the_old_place(waiting: list[asyncio.Task[Any]]) -> None:
    b = backend("a", most=1)
    held = take(b)
    later = asyncio.create_task(b.wait(5.0))
    await settle()
    earlier = asyncio.create_task(b.wait(1.0, again=True))
    waiting += [later, earlier]
    await settle()
    b.release(held)
    await settle()
    assert earlier.done()
    assert not later.done()


async def test_a_newcomer_does_not_overtake_the_queue(waiting: list[asyncio.Task[Any]]) -> None:
    b = backend("a", most=1)
    held = take(b)
    waiting.append(asyncio.create_task(b.wait(1.0)))
    await settle()
    b.release(held)
    assert b.take() is None
    assert await waiting[0]


async def test_a_full_queue_refuses(waiting: list[asyncio.Task[Any]]) -> None:
    b = backend("a", most=1, queued=2)
    take(b)
    waiting += [asyncio.create_task(b.wait(float(n))) for n in range(3)]
    await settle()
    assert code(waiting[2]) == "overloaded"
    assert b.queued == 2
    again = asyncio.create_task(b.wait(0.0, again=True))
    waiting.append(again)
    await settle()
    assert not again.done()


async def test_who_leaves_the_queue_makes_room(waiting: list[asyncio.Task[Any]]) -> None:
    loop = VirtualLoop()
    b = backend("a", most=1, queued=1, loop=loop)
    held = take(b)
    first = asyncio.create_task(b.wait(1.0))
    await settle()
    first.cancel()
    await settle()
    assert b.queued == 0
    second = asyncio.create_task(b.wait(2.0))
    await settle()
    b.release(held)
    assert (await second).id == "a"
    assert loop.pending == 0


async def test_a_place_granted_to_one_who_just_left_is_passed_on(waiting: list[asyncio.Task[Any]]) -> None:
    b = backend("a", most=1)
    held = take(b)
    first = asyncio.create_task(b.wait(1.0))
    second = asyncio.create_task(b.wait(2.0))
    await settle()
    b.release(held)
    first.cancel()  # in the same turn of the loop
    assert (await second).id == "a"
    assert first.cancelled()
    assert b.in_flight == {"a": 1}


# -- no replicas ------------------------------------------------------------------------------------------


async def test_waits_for_a_replica_and_gives_up_after_30_s(waiting: list[asyncio.Task[Any]]) -> None:
    loop = VirtualLoop()
    b = backend(loop=loop)
    waiting.append(asyncio.create_task(b.wait(1.0)))
    await loop.advance(29.9)
    assert not waiting[0].done()
    await loop.advance(0.2)
    assert code(waiting[0]) == "no_replicas"


async def test_a_replica_that_comes_serves_those_who_wait(waiting: list[asyncio.Task[Any]]) -> None:
    loop = VirtualLoop()
    b = backend(loop=loop)
    waiting += [asyncio.create_task(b.wait(float(n))) for n in range(3)]
    await loop.advance(20)
    b.update(entry("new", most=2))
    await settle()
    assert [t.done() for t in waiting] == [True, True, False]
    await loop.advance(120)
    assert not waiting[2].done(), "busy is not absent"


async def test_the_30_s_begin_when_the_last_replica_leaves(waiting: list[asyncio.Task[Any]]) -> None:
    loop = VirtualLoop()
    b = backend("a", most=1, loop=loop)
    take(b)
    waiting.append(asyncio.create_task(b.wait(1.0)))
    await loop.advance(25)
    b.update(entry())
    await loop.advance(29)
    assert not waiting[0].done()
    await loop.advance(2)
    assert code(waiting[0]) == "no_replicas"


async def test_a_deployment_that_is_deleted_tells_those_who_wait(waiting: list[asyncio.Task[Any]]) -> None:
    b = backend()
    waiting.append(asyncio.create_task(b.wait(1.0)))
    await settle()
    b.close()
    await settle()
    assert code(waiting[0]) == "deployment_not_found"
    with pytest.raises(FngwError):
        await b.wait(2.0)


# -- full and unreachable ---------------------------------------------------------------------------------


async def test_a_gateway_that_stops_lets_nobody_wait_for_nothing(waiting: list[asyncio.Task[Any]]) -> None:
    loop = VirtualLoop()
    empty, full = backend(loop=loop), backend("a", loop=loop, most=1)
    replica = take(full)
    waiting += [asyncio.create_task(empty.wait(0)), asyncio.create_task(full.wait(0))]
    await settle()
    empty.leave()
    full.leave()
    await settle()
    assert code(waiting[0]) == "no_replicas"
    with pytest.raises(FngwError, match="stopping"):
        await empty.wait(1)
    assert not waiting[1].done()  # it comes to its turn
    full.release(replica)
    assert await waiting[1] is replica


async def test_a_full_replica_is_asked_again_after_a_pause(waiting: list[asyncio.Task[Any]]) -> None:
    loop = VirtualLoop()
    b = backend("a", most=10, loop=loop)
    b.refused(take(b))
    assert b.take() is None
    waiting += [asyncio.create_task(b.wait(float(n))) for n in range(3)]
    await loop.advance(0.006)
    assert [t.done() for t in waiting] == [True, False, False], "one asks for all"
    b.refused(waiting[0].result())
    await loop.advance(0.006)
    assert not waiting[1].done(), "the pause has doubled"
    await loop.advance(0.01)
    assert waiting[1].done()


async def test_room_grows_again_with_every_answer() -> None:
    b = backend("a", most=4)
    held = [take(b) for _ in range(3)]
    b.refused(held.pop())
    assert b.take() is None, "two in flight is what it takes for now"
    b.release(held.pop())
    assert take(b)
    assert take(b)
    assert b.take() is None


async def test_an_unreachable_replica_is_left_alone_and_counts_as_none(waiting: list[asyncio.Task[Any]]) -> None:
    loop = VirtualLoop()
    b = backend("a", "b", most=1, loop=loop)
    dead = take(b)
    b.unreachable(dead)
    assert take(b) is not dead
    assert b.reachable
    b.update(entry(dead.id, most=1))
    assert not b.reachable
    waiting.append(asyncio.create_task(b.wait(1.0)))
    while not waiting[0].done():
        await loop.advance(0.01)
    b.unreachable(waiting[0].result())
    waiting.append(asyncio.create_task(b.wait(2.0)))
    await loop.advance(0.5)
    b.reached(waiting[1].result())
    assert b.reachable


async def test_after_a_loss_another_replica_is_preferred() -> None:
    b = backend("a", "b", most=1)
    assert (await b.wait(1.0, avoid="a")).id == "b"
    assert (await b.wait(1.0, avoid="b")).id == "a"
    alone = backend("a")
    assert (await alone.wait(1.0, avoid="a")).id == "a"


# -- the table --------------------------------------------------------------------------------------------


async def test_counts_survive_a_swap_and_those_who_left_finish() -> None:
    b = backend("a", "b", most=2)
    held = [take(b) for _ in range(4)]
    b.update(entry("b", "c", most=2))
    assert b.in_flight == {"b": 2, "c": 0}
    for replica in held:
        b.release(replica)
    assert b.in_flight == {"b": 0, "c": 0}
    assert {r.in_flight for r in held} == {0}


async def test_a_new_limit_applies_at_once(waiting: list[asyncio.Task[Any]]) -> None:
    b = backend("a", most=1)
    take(b)
    waiting += [asyncio.create_task(b.wait(float(n))) for n in range(2)]
    await settle()
    b.update(entry("a", most=3, timeout=2.5))
    await settle()
    assert b.in_flight == {"a": 3}
    assert b.request_timeout_s == 2.5


@given(st.lists(st.sampled_from(["take", "release", "give", "refuse", "lose", "more", "fewer"]), max_size=60))
def test_counts_are_right_whatever_happens(steps: list[str]) -> None:
    """In flight is what was taken and not yet given back, never above the limit."""
    b = backend("a", "b", "c", most=3)
    held: list[Replica] = []
    for step in steps:
        if step == "take":
            replica = b.take()
            held += [replica] if replica else []
        elif step == "more":
            b.update(entry("a", "b", "c", most=3))
        elif step == "fewer":
            b.update(entry("a", "c", most=3))
        elif held:
            give = {"release": b.release, "give": b.give_back, "refuse": b.refused, "lose": b.unreachable}[step]
            give(held.pop(0))
    for replica in held:
        assert 0 < replica.in_flight <= 3
    assert sum(b.in_flight.values()) <= len(held)
    for replica in list(held):
        b.release(replica)
    assert set(b.in_flight.values()) == {0}
