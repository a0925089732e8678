"""Why a replica was lost: a gateway sees no more than a broken connection, and the controller knows within moments.

Asked only for a request that is about to be answered 502, so that it may cost that one a moment.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from fngw_state.records import Lost, ReplicaState, Status
from fngw_state.store import LOST, Store

__all__ = ["Losses"]

#: For how long the controller is waited for: it mostly knows within 0.1 s.
WAIT_S = 1.0
POLL_S = 0.05
_SERVES = (ReplicaState.STARTING, ReplicaState.READY, ReplicaState.UNHEALTHY)


class Losses:
    """Finds out why replicas died.

    Args:
        store: has what the controller saw.

    Example:
        >>> await Losses(store).why("Model", "a1b2c3d4")
        'replica a1b2c3d4 was killed: out of memory (it may have 4 GiB)'
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._asked: dict[str, asyncio.Task[str]] = {}  # by replica: all its requests ask once

    async def why(self, deployment: str, replica: str) -> str:
        """Return why a replica died; empty when it did not, or nobody knows in time."""
        task = self._asked.get(replica)
        if task is None:
            task = self._asked[replica] = asyncio.create_task(self._find_out(deployment, replica))
            task.add_done_callback(lambda _: self._asked.pop(replica, None))
        return await asyncio.shield(task)  # one that leaves does not leave the others without an answer

    async def _find_out(self, deployment: str, replica: str) -> str:
        with suppress(TimeoutError, *LOST):
            async with asyncio.timeout(WAIT_S):
                while True:
                    status = await self._store.status(deployment)
                    lost = _lost(status, replica)
                    if lost is not None or not _may_be_found_dead(status, replica):
                        return lost.message if lost else ""
                    await asyncio.sleep(POLL_S)
        return ""


def _lost(status: Status | None, replica: str) -> Lost | None:
    return next((lost for lost in (status.lost if status else ()) if lost.replica == replica), None)


def _may_be_found_dead(status: Status | None, replica: str) -> bool:
    """Whether the controller counts it among those that live. One that leaves was told to."""
    return status is not None and any(r.id == replica and r.state in _SERVES for r in status.replicas)
