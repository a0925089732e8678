"""What the revisions of one deployment run from, and the builds that make it."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Collection
from typing import Any, Protocol

from fngw.errors import FngwError
from fngw_controller.images import Images
from fngw_controller.plan import back_off
from fngw_state.history import History
from fngw_state.records import Artifact, BuildProgress, Revision
from fngw_state.store import LOST

log = logging.getLogger(__name__)

#: After an error that is not the user's (Redis away): ask again.
RETRY_S = 0.5
#: A build that fails outside a rollout (an image was pruned, and cannot be built again) is tried again after this.
REBUILD_S = back_off(6)


class Owner(Protocol):
    """The reconciler, as seen from here."""

    name: str

    def wake(self) -> None: ...

    def built(self, revision: Revision, error: FngwError | None) -> None:
        """Take note of how a build ended."""

    def is_rollout(self, revision: Revision) -> bool: ...

    async def emit(self, number: int, kind: str, message: str, **more: Any) -> None: ...


class Artifacts:
    """The artifacts of one deployment, by generation.

    Args:
        owner: told of every change.
        images: makes them.
        history: where they are noted, for other controllers to find.
        token: this controller's.
    """

    def __init__(self, owner: Owner, images: Images, history: History, token: Callable[[], int]) -> None:
        self._owner = owner
        self._images = images
        self._history = history
        self._token = token
        self._known: dict[int, Artifact] = {}
        self._builds: dict[int, tuple[Revision, asyncio.Task[None]]] = {}

    def __contains__(self, generation: int) -> bool:
        return generation in self._known

    def get(self, generation: int) -> Artifact | None:
        return self._known.get(generation)

    def build(self, revision: Revision) -> None:
        """Have what a revision runs from made, unless that is under way."""
        if revision.generation not in self._builds:
            self._builds[revision.generation] = (revision, asyncio.create_task(self._build(revision)))

    def forget(self, generation: int) -> None:
        """It was removed: to be built again before the next start."""
        self._known.pop(generation, None)

    async def want_only(self, generations: Collection[int]) -> None:
        """Forget all others, and stop their builds."""
        self._known = {g: a for g, a in self._known.items() if g in generations}
        for generation, (revision, task) in list(self._builds.items()):
            if generation not in generations:
                log.info("%s: nobody wants the build for revision %d any more", self._owner.name, revision.number)
                task.cancel()
                await asyncio.wait({task})  # until it follows the build no more
                await self._images.cancel(revision.spec)

    async def note_all(self) -> None:
        """Note them all again, as Redis has lost them."""
        for generation, artifact in list(self._known.items()):
            await self._note(generation, artifact)

    def close(self) -> None:
        """Follow no build any more; those under way go on."""
        for _, task in self._builds.values():
            task.cancel()

    async def _note(self, generation: int, artifact: Artifact) -> None:
        await self._history.add_artifact(self._token(), (self._owner.name, generation), artifact)

    async def _build(self, revision: Revision) -> None:
        async def report(news: str | BuildProgress) -> None:
            if isinstance(news, str):
                await self._owner.emit(revision.number, "build", news)
            else:
                await self._owner.emit(revision.number, "progress", news.step, **dataclasses.asdict(news))

        try:
            artifact, reused = await self._images.ensure(revision.spec, report)
            await self._note(revision.generation, artifact)
            self._known[revision.generation] = artifact
            self._owner.built(revision, None)
            await self._owner.emit(revision.number, "image", artifact.image, image=artifact.image, reused=reused)
        except FngwError as error:
            log.warning("%s: the build failed: %s", self._owner.name, error.message)
            self._owner.built(revision, error)
            await asyncio.sleep(0 if self._owner.is_rollout(revision) else REBUILD_S)
        except LOST as error:
            log.warning("%s: lost Redis during a build (%s)", self._owner.name, error)
            await asyncio.sleep(RETRY_S)
        finally:
            del self._builds[revision.generation]
            self._owner.wake()
