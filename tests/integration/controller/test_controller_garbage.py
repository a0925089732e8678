"""The collector on a real Redis and real files: what it clears away, and when it keeps its hands off."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fngw_controller import garbage
from fngw_controller.engines.base import EngineError, EngineUnavailable
from fngw_controller.garbage import GRACE_S, Collector, Garbage, remove
from fngw_state import keys
from fngw_state.history import History
from fngw_state.records import Artifact
from fngw_state.store import LOST, Fenced, Store, connect


class Builds:
    """Images as a builder makes them: noted in Redis, with a folder for local processes."""

    def __init__(self, site: Any) -> None:
        self._site = site

    async def ensure(self, spec: Any, report: Any) -> tuple[Artifact, bool]:
        folder = self._site.layout.code / f"{spec.name}-{spec.version}"
        folder.mkdir(exist_ok=True)
        ref = f"app:{spec.name}-{spec.version}"
        await self._site.store.redis.zadd(keys.IMAGES, {ref: time.time()})
        return Artifact(f"sha256:{spec.version}", ref=ref, app_dir=str(folder)), True

    async def cancel(self, spec: Any) -> None:
        """There is never one under way."""


def digest(word: str) -> str:
    return "sha256:" + hashlib.sha256(word.encode()).hexdigest()


def upload(site: Any, word: str) -> str:
    path: Path = site.layout.blob(digest(word))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(word)
    return digest(word)


async def deploy(site: Any, name: str, version: str) -> None:
    await site.deploy(name, version=version, init=upload(site, f"{name} {version}"))
    await site.settled(name)


async def age(site: Any) -> None:
    """Two hours go by in which nobody asks for anything."""
    long_ago = time.time() - 2 * GRACE_S
    for path in (*site.layout.blobs.glob("*/*/*"), *site.layout.code.glob("*")):
        os.utime(path, (long_ago, long_ago))
    images = await site.store.redis.zrange(keys.IMAGES, 0, -1)
    if images:
        await site.store.redis.zadd(keys.IMAGES, dict.fromkeys(images, long_ago))
    await site.store.redis.set(keys.INSTALLED, repr(long_ago), xx=True)


def blobs(site: Any) -> set[str]:
    return {path.read_text() for path in site.layout.blobs.glob("*/*/*")}


def folders(site: Any) -> set[str]:
    return {path.name for path in site.layout.code.glob("*")}


async def versions(site: Any, name: str) -> list[str | None]:
    return [v.version for v in await History(site.store).versions(name)]


@pytest.fixture
async def collector(site: Any) -> AsyncIterator[Collector]:
    """One that keeps two versions, of a controller that leads and runs replicas, with its own collector asleep."""
    site.images = Builds(site)
    await site.control()
    yield Collector(site.rooms(site.leader), keep=2)


async def test_old_versions_go_with_all_that_was_theirs(site: Any, collector: Collector) -> None:
    for version in "1234":
        await deploy(site, "f", version)
    await deploy(site, "g", "1")
    await age(site)
    await collector.collect()
    assert await versions(site, "f") == ["4", "3"]
    assert await versions(site, "g") == ["1"]
    assert blobs(site) == {"f 3", "f 4", "g 1"}
    assert folders(site) == {"f-3", "f-4", "g-1"}
    assert sorted(site.world.discarded) == ["app:f-1", "app:f-2"]
    known = await History(site.store).known()
    assert known and set(known.images) == {"app:f-3", "app:f-4", "app:g-1"}
    assert {a.ref for a in known.artifacts.values()} == set(known.images)
    assert await collector.collect() == Garbage(), "there is nothing left to do"


async def test_a_deleted_deployment_leaves_nothing(site: Any, collector: Collector) -> None:
    await deploy(site, "f", "1")
    desired = await site.store.desired("f")
    assert await site.store.put_desired(desired, dataclasses.replace(desired, deleting=True))

    async def gone() -> bool:
        return await site.store.desired("f") is None

    await site.until(gone, "the deletion")
    assert await versions(site, "f") == []
    await age(site)
    await collector.collect()
    assert (blobs(site), folders(site), site.world.discarded) == (set(), set(), ["app:f-1"])


async def test_what_is_used_or_was_just_asked_for_stays_until_it_is_not(site: Any, collector: Collector) -> None:
    await deploy(site, "f", "1")
    replica = next(iter(site.world.replicas.values())).spec
    await age(site)
    await site.store.redis.zadd(keys.IMAGES, {"app:other": 0.0, "app:used": 0.0})
    user = dataclasses.replace(replica, id="stray", artifact=Artifact("", ref="app:used"))
    await site.world.run("another installation", user)
    upload(site, "on its way")
    await collector.collect()
    assert site.world.discarded == ["app:other"]
    assert blobs(site) == {"f 1", "on its way"}

    site.world.remove("stray")
    await age(site)
    await collector.collect()
    assert site.world.discarded == ["app:other", "app:used"], "it was tried again"
    assert blobs(site) == {"f 1"}


async def test_a_replica_that_still_drains_keeps_what_it_runs_from(
    site: Any, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    await deploy(site, "f", "1")
    release, stop = asyncio.Event(), site.engine.stop

    async def slowly(id: str, timeout_s: float) -> None:
        await release.wait()
        await stop(id, timeout_s)

    monkeypatch.setattr(site.engine, "stop", slowly)
    for version in "234":
        await site.deploy("f", version=version, init=upload(site, f"f {version}"))

        async def settled() -> bool:
            desired = await site.store.desired("f")
            return bool(desired.settled)

        await site.until(settled, "the rollout")
    await age(site)
    await collector.collect()
    assert folders(site) == {"f-1", "f-2", "f-3", "f-4"}
    assert not site.world.discarded

    release.set()
    await site.settled("f")
    await collector.collect()
    assert folders(site) == {"f-3", "f-4"}


async def test_a_redis_that_is_away_or_empty_takes_nothing_along(site: Any, collector: Collector) -> None:
    await deploy(site, "f", "1")
    await age(site)
    away = Store(connect("unix:///nowhere/redis.sock"))
    rooms = dataclasses.replace(collector._rooms, history=History(away))
    with pytest.raises(LOST):
        await Collector(rooms, keep=1).collect()
    await away.close()

    await site.store.redis.delete(keys.INSTALLED, keys.DESIRED, keys.VERSIONS + "f", keys.ARTIFACTS)
    assert await collector.collect() == Garbage()
    assert (blobs(site), folders(site)) == ({"f 1"}, {"f-1"})


async def test_code_of_which_an_emptied_redis_knew_stays(site: Any, collector: Collector) -> None:
    for version in "12":
        await deploy(site, "f", version)
    await age(site)
    await site.store.redis.flushall()
    await site.until(lambda: site.store.in_use(), "the restoration")

    async def noted() -> bool:
        known = await History(site.store).known()
        return known is not None and len(known.artifacts) == 1

    await site.until(noted, "the artifact to be noted again")
    await collector.collect()
    assert blobs(site) == {"f 1", "f 2"}, "another Redis may know the first version"
    assert folders(site) == {"f-2"}, "and can have its folder made again"


async def test_only_the_leader_clears_away(site: Any, collector: Collector) -> None:
    for version in "123":
        await deploy(site, "f", version)
    await age(site)
    await site.store.redis.incr(keys.FENCE)  # what a new leader does
    with pytest.raises(Fenced):
        await collector.collect()
    assert blobs(site) == {"f 1", "f 2", "f 3"}
    assert not site.world.discarded


async def test_one_image_that_the_engine_will_not_remove_holds_up_no_other(
    site: Any, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in "1234":
        await deploy(site, "f", version)
    await age(site)
    discard = site.engine.discard

    async def stubborn(image: str) -> bool:
        if image == "app:f-1":
            raise EngineError("the engine refused")
        return bool(await discard(image))

    monkeypatch.setattr(site.engine, "discard", stubborn)
    await collector.collect()
    assert site.world.discarded == ["app:f-2"]
    assert await site.store.redis.zrange(keys.IMAGES, 0, -1) == ["app:f-1", "app:f-3", "app:f-4"]


async def test_an_absent_engine_is_waited_for(site: Any, collector: Collector) -> None:
    await deploy(site, "f", "1")
    await age(site)
    site.world.away = True
    with pytest.raises(EngineUnavailable):
        await collector.collect()
    site.world.away = False
    assert blobs(site) == {"f 1"}


async def test_it_goes_on_after_every_change_whatever_happened(
    site: Any, collector: Collector, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(garbage, "CALM_S", 0.01)
    for version in "123":
        await deploy(site, "f", version)
    known = collector._rooms.history.known
    troubles: list[Exception] = [RuntimeError("a bug"), ConnectionError("away")]

    async def troubled() -> Any:
        if troubles:
            raise troubles.pop(0)
        return await known()

    monkeypatch.setattr(collector._rooms.history, "known", troubled)
    running = asyncio.create_task(collector.run())

    async def pruned() -> bool:
        collector.wake()
        return await versions(site, "f") == ["3", "2"]

    await site.until(pruned, "the first version to go")
    assert "clearing away failed" in caplog.text
    assert "nothing is cleared away for now: away" in caplog.text
    troubles.append(Fenced("another one leads"))
    collector.wake()
    with pytest.raises(Fenced):
        await running


async def test_changes_and_ends_wake_it(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(garbage, "CALM_S", 0.01)
    looks = []

    async def collect(self: Collector) -> Garbage:
        looks.append(1)
        return Garbage()

    async def looked() -> bool:
        return bool(looks)

    monkeypatch.setattr(Collector, "collect", collect)
    await site.control()
    await site.until(looked, "a look at the start")
    looks.clear()
    await site.deploy("f")
    [replica] = await site.settled("f")
    await site.until(looked, "a look after the deploy")
    looks.clear()
    site.world.die(replica)
    await site.until(looked, "a look after the end of a replica")


def test_what_is_asked_for_at_the_last_moment_stays(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = time.time() - GRACE_S
    claimed, old, folder = tmp_path / "claimed", tmp_path / "old", tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    for path in (claimed, old):
        path.write_text(path.name)
    for path in (old, folder):
        os.utime(path, (before - 1, before - 1))
    remove((tmp_path / "gone", claimed, old, folder), before)
    assert [path.name for path in tmp_path.iterdir()] == ["claimed"]
    assert claimed.read_text() == "claimed"
    assert "gone is not cleared away" in caplog.text
