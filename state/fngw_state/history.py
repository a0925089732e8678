"""The versions that were rolled out, what replicas were made from, and what of all that may be needed again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from fngw_state import keys
from fngw_state.records import Artifact, Desired, Version
from fngw_state.store import Store

#: A deployment, and the number of the deploy that last needed new replicas.
Generation = tuple[str, int]


@dataclass(frozen=True)
class Known:
    """All that may be needed again, as it was at one moment.

    Args:
        since: Unix seconds; of what lay around before that, this Redis knows nothing.
        desired: what should run.
        versions: a history per deployment, newest first.
        artifacts: what the replicas of each generation were made from.
        images: those that builders made or found for this installation, with the last time that they did.
    """

    since: float
    desired: tuple[Desired, ...] = ()
    versions: tuple[tuple[Version, ...], ...] = ()
    artifacts: Mapping[Generation, Artifact] = field(default_factory=dict)
    images: Mapping[str, float] = field(default_factory=dict)


class History:
    """The histories of one installation. A deployment's ends when it is deleted: see ``Store.remove_desired``.

    Args:
        store: where they are kept.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._redis = store.redis

    async def versions(self, name: str) -> list[Version]:
        """Return a deployment's versions, newest first."""
        return [Version.from_json(text) for text in await self._redis.lrange(keys.VERSIONS + name, 0, -1)]

    async def add_version(self, token: int, version: Version) -> None:
        """Add a version to the history. One that was only changed in place takes the place of its entry."""
        key = keys.VERSIONS + version.name
        newest = await self._redis.lindex(key, 0)
        if newest and Version.from_json(newest).generation == version.generation:
            await self._store.fenced(token, ["LSET", key, "0", version.to_json()])
        else:
            await self._store.fenced(token, ["LPUSH", key, version.to_json()])

    async def forget_versions(self, token: int, versions: Iterable[Version]) -> None:
        """Take versions out of their histories."""
        await self._store.fenced(token, *(["LREM", keys.VERSIONS + v.name, "0", v.to_json()] for v in versions))

    async def add_artifact(self, token: int, generation: Generation, artifact: Artifact) -> None:
        """Note what the replicas of a generation are made from, before the first of them is."""
        await self._store.fenced(token, ["HSET", keys.ARTIFACTS, _field(generation), artifact.to_json()])

    async def artifact(self, generation: Generation) -> Artifact | None:
        """Return what the replicas of a generation are made from; None before it is built."""
        text = await self._redis.hget(keys.ARTIFACTS, _field(generation))
        return Artifact.from_json(text) if text else None

    async def forget_artifacts(self, token: int, generations: Iterable[Generation]) -> None:
        await self._store.fenced(token, *(["HDEL", keys.ARTIFACTS, _field(g)] for g in generations))

    async def forget_images(self, token: int, images: Iterable[str]) -> None:
        """Note that images are gone from the engine."""
        await self._store.fenced(token, *(["ZREM", keys.IMAGES, image] for image in images))

    async def known(self) -> Known | None:
        """Return all that may be needed again; None when Redis was emptied, and is not filled again yet."""
        names = await self._redis.hkeys(keys.DESIRED)
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.get(keys.INSTALLED).hgetall(keys.DESIRED).hgetall(keys.ARTIFACTS)
            pipe.zrange(keys.IMAGES, 0, -1, withscores=True)
            for name in names:  # one that is deployed only now has no history
                pipe.lrange(keys.VERSIONS + name, 0, -1)
            since, desired, artifacts, images, *histories = await pipe.execute()
        if since is None:
            return None
        return Known(
            since=float(since),
            desired=tuple(Desired.from_json(text) for text in desired.values()),
            versions=tuple(tuple(map(Version.from_json, texts)) for texts in histories),
            artifacts={_generation(key): Artifact.from_json(text) for key, text in artifacts.items()},
            images=dict(images),
        )


def _field(generation: Generation) -> str:
    name, number = generation
    return f"{name}/{number}"


def _generation(text: str) -> Generation:
    name, _, number = text.partition("/")
    return name, int(number)
