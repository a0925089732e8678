"""The log of a deployment, read over the controller's socket while its replicas come and go."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import time
from collections.abc import AsyncIterator, Callable

import httpx
import pytest

from fngw_controller.logs import LogServer

DEADLINE_S = 60.0


class Reader:
    """Somebody who follows a log."""

    def __init__(self, lines: AsyncIterator[str]) -> None:
        self._lines = lines

    async def next(self) -> str:
        async with asyncio.timeout(DEADLINE_S):
            return await anext(self._lines)

    async def rest(self) -> list[str]:
        async with asyncio.timeout(DEADLINE_S):
            return [line async for line in self._lines]


@pytest.fixture
async def client(site) -> AsyncIterator[httpx.AsyncClient]:
    """A gateway's connection to the log server."""
    server = LogServer(site.engine, site.layout, site.store)
    await server.start()
    transport = httpx.AsyncHTTPTransport(uds=str(site.layout.controller_socket))
    async with httpx.AsyncClient(transport=transport, base_url="http://controller", timeout=DEADLINE_S) as client:
        yield client
    await server.stop()


@pytest.fixture
def read(client) -> Callable[..., object]:
    """Read a log to its end: its lines."""

    async def lines(name: str, **query: object) -> list[str]:
        answer = await client.get(f"/logs/{name}", params=query)
        assert answer.status_code == 200, answer.text
        return answer.text.splitlines()

    return lines


async def test_replicas_that_start_later_are_followed_and_those_that_go_end(site, client):
    await site.control()
    await site.deploy("Greeter")
    (old,) = await site.settled("Greeter")
    site.world.say(old, b"one\ntwo\n")
    async with client.stream("GET", "/logs/Greeter", params={"follow": 1, "tail": 1}) as answer:
        reader = Reader(answer.aiter_lines())
        assert await reader.next() == f"{old} | two"

        await site.deploy("Greeter", "2")
        (new,) = await site.settled("Greeter")
        site.world.say(new, b"hello\n")
        assert await reader.next() == f"{new} | hello"

        third = await crash(site, "Greeter", new)
        site.world.say(third, b"back\n")
        assert await reader.next() == f"{third} | back"

        await delete(site, "Greeter")
        assert await reader.rest() == []


async def test_who_lives_shorter_than_a_look_is_read_from_what_is_kept(site, client):
    await site.deploy("Greeter")
    async with client.stream("GET", "/logs/Greeter", params={"follow": 1}) as answer:
        keep(site, "Greeter", "gone", "Traceback …\nValueError: no")
        reader = Reader(answer.aiter_lines())
        assert [await reader.next(), await reader.next()] == ["gone | Traceback …", "gone | ValueError: no"]
        await site.store.remove_desired(await site.store.desired("Greeter"))
        assert await reader.rest() == []


async def test_past_replicas_come_first_and_only_what_is_asked_for(site, read):
    await site.control()
    await site.deploy("Greeter")
    (replica,) = await site.settled("Greeter")
    keep(site, "Greeter", "older", "a\nb\nc", age_s=7200)
    keep(site, "Greeter", "newer", "d\ne", age_s=60)
    site.world.say(replica, b"f\nunfinished")

    every = ["older | a", "older | b", "older | c", "newer | d", "newer | e"]
    assert await read("Greeter") == [*every, f"{replica} | f", f"{replica} | unfinished"]
    assert await read("Greeter", tail=1) == ["older | c", "newer | e", f"{replica} | unfinished"]
    assert await read("Greeter", tail=0) == []
    recent = await read("Greeter", since=time.time() - 600)
    assert recent == [*every[3:], f"{replica} | f", f"{replica} | unfinished"]


async def test_a_log_that_is_written_before_the_engine_knows_its_replica_is_not_taken_for_a_past_one(site, read):
    await site.deploy("Greeter")
    keep(site, "Greeter", "starting", "first words")
    site.layout.replica_dir("starting").mkdir(parents=True)
    assert await read("Greeter") == []


async def test_an_engine_that_is_away_is_told_and_survived(site, client, read):
    await site.control()
    await site.deploy("Greeter")
    (replica,) = await site.settled("Greeter")
    async with client.stream("GET", "/logs/Greeter", params={"follow": 1}) as answer:
        reader = Reader(answer.aiter_lines())
        site.world.say(replica, b"before\n")
        assert await reader.next() == f"{replica} | before"
        asked = len(site.engine.calls)
        site.world.away = True
        refused = await client.get("/logs/Greeter")
        assert (refused.status_code, refused.json()["code"]) == (503, "engine_unreachable")

        async def asked_again() -> bool:
            return len(site.engine.calls) > asked + 2

        await site.until(asked_again, "the engine to be asked while it is away")
        site.world.away = False
        await site.deploy("Greeter", "2")
        (new,) = await site.settled("Greeter")
        site.world.say(new, b"after\n")
        assert await reader.next() == f"{new} | after"


async def test_who_leaves_is_not_served_on(site, client):
    await site.deploy("Greeter")
    async with client.stream("GET", "/logs/Greeter", params={"follow": 1}):
        await site.until(lambda: looks(site), "the first look")
        tasks = {t for t in asyncio.all_tasks() if "LogReader" in repr(t.get_coro())}

    async def ended() -> bool:
        return all(t.done() for t in tasks)

    assert tasks
    await site.until(ended, "its tasks to end")


async def test_the_log_of_a_deleted_deployment_is_gone(site, read):
    await site.control()
    await site.deploy("Greeter")
    (old,) = await site.settled("Greeter")
    site.world.say(old, b"a secret\n")
    await crash(site, "Greeter", old)
    assert f"{old} | a secret" in await read("Greeter")
    await delete(site, "Greeter")
    assert not site.layout.replica_logs("Greeter").exists()
    await site.deploy("Greeter", "3")
    await site.settled("Greeter")
    assert await read("Greeter") == []


async def looks(site) -> bool:
    return ("list", "") in site.engine.calls


async def crash(site, name: str, replica: str) -> str:
    """Let the one replica of a deployment die; return the one that takes its place."""
    site.world.die(replica)

    async def replaced() -> str:
        (found,) = await site.settled(name)
        return "" if found == replica else found

    return await site.until(replaced, f"a replica in the place of {replica}")


async def delete(site, name: str) -> None:
    """Delete a deployment as a gateway does, and wait until it is gone."""

    async def marked() -> bool:
        before = await site.store.desired(name)
        return await site.store.put_desired(before, dataclasses.replace(before, deleting=True))

    async def gone() -> bool:
        return await site.store.desired(name) is None

    await site.until(marked, "the mark")
    await site.until(gone, f"{name} to be gone")


def keep(site, name: str, replica: str, text: str, age_s: float = 0) -> None:
    """Leave the log of a replica that is gone."""
    path = site.layout.replica_log(name, replica)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".new")
    draft.write_text(text)
    os.utime(draft, (time.time() - age_s,) * 2)
    draft.rename(path)
