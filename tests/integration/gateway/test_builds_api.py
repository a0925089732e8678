"""Builds without a deploy, over the control API on real sockets; the test plays the builder."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from fngw.errors import BuildFailed, to_problem
from fngw.spec import CodeRef, DeploymentSpec, digest_of
from fngw_gateway.api import builds as api
from fngw_gateway.api import create_api
from fngw_gateway.settings import GatewaySettings
from fngw_state import builds, keys
from fngw_state.building import Building
from fngw_state.records import Artifact, BuildProgress, BuildResult, BuiltLayer
from fngw_state.store import Store

from .conftest import RedisServer, served
from .wire import eventually

CODE = b"a bundle"
SPEC = DeploymentSpec("App", CodeRef(digest_of(CODE)), "3.11", pip=("numpy",))
WANTED = builds.request_for(SPEC, "process")
KEY = builds.request_key(WANTED)
MADE = BuildResult(
    KEY, Artifact("local:1", lock="sha256:" + "1" * 64), layers=(BuiltLayer("code", "sha256:2", 7, reused=False),)
)


class Desk:
    """A gateway's control API, and the builder's side of Redis."""

    def __init__(self, store: Store, url: str, settings: GatewaySettings) -> None:
        self.store, self.redis, self.url, self.settings = store, store.redis, url, settings

    @contextlib.asynccontextmanager
    async def building(self) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """Ask for a build; the value yields its events, with ``{}`` for a comment."""
        async with (
            httpx.AsyncClient(base_url=self.url, timeout=20) as client,
            client.stream("POST", "/-/api/v1/builds", json={"spec": SPEC.to_dict()}) as answer,
        ):
            assert answer.status_code == 200, await answer.aread()
            yield events(answer)

    async def take(self) -> None:
        """Take the build that waits, as a builder does."""
        await eventually(self.queued)
        await self.redis.set(keys.BUILD_BEAT + KEY, "me")  # first: a build without either is asked for again
        await self.redis.delete("rq:queue:builds")

    async def queued(self) -> bool:
        return bool(await self.redis.llen("rq:queue:builds"))

    async def say(self, line: str) -> None:
        await self.redis.rpush(keys.BUILD_LOG + KEY, line)

    async def tell(self, *steps: BuildProgress) -> None:
        await self.redis.set(keys.BUILD_PROGRESS + KEY, json.dumps([dataclasses.asdict(step) for step in steps]))

    async def finish(self, result: BuildResult) -> None:
        await self.redis.set(keys.BUILD + KEY, result.to_json())
        await self.redis.delete(keys.BUILD_BEAT + KEY)

    async def stopped(self) -> None:
        """Wait until somebody stops the build, and say that it ended so."""
        await eventually(lambda: self.redis.exists(keys.BUILD_CANCEL + KEY))
        await self.redis.delete(keys.BUILD_CANCEL + KEY)
        error = BuildFailed("the build was cancelled", code=builds.CANCELLED)
        await self.finish(BuildResult(KEY, error=to_problem(error)))


async def events(answer: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    async for line in answer.aiter_lines():
        if line.startswith(":"):
            yield {}
        elif line:
            yield json.loads(line.removeprefix("data: "))


@pytest.fixture
async def desk(store: Store, redis: RedisServer, tmp_path: Path) -> AsyncIterator[Desk]:
    settings = GatewaySettings(data_dir=tmp_path, run_dir=tmp_path / "run", redis_url=redis.url)
    blob = settings.layout.blob(SPEC.code.bundle)
    blob.parent.mkdir(parents=True)
    blob.write_bytes(CODE)
    await store.redis.set(keys.ENGINE, json.dumps({"name": "process", "version": "1", "detail": "processes"}))
    listener = socket.create_server(("127.0.0.1", 0))
    async with served(create_api(store, settings), listener):
        yield Desk(store, f"http://127.0.0.1:{listener.getsockname()[1]}", settings)
    listener.close()


async def test_a_build_is_told_to_its_end(desk: Desk) -> None:
    async with desk.building() as told:
        await desk.take()
        await desk.say("solving")
        assert await anext(told) == {"kind": "build", "message": "solving"}
        await desk.tell(BuildProgress("download", 1, 2, "bytes"))
        assert await anext(told) == {
            "kind": "progress",
            "message": "download",
            "step": "download",
            "done": 1,
            "total": 2,
            "unit": "bytes",
        }
        await desk.tell(BuildProgress("download", 2, 2, "bytes"), BuildProgress("link", 1, 9, "packages"))
        assert [(await anext(told))["message"] for _ in range(2)] == ["download", "link"], (
            "each of its steps is told"
        )
        await desk.finish(MADE)
        last = await anext(told)
        assert last["kind"] == "done"
        assert last["result"]["lock"] == MADE.artifact.lock  # type: ignore[union-attr]
        assert last["result"]["layers"] == [{"what": "code", "digest": "sha256:2", "size": 7, "reused": False}]
        assert [e async for e in told] == []
    assert not await desk.redis.exists(keys.BUILD_CANCEL + KEY), "what is done is not stopped"


async def test_a_build_waits_for_a_controller_that_is_just_starting(desk: Desk) -> None:
    engine = await desk.redis.getdel(keys.ENGINE)
    await desk.redis.config_resetstat()

    async def asked() -> bool:
        return "cmdstat_get" in await desk.redis.info("commandstats")

    async def start() -> None:
        await eventually(asked)
        await desk.redis.set(keys.ENGINE, engine)

    starting = asyncio.create_task(start())
    async with desk.building() as told:
        await desk.take()
        await desk.say("solving")
        assert await anext(told) == {"kind": "build", "message": "solving"}
    await starting


async def test_a_build_without_a_controller_is_refused(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fngw_gateway.api.builds.TOLD_S", 0.0)
    await desk.redis.delete(keys.ENGINE)
    async with httpx.AsyncClient(base_url=desk.url) as client:
        answer = await client.post("/-/api/v1/builds", json={"spec": SPEC.to_dict()})
    assert (answer.status_code, answer.json()["code"]) == (503, "engine_unknown")


async def test_a_failed_build_has_its_problem(desk: Desk) -> None:
    async with desk.building() as told:
        await desk.take()
        error = BuildFailed("no such package: nunpy", code="package_not_found", hint="did you mean numpy?")
        await desk.finish(BuildResult(KEY, error=to_problem(error)))
        last = await anext(told)
    assert (last["kind"], last["problem"]["code"]) == ("failed", "package_not_found")


async def test_a_silent_build_keeps_its_line_alive(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "COMMENT_S", 0.01)
    async with desk.building() as told:
        assert [await anext(told), await anext(told)] == [{}, {}]


async def test_a_client_that_leaves_stops_its_build(desk: Desk) -> None:
    async with desk.building() as told:
        await desk.take()
        await desk.say("solving")
        await anext(told)
    await desk.stopped()


async def test_a_client_that_leaves_early_takes_its_build_off_the_queue(desk: Desk) -> None:
    async with desk.building():
        await eventually(desk.queued)

    async def empty() -> bool:
        return not await desk.queued()

    await eventually(empty)


async def test_of_two_clients_one_may_leave(desk: Desk) -> None:
    async with desk.building() as stays:
        await desk.take()
        async with desk.building() as leaves:
            await desk.say("solving")
            await anext(leaves)
            await anext(stays)
        await desk.finish(MADE)
        assert (await anext(stays))["kind"] == "done"
    assert not await desk.redis.exists(keys.BUILD_CANCEL + KEY)


async def test_who_waits_elsewhere_asks_again_for_what_was_stopped(desk: Desk) -> None:
    controller = Building(desk.store, desk.settings.redis_url)
    try:
        async with contextlib.aclosing(controller.follow(WANTED)) as deploy:
            result = asyncio.ensure_future(anext(deploy))
            await desk.take()
            async with desk.building():
                pass
            await desk.stopped()
            await desk.take()
            await desk.finish(MADE)
            assert await result == MADE
    finally:
        controller.close()


async def test_what_was_not_uploaded_is_not_built(desk: Desk) -> None:
    other = dataclasses.replace(SPEC, code=CodeRef(digest_of(b"another")))
    async with httpx.AsyncClient(base_url=desk.url) as client:
        answer = await client.post("/-/api/v1/builds", json={"spec": other.to_dict()})
    assert (answer.status_code, answer.json()["code"]) == (422, "blob_missing")


async def test_locks_are_read_by_their_digest(desk: Desk) -> None:
    digest = "sha256:" + "a" * 64
    path = desk.settings.layout.lock(digest)
    path.parent.mkdir()
    path.write_text('{"version": 1}\n')
    async with httpx.AsyncClient(base_url=desk.url) as client:
        found = await client.get(f"/-/api/v1/locks/{digest}")
        missing = [await client.get(f"/-/api/v1/locks/{d}") for d in ("sha256:" + "b" * 64, "nonsense")]
    assert found.text == '{"version": 1}\n'
    assert [(m.status_code, m.json()["code"]) for m in missing] == [(404, "lock_missing")] * 2
