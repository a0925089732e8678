"""Copies of desired state on disk, for the day that Redis comes back empty."""

from __future__ import annotations

import logging
from pathlib import Path

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

    async def restore(self, store: Store) -> None:
        """If Redis is empty, write back what was desired when it was last seen."""
        if await store.installed():
            return
        for path in sorted(self._directory.glob("*.json")):
            desired = Desired.from_json(path.read_text())
            if await store.put_desired(None, desired):
                log.warning("redis was empty: restored deployment %s from %s", desired.name, path)
