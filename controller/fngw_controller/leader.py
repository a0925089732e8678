"""The leader's lease: one controller acts, the others wait; a fencing token shuts out one that was paused."""

from __future__ import annotations

import asyncio
import logging

from fngw_state import keys
from fngw_state.store import LOST, Fenced, Store

log = logging.getLogger(__name__)

RENEW_S = keys.LEADER_TTL_MS / 3000


class Leader:
    """One controller's claim to lead.

    Args:
        store: where the lease is kept.
        controller: this controller's id, unique among all.
    """

    def __init__(self, store: Store, controller: str) -> None:
        self._store = store
        self._controller = controller
        self._token = 0

    @property
    def token(self) -> int:
        """The newest fencing token of this controller's."""
        return self._token

    async def acquire(self) -> None:
        """Wait until this controller leads."""
        waiting = False
        while not self._token:
            self._token = await self._store.lead(self._controller)
            if not self._token:
                if not waiting:
                    log.info("another controller leads; waiting for its lease to end")
                waiting = True
                await asyncio.sleep(RENEW_S / 2)
        log.info("leading with token %d", self._token)

    async def keep(self) -> None:
        """Renew the lease for ever.

        While Redis is away nobody can take the lease, so this goes on.

        Raises:
            Fenced: another controller leads.
        """
        while True:
            await asyncio.sleep(RENEW_S)
            try:
                token = await self._store.lead(self._controller)
            except LOST as error:
                log.warning("redis is away (%s); still leading what runs", error)
                continue
            if not token:
                raise Fenced("another controller leads")
            self._token = token

    async def resign(self) -> None:
        """Give the lease back."""
        await self._store.resign(self._controller)
