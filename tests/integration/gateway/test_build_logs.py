"""The log of a build over the control API: which build is meant, and when it is over."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import AsyncIterator

import pytest

from fngw.spec import CodeRef, DeploymentSpec
from fngw_gateway.api.logs import build_lines
from fngw_state import builds, keys
from fngw_state.history import History
from fngw_state.records import Artifact, Desired, Failure, Revision
from fngw_state.store import Store

SPEC = DeploymentSpec("App", CodeRef("sha256:" + "0" * 64), "3.11", pip=("numpy",))
KEY = builds.request_key(builds.request_for(SPEC, "docker"))
TARGET = Revision(1, generation=1, config_number=1, spec=SPEC, deployed_at=1.0)
TOKEN = 1


@pytest.fixture
async def deployed(store: Store) -> Desired:
    """Accepted; its build has said two lines."""
    await store.redis.set(keys.ENGINE, json.dumps({"name": "docker", "version": "1", "detail": ""}))
    await store.redis.rpush(keys.BUILD_LOG + KEY, "solving", "downloading")
    desired = await store.put_desired(None, Desired("App", TARGET))
    assert desired
    return desired


async def read(store: Store, tail: int | None = None) -> list[str]:
    return [line async for line in build_lines(store, "App", tail, follow=False)]


async def built(store: Store, build: str = KEY) -> None:
    await History(store).add_artifact(TOKEN, ("App", 1), Artifact("sha256:1", lock="sha256:2", build=build))


def following(store: Store) -> AsyncIterator[str]:
    return build_lines(store, "App", None, follow=True)


async def test_what_a_build_has_said_so_far(store: Store, deployed: Desired) -> None:
    assert await read(store) == ["solving\n", "downloading\n"]
    assert await read(store, tail=1) == ["downloading\n"]
    assert await read(store, tail=0) == []


async def test_a_build_is_followed_until_it_is_over(store: Store, deployed: Desired) -> None:
    lines = following(store)
    assert [await anext(lines), await anext(lines)] == ["solving\n", "downloading\n"]
    await store.redis.rpush(keys.BUILD_LOG + KEY, "built")
    assert await anext(lines) == "built\n"
    await built(store)
    assert [line async for line in lines] == []


async def test_a_failed_build_is_over(store: Store, deployed: Desired) -> None:
    await store.redis.rpush(keys.BUILD_LOG + KEY, "failed: no such package")
    await store.put_desired(deployed, dataclasses.replace(deployed, failure=Failure(1, "package_not_found", "no")))
    assert [line async for line in following(store)][-1] == "failed: no such package\n"


async def test_who_follows_goes_on_with_the_next_deploy(store: Store, deployed: Desired) -> None:
    lines = following(store)
    assert [await anext(lines), await anext(lines)] == ["solving\n", "downloading\n"]
    other = dataclasses.replace(SPEC, pip=("scipy",))
    await store.redis.rpush(
        keys.BUILD_LOG + builds.request_key(builds.request_for(other, "docker")), "solving anew"
    )
    await store.put_desired(
        deployed,
        dataclasses.replace(deployed, target=dataclasses.replace(TARGET, number=2, generation=2, spec=other)),
    )
    assert await anext(lines) == "solving anew\n"


async def test_the_end_of_the_deployment_is_that_of_its_log(store: Store, deployed: Desired) -> None:
    lines = following(store)
    assert [await anext(lines), await anext(lines)] == ["solving\n", "downloading\n"]
    assert await store.remove_desired(deployed)
    assert [line async for line in lines] == []


async def test_a_lock_that_became_known_makes_no_other_build(store: Store, deployed: Desired) -> None:
    """A settled deploy's spec names the lock; the build was asked for without."""
    await built(store)
    pinned = dataclasses.replace(TARGET, spec=dataclasses.replace(SPEC, lock="sha256:2"))
    await store.put_desired(deployed, dataclasses.replace(deployed, target=pinned, stable=pinned))
    assert await read(store) == ["solving\n", "downloading\n"]
    assert [line async for line in following(store)] == ["solving\n", "downloading\n"]
