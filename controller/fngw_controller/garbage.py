"""Clears away what nothing needs any more: old versions, and the images, blobs and folders that were theirs.

``unreferenced`` decides, and is pure: it keeps what is desired, what is among the newest versions, what runs, and
what was asked for within the last hour. The ``Collector`` looks, and carries it out. Whatever it takes away wrongly
nevertheless (Redis was older than the disk, say) is made again when it is needed, but for blobs: so these are kept
if in doubt.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import shutil
import time
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from fngw.spec import DeploymentSpec
from fngw_controller.engines.base import EngineError, EngineUnavailable
from fngw_controller.reconciler import Rooms
from fngw_state.history import Generation, Known
from fngw_state.layout import Layout
from fngw_state.records import Artifact, Version
from fngw_state.store import LOST, Fenced

log = logging.getLogger(__name__)

#: What was asked for this recently stays: the deploy that needs it may be on its way.
GRACE_S = 3600.0
#: From a change until something is cleared away: what ends is gone by then, and further changes are seen along.
CALM_S = 5.0
#: In any case this often: what was in use, or too young, may not be any more.
EVERY_S = 300.0

T = TypeVar("T", bound=Hashable)


@dataclass(frozen=True)
class Found:
    """What lies on disk, and when it was last asked for (Unix seconds)."""

    blobs: Mapping[Path, float]
    folders: Mapping[Path, float]


@dataclass(frozen=True)
class Garbage:
    """What may go. ``generations`` are those whose artifacts need not be remembered."""

    versions: tuple[Version, ...] = ()
    generations: tuple[Generation, ...] = ()
    images: tuple[str, ...] = ()
    blobs: tuple[Path, ...] = ()
    folders: tuple[Path, ...] = ()


def unreferenced(known: Known, running: Collection[Generation], found: Found, keep: int, now: float) -> Garbage:
    """Return what nothing needs.

    Args:
        known: what Redis knows.
        running: the generations that the engine has replicas of, dead ones included.
        found: what lies on disk.
        keep: how many versions of each deployment stay, at least.
        now: Unix seconds, taken before ``known`` was read: a deploy that came later has touched what it needs.
    """
    revisions = [r for d in known.desired for r in (d.target, d.stable) if r is not None]
    fixed = {(r.spec.name, r.generation) for r in revisions} | set(running)
    kept = [v for history in known.versions for v in _kept(history, fixed, keep)]
    needed = fixed | {_generation(v) for v in kept}
    artifacts = [artifact for generation, artifact in known.artifacts.items() if generation in needed]
    specs = [r.spec for r in revisions] + [DeploymentSpec.from_dict(v.spec) for v in kept]
    before = now - GRACE_S
    # Of blobs from a time before this Redis nobody can say whether another one, lost or mistaken, knows them.
    blobs = {path: at for path, at in found.blobs.items() if at >= known.since}
    # What runs from folders that nobody remembers cannot be told.
    folders = {} if set(running) - known.artifacts.keys() else found.folders
    return Garbage(
        versions=tuple(v for history in known.versions for v in history if _generation(v) not in needed),
        generations=tuple(known.artifacts.keys() - needed),
        images=_old(known.images, {image for a in artifacts for image in (a.ref, a.environment)}, before),
        blobs=_old(blobs, _blobs(specs, blobs), before),
        folders=_old(folders, _folders(artifacts), before),
    )


def _kept(history: Sequence[Version], fixed: Collection[Generation], keep: int) -> list[Version]:
    return [v for n, v in enumerate(history) if n < keep or _generation(v) in fixed]


def _generation(version: Version) -> Generation:
    return version.name, version.generation


def _old(times: Mapping[T, float], needed: Collection[T], before: float) -> tuple[T, ...]:
    return tuple(what for what, at in times.items() if what not in needed and at < before)


def _blobs(specs: Iterable[DeploymentSpec], paths: Iterable[Path]) -> set[Path]:
    names = {digest.partition(":")[2] for spec in specs for digest in spec.blobs}
    return {path for path in paths if path.name in names}


def _folders(artifacts: Iterable[Artifact]) -> set[Path]:
    """The folders that local processes run from, and all above them."""
    paths = [Path(text) for a in artifacts for text in (a.python, a.app_dir, a.environment) if text]
    return {folder for path in paths for folder in (path, *path.parents)}


class Collector:
    """Clears away now and then, while this controller leads.

    Args:
        rooms: what the reconcilers work with, too.
        keep: how many versions of each deployment stay, at least.
    """

    def __init__(self, rooms: Rooms, keep: int) -> None:
        self._rooms = rooms
        self._keep = keep
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Look soon: what is desired has changed, or what runs."""
        self._woken.set()

    async def run(self) -> None:
        """Clear away soon, then after each change and every few minutes.

        Raises:
            Fenced: another controller leads.
        """
        while True:
            await asyncio.sleep(CALM_S)
            self._woken.clear()
            try:
                await self.collect()
            except Fenced:
                raise
            except (*LOST, EngineError) as error:
                log.warning("nothing is cleared away for now: %s", error)
            except Exception:  # a bug; deployments are looked after all the same
                log.exception("clearing away failed")
            with suppress(TimeoutError):
                async with asyncio.timeout(EVERY_S):
                    await self._woken.wait()

    async def collect(self) -> Garbage:
        """Clear away what nothing needs at this moment, and return it.

        Raises:
            Fenced: another controller leads.
            one of ``LOST``, ``EngineError``: not all of it is gone.
        """
        await self._rooms.confirm()
        now = time.time()
        running = {(i.deployment, i.generation) for i in await self._rooms.engine.list()}
        known = await self._rooms.history.known()
        if known is None:
            return Garbage()
        found = await asyncio.to_thread(look, self._rooms.lifecycle.layout)
        garbage = unreferenced(known, running, found, self._keep, now)
        if garbage != Garbage():
            await self._clear(garbage, now - GRACE_S)
        return garbage

    async def _clear(self, garbage: Garbage, before: float) -> None:
        history, token = self._rooms.history, self._rooms.token()
        await history.forget_versions(token, garbage.versions)
        await history.forget_artifacts(token, garbage.generations)
        gone = [image for image in garbage.images if await self._discard(image)]
        await history.forget_images(token, gone)
        await asyncio.to_thread(remove, (*garbage.blobs, *garbage.folders), before)
        text = "cleared away: %d versions, %d images, %d blobs, %d folders"
        log.info(text, len(garbage.versions), len(gone), len(garbage.blobs), len(garbage.folders))

    async def _discard(self, image: str) -> bool:
        try:
            return await self._rooms.engine.discard(image)
        except EngineUnavailable:
            raise
        except EngineError as error:  # of this image: others may go
            log.warning("image %s is not cleared away: %s", image, error)
            return False


def look(layout: Layout) -> Found:
    """Return what lies on disk, uploads and folders that were never finished included."""
    folders = [*layout.code.glob("*"), *layout.envs.glob("*")]
    return Found(_times(layout.blobs.glob("*/*/*")), _times(folders))


def _times(paths: Iterable[Path]) -> dict[Path, float]:
    found = {}
    for path in paths:
        with suppress(FileNotFoundError):  # a draft that has got its name
            found[path] = path.stat().st_mtime
    return found


def remove(paths: Iterable[Path], before: float) -> None:
    """Remove files and folders, but for those that were asked for since ``before`` (Unix seconds)."""
    for path in paths:
        try:
            _remove(path, before)
        except OSError as error:
            log.warning("%s is not cleared away: %s", path, error)


def _remove(path: Path, before: float) -> None:
    # Aside first: who asks for it by its name was either earlier, as its time then tells, or does not find it.
    aside = path.with_name(f".part-{secrets.token_hex(4)}")
    path.rename(aside)
    if aside.stat().st_mtime >= before:
        aside.rename(path)
    elif aside.is_dir():
        shutil.rmtree(aside)
    else:
        aside.unlink()
