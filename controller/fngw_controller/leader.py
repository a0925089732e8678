"""The leader's lease: one controller acts, the others wait; a fencing token shuts out one that was paused."""

from __future__ import annotations

import asyncio
import logging
import time

from fngw_state import keys
from fngw_state.store import LOST, Fenced, Store

log = logging.getLogger(__name__)

RENEW_S = keys.LEADER_TTL_MS / 3000
#: A lease that was not renewed for this long (the process was frozen) may be another's by now.
DOUBTFUL_AFTER_S = RENEW_S * 2


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
        self._renewed = 0.0

    @property
    def token(self) -> int:
        """The newest fencing token of this controller's."""
        return self._token

    async def acquire(self) -> None:
        """Wait until this controller leads."""
        waiting = False
        while not self._token:
            self._token, self._renewed = await self._store.lead(self._controller), time.monotonic()
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
                await self._renew()
            except LOST as error:
                log.warning("redis is away (%s); still leading what runs", error)

    async def confirm(self) -> None:
        """Make sure that this controller leads: at no cost, unless it has not renewed its lease for long.

        Raises:
            Fenced: another controller leads, or has led meanwhile.
            one of ``LOST``: Redis is away.
        """
        if time.monotonic() - self._renewed > DOUBTFUL_AFTER_S:
            await self._renew()

    async def _renew(self) -> None:
        asked = time.monotonic()
        token = await self._store.lead(self._controller, self._token)
        # One more than the one held: the lease ran out, and nobody else took it. More: somebody did, and what this
        # controller knows of replicas is out of date.
        if token not in (self._token, self._token + 1):
            raise Fenced("another controller leads" if not token else "another controller has led meanwhile")
        self._token, self._renewed = token, asked

    async def resign(self) -> None:
        """Give the lease back."""
        await self._store.resign(self._controller)
