"""How many queued calls of each deployment may be under way: a share, so that others always find room."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from fngw_state import keys
from fngw_state.records import RoutingTable
from fngw_state.store import Store
from fngw_state.watch import watch

__all__ = ["Shares", "shares_of"]

log = logging.getLogger(__name__)


def shares_of(table: RoutingTable, share: float) -> dict[str, int]:
    """Return for each deployment how many of its queued calls may be under way.

    At least one, even without a replica: a request is what starts one.

    Args:
        table: who is there.
        share: of all its replicas' ``max_concurrent_queries``, 0 to 1.
    """
    return {d.name: max(1, int(share * len(d.replicas) * d.max_concurrent_queries)) for d in table.deployments}


class Shares:
    """The limits of the newest routing table."""

    def __init__(self, store: Store, share: float) -> None:
        self._store = store
        self._share = share
        self.limits: Mapping[str, int] = {}

    async def follow(self) -> None:
        """Keep up with the routing table, for ever."""
        async for _ in watch(self._store.redis, keys.ROUTES_CHANNEL):
            table = await self._store.routes()
            self.limits = shares_of(table, self._share) if table else {}
