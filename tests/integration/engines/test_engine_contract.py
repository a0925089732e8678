"""One suite for every engine: what `fngw_controller.engines.base.Engine` promises."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest

from fngw_controller.engines.base import Engine, Instance, ReplicaNotRunning, StartFailed
from fngw_state.records import Artifact

from .engine_rigs import Rig, eventually, next_event, read_all, read_until, seen


@pytest.fixture
def engine(rig: Rig) -> Engine:
    return rig.engine()


async def listed(engine: Engine, id: str) -> Instance | None:
    return next((i for i in await engine.list() if i.id == id), None)


async def dead(engine: Engine, id: str) -> Instance | None:
    found = await listed(engine, id)
    return found if found and not found.running else None


async def test_check_says_what_answers(engine: Engine) -> None:
    info = await engine.check()
    assert info.name == engine.name
    assert info.version
    assert str(info)


async def test_a_started_replica_is_listed_with_all_that_identifies_it(rig: Rig, engine: Engine) -> None:
    before = time.time() - 5
    spec = rig.spec("My_Model-2", version="1.0 (beta)/ä", generation=12, number=34)
    started = await engine.start(spec)
    assert await engine.list() == [started]
    expected = Instance(
        id=spec.id,
        deployment="My_Model-2",
        generation=12,
        version="1.0 (beta)/ä",
        number=34,
        running=True,
        pid=started.pid,
        gpus=(),
        started_at=started.started_at,
        exit_code=None,
    )
    assert started == expected
    assert started.pid
    assert before < started.started_at < time.time() + 5


async def test_no_version_is_not_an_empty_one(rig: Rig, engine: Engine) -> None:
    none, empty = rig.spec(version=None), rig.spec(version="")
    await engine.start(none)
    await engine.start(empty)
    assert {i.id: i.version for i in await engine.list()} == {none.id: None, empty.id: ""}


async def test_starting_twice_gives_the_same_replica(rig: Rig, engine: Engine) -> None:
    spec = rig.spec()
    first = await engine.start(spec)
    assert await engine.start(spec) == first
    assert await engine.list() == [first]


async def test_a_dead_replica_is_not_revived(rig: Rig, engine: Engine) -> None:
    spec = rig.spec()
    rig.kill(await engine.start(spec))
    await eventually(lambda: dead(engine, spec.id), "its death")
    assert not (await engine.start(spec)).running


async def test_stop_leaves_nothing_and_may_be_repeated(rig: Rig, engine: Engine) -> None:
    spec = rig.spec()
    await engine.start(spec)
    await engine.stop(spec.id, 5)
    assert await engine.list() == []
    await eventually(lambda: rig.traces(spec.id) == [], "no traces")
    await engine.stop(spec.id, 5)
    await engine.stop("never-was", 5)


async def test_a_dead_one_is_listed_with_its_exit_code_until_stopped(rig: Rig, engine: Engine) -> None:
    spec = rig.spec()
    await engine.start(spec)
    rig.order(spec, "exit 3")
    found = await eventually(lambda: dead(engine, spec.id), "its death")
    # The end is seen first, its code a moment later.
    found = await eventually(lambda: dead_with_code(engine, spec.id), "its exit code")
    assert (found.running, found.pid, found.exit_code) == (False, None, 3)
    await engine.stop(spec.id, 5)
    assert await engine.list() == []


async def dead_with_code(engine: Engine, id: str) -> Instance | None:
    found = await dead(engine, id)
    return found if found and found.exit_code is not None else None


async def test_a_death_is_announced_in_time(rig: Rig, engine: Engine) -> None:
    spec = rig.spec()
    instance = await engine.start(spec)
    async with contextlib.aclosing(engine.events()) as events:
        assert await next_event(events) is None
        killed_at = time.time()
        rig.kill(instance)
        exited = await next_event(events)
    assert exited is not None
    assert (exited.id, exited.deployment, exited.exit_code, exited.oom) == (spec.id, "Greeter", 137, False)
    assert killed_at - 1 < exited.at < time.time() + 1  # and `next_event` waits only so long


async def test_an_end_by_itself_is_announced_with_its_exit_code(rig: Rig, engine: Engine) -> None:
    spec = rig.spec()
    await engine.start(spec)
    async with contextlib.aclosing(engine.events()) as events:
        assert await next_event(events) is None
        rig.order(spec, "exit 42")
        exited = await next_event(events)
    assert exited is not None and exited.exit_code == 42


async def test_all_listeners_hear_all_ends(rig: Rig, engine: Engine) -> None:
    spec = rig.spec()
    instance = await engine.start(spec)
    async with contextlib.aclosing(engine.events()) as one, contextlib.aclosing(engine.events()) as two:
        assert [await next_event(one), await next_event(two)] == [None, None]
        rig.kill(instance)
        heard = [await next_event(one), await next_event(two)]
    assert [exited and exited.id for exited in heard] == [spec.id, spec.id]


async def test_one_removed_by_hand_is_announced_and_forgotten(rig: Rig, engine: Engine) -> None:
    spec = rig.spec()
    await engine.start(spec)
    async with contextlib.aclosing(engine.events()) as events:
        assert await next_event(events) is None
        rig.remove_by_hand(spec.id)
        exited = await next_event(events)
    assert exited is not None and exited.id == spec.id
    await eventually(lambda: gone(engine, spec.id), "its removal")
    await engine.stop(spec.id, 5)


async def gone(engine: Engine, id: str) -> bool:
    return await listed(engine, id) is None


async def test_a_start_that_fails_leaves_nothing(rig: Rig, engine: Engine) -> None:
    spec = rig.broken_spec()
    with pytest.raises(StartFailed) as caught:
        await engine.start(spec)
    assert caught.value.code and caught.value.message
    assert await engine.list() == []
    assert rig.traces(spec.id) == []


async def test_logs_hold_both_streams(rig: Rig, engine: Engine) -> None:
    spec = rig.spec()
    await engine.start(spec)
    for line in (b"hello\n", b"from stderr\n"):  # in no order: they are two pipes
        await read_until(engine.logs(spec.id, tail=None, since=None, follow=True), line)
    assert sorted((await read_all(engine.logs(spec.id, tail=None, since=None, follow=False))).splitlines()) == [
        b"from stderr",
        b"hello",
    ]


async def test_logs_tail_and_since(rig: Rig, engine: Engine) -> None:
    spec = rig.spec()
    await engine.start(spec)
    await read_until(engine.logs(spec.id, tail=None, since=None, follow=True), b"from stderr\n")
    rig.order(spec, "say the last words")
    await read_until(engine.logs(spec.id, tail=None, since=None, follow=True), b"the last words\n")
    assert await read_all(engine.logs(spec.id, tail=1, since=None, follow=False)) == b"the last words\n"
    assert await read_all(engine.logs(spec.id, tail=0, since=None, follow=False)) == b""
    assert await read_all(engine.logs(spec.id, tail=None, since=time.time() + 60, follow=False)) == b""
    assert b"last" in await read_all(engine.logs(spec.id, tail=None, since=time.time() - 60, follow=False))


async def test_followed_logs_go_on_until_the_replica_ends(rig: Rig, engine: Engine) -> None:
    spec = rig.spec()
    await engine.start(spec)
    await read_until(engine.logs(spec.id, tail=None, since=None, follow=True), b"from stderr\n")
    following = asyncio.create_task(read_all(engine.logs(spec.id, tail=0, since=None, follow=True)))
    # Said again and again, as nothing tells when the follower has begun.
    said = engine.logs(spec.id, tail=0, since=None, follow=True)
    speaking = asyncio.create_task(read_until(said, b"more\n"))

    def say_more() -> bool:
        if not (spec.directory / "order").exists():
            rig.order(spec, "say more")
        return speaking.done()

    await eventually(say_more, "the follower's first line")
    assert b"more" in await speaking
    await engine.stop(spec.id, 5)
    assert b"more" in await following


async def test_an_unknown_replica_has_no_logs(engine: Engine) -> None:
    assert await read_all(engine.logs("never-was", tail=None, since=None, follow=True)) == b""


async def test_a_dead_replica_keeps_its_logs_until_stopped(rig: Rig, engine: Engine) -> None:
    spec = rig.spec()
    await engine.start(spec)
    await read_until(engine.logs(spec.id, tail=None, since=None, follow=True), b"hello\n")
    rig.order(spec, "exit 1")
    await eventually(lambda: dead(engine, spec.id), "its death")
    assert b"hello" in await read_all(engine.logs(spec.id, tail=None, since=None, follow=False))


async def test_pause_and_unpause_may_be_repeated(rig: Rig, engine: Engine) -> None:
    spec = rig.spec()
    instance = await engine.start(spec)
    for _ in range(2):
        await engine.pause(spec.id)
    await eventually(lambda: rig.frozen(instance), "its freezing")
    found = await listed(engine, spec.id)
    assert found and found.running
    for _ in range(2):
        await engine.unpause(spec.id)
    assert not rig.frozen(instance)
    rig.order(spec, "say awake")
    await read_until(engine.logs(spec.id, tail=None, since=None, follow=True), b"awake")


async def test_a_frozen_replica_can_be_stopped(rig: Rig, engine: Engine) -> None:
    spec = rig.spec()
    await engine.start(spec)
    await engine.pause(spec.id)
    await engine.stop(spec.id, 5)
    assert await engine.list() == []


async def test_only_running_ones_can_be_paused(rig: Rig, engine: Engine) -> None:
    spec = rig.spec()
    rig.kill(await engine.start(spec))
    await eventually(lambda: dead(engine, spec.id), "its death")
    for id in (spec.id, "never-was"):
        with pytest.raises(ReplicaNotRunning):
            await engine.pause(id)
        with pytest.raises(ReplicaNotRunning):
            await engine.unpause(id)


async def test_another_engine_object_finds_and_rules_the_same_replicas(rig: Rig, engine: Engine) -> None:
    spec = rig.spec()
    started = await engine.start(spec)
    if engine.name != "fake":
        await seen(spec)
    await engine.close()
    second = rig.engine()
    assert await second.list() == [started]
    async with contextlib.aclosing(second.events()) as events:
        assert await next_event(events) is None
        rig.kill(started)
        exited = await next_event(events)
    assert exited is not None and exited.id == spec.id
    await second.stop(spec.id, 5)
    assert await second.list() == []


async def test_installations_do_not_see_each_other(rig: Rig, engine: Engine) -> None:
    other = rig.engine(rig.installation + "b")
    mine, theirs = rig.spec(), rig.spec()
    await engine.start(mine)
    await other.start(theirs)
    assert [i.id for i in await engine.list()] == [mine.id]
    assert [i.id for i in await other.list()] == [theirs.id]
    await other.stop(mine.id, 0)
    assert await read_all(other.logs(mine.id, tail=None, since=None, follow=False)) == b""
    assert [i.running for i in await engine.list()] == [True]


async def test_has_tells_whether_the_artifact_is_there(rig: Rig, engine: Engine) -> None:
    here = rig.spec().artifact
    gone = Artifact(image="sha256:" + "0" * 64, python="/no/such/python", app_dir="/no/such/app")
    if engine.name == "fake":
        engine.world.missing.add(gone)  # type: ignore[attr-defined]
    assert await engine.has(here)
    assert not await engine.has(gone)


async def test_an_image_is_discarded_once_no_replica_has_it(imaging_rig: Rig) -> None:
    engine, artifact = imaging_rig.engine(), imaging_rig.own_image()
    spec = imaging_rig.spec(artifact=artifact)
    await imaging_rig.engine(imaging_rig.installation + "b").start(spec)
    assert not await engine.discard(artifact.ref), "another installation's replica has it"
    imaging_rig.kill((await imaging_rig.engines[-1].list())[0])
    assert not await engine.discard(artifact.ref), "a dead one, too"
    assert await engine.has(artifact)

    await imaging_rig.engines[-1].stop(spec.id, 0)
    assert await engine.discard(artifact.ref)
    assert not await engine.has(artifact)
    assert await engine.discard(artifact.ref), "it may be repeated"


async def test_an_engine_without_images_has_none_to_discard(process_rig: Rig) -> None:
    assert await process_rig.engine().discard("fngw/app:0")


async def test_many_start_and_stop_at_once(rig: Rig, engine: Engine) -> None:
    specs = [rig.spec(f"D{n}") for n in range(4)]
    await asyncio.gather(*[engine.start(spec) for spec in specs])
    assert {i.id for i in await engine.list()} == {spec.id for spec in specs}
    await asyncio.gather(*[engine.stop(spec.id, 5) for spec in specs])
    assert await engine.list() == []


async def test_cleanup_may_be_repeated(engine: Engine) -> None:
    await engine.cleanup()
    await engine.cleanup()
