"""Copies of desired state on disk, for the day that Redis comes back empty."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from pathlib import Path

from fngw.errors import RouteConflict
from fngw_state.records import Desired
from fngw_state.store import Store

log = logging.getLogger(__name__)


class Snapshots:
    """One JSON file per deployment below ``directory``."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    def save(self, desired: Desired) -> None:
        """Write a deployment's desired state; the file is whole or not there."""
        path = self._directory / f"{desired.name}.json"
        draft = path.with_suffix(".new")
        draft.write_text(desired.to_json())
        draft.replace(path)

    def remove(self, name: str) -> None:
        (self._directory / f"{name}.json").unlink(missing_ok=True)

    async def restore(self, store: Store, least: int = 0) -> bool:
        """If Redis is empty, write back what was desired when it was last seen; tell whether it was.

        Args:
            store: Redis.
            least: numbers up to this one were given out.
        """
        if await store.in_use():
            return False
        snapshots = [Desired.from_json(path.read_text()) for path in sorted(self._directory.glob("*.json"))]
        await store.raise_numbers(max([least, *(d.target.number for d in snapshots)]))
        for desired in snapshots:
            await self._write_back(store, desired)
        await store.installed(time.time())  # last: who dies before this begins again
        return True

    async def _write_back(self, store: Store, desired: Desired) -> None:
        try:
            if await store.put_desired(None, desired):
                log.warning("redis was empty: restored deployment %s", desired.name)
        except RouteConflict as error:  # somebody was quicker with a new deployment
            log.error("redis was empty, and %s could not be restored: %s", desired.name, error)

    def prune(self, names: Collection[str]) -> None:
        """Remove the copies of what was deleted while no controller was there to see it."""
        for path in self._directory.glob("*.json"):
            if path.stem not in names:
                path.unlink(missing_ok=True)
