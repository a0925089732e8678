"""Versions and artifacts on a real Redis, and what is known at one moment."""

from __future__ import annotations

import pytest

from fngw.spec import CodeRef, DeploymentSpec
from fngw_state import keys
from fngw_state.history import History
from fngw_state.records import Artifact, Desired, Revision, Version
from fngw_state.store import Fenced, Store

SPEC = DeploymentSpec(name="f", code=CodeRef(bundle="sha256:" + "0" * 64), python="3.11")


def desired(number: int = 1) -> Desired:
    return Desired("f", Revision(number, number, number, SPEC, deployed_at=0.0))


def version(number: int, generation: int | None = None) -> Version:
    return Version("f", f"v{number}", number, generation or number, "sha256:1", None, 0.5, SPEC.to_dict())


@pytest.fixture
def history(store: Store) -> History:
    return History(store)


async def test_versions_are_listed_newest_first_until_they_are_forgotten(store: Store, history: History) -> None:
    token = await store.lead("a")
    for number in range(1, 6):
        await history.add_version(token, version(number))
    assert [v.number for v in await history.versions("f")] == [5, 4, 3, 2, 1]
    await history.forget_versions(token, [version(2), version(4), version(9)])
    assert [v.number for v in await history.versions("f")] == [5, 3, 1]


async def test_a_version_changed_in_place_keeps_its_entry(store: Store, history: History) -> None:
    token = await store.lead("a")
    for number, generation in ((1, 1), (2, 2), (3, 2)):
        await history.add_version(token, version(number, generation))
    assert [(v.number, v.generation) for v in await history.versions("f")] == [(3, 2), (1, 1)]


async def test_versions_go_with_their_deployment_and_its_events_a_little_later(
    store: Store, history: History
) -> None:
    token = await store.lead("a")
    stored = await store.put_desired(None, desired())
    assert stored
    await history.add_version(token, version(1))
    await store.emit("f", 1, "done", "f is healthy")
    assert await store.remove_desired(stored)
    assert await history.versions("f") == []
    assert 0 < await store.redis.ttl(keys.EVENTS + "f") <= keys.EVENTS_GONE_TTL_S
    assert await store.put_desired(None, desired(2))
    assert await store.redis.ttl(keys.EVENTS + "f") == -1, "deployed again: they stay"


async def test_a_write_that_came_too_late_takes_nothing_along(store: Store, history: History) -> None:
    token = await store.lead("a")
    stored = await store.put_desired(None, desired())
    await history.add_version(token, version(1))
    assert stored and await store.put_desired(stored, desired(2))
    assert not await store.remove_desired(stored)
    assert await history.versions("f") == [version(1)]


async def test_what_is_known_is_all_or_nothing(store: Store, history: History) -> None:
    token = await store.lead("a")
    stored = await store.put_desired(None, desired())
    await history.add_version(token, version(1))
    artifact = Artifact("sha256:1", ref="fngw/app:1")
    await history.add_artifact(token, ("f", 1), artifact)
    assert await history.known() is None, "not yet marked as in use: it may have been emptied"

    await store.installed(12.5)
    known = await history.known()
    assert known and stored
    assert (known.since, known.desired, known.versions) == (12.5, (stored,), ((version(1),),))
    assert known.artifacts == {("f", 1): artifact}
    await history.forget_artifacts(token, [("f", 1), ("g", 2)])
    known = await history.known()
    assert known and not known.artifacts


async def test_only_the_leader_writes_history(store: Store, history: History) -> None:
    old = await store.lead("a")
    await history.add_version(old, version(1))
    await store.redis.delete(keys.LEADER)
    await store.lead("b")
    for write in (
        history.add_version(old, version(2)),
        history.forget_versions(old, [version(1)]),
        history.add_artifact(old, ("f", 1), Artifact("sha256:1")),
        history.forget_artifacts(old, [("f", 1)]),
    ):
        with pytest.raises(Fenced):
            await write
    assert await history.versions("f") == [version(1)]
