"""Publishes the routing table, and tells when every gateway routes by it."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Collection

from fngw_state.records import RoutedDeployment, RoutingTable
from fngw_state.store import Store

log = logging.getLogger(__name__)

#: A gateway that is alive but does not apply a table within this no longer holds up deploys.
APPLY_DEADLINE_S = 15.0
APPLY_POLL_S = 0.02


class Routes:
    """The routing table, as the leading controller wants it.

    Args:
        store: where it is published.
        token: gives the leader's fencing token.
    """

    def __init__(self, store: Store, token: Callable[[], int]) -> None:
        self._store = store
        self._token = token
        self._wanted: dict[str, RoutedDeployment] = {}
        self._published: dict[str, RoutedDeployment] | None = None
        self._generation = 0
        self._lock = asyncio.Lock()

    def set(self, name: str, routed: RoutedDeployment | None) -> None:
        """Say how one deployment is reached now; None: not at all. Takes effect with ``publish``."""
        if routed is None:
            self._wanted.pop(name, None)
        else:
            self._wanted[name] = routed

    def without_replicas(self) -> None:
        """Keep every route, but with nothing behind it: requests wait. Takes effect with ``publish``."""
        self._wanted = {name: dataclasses.replace(routed, replicas=()) for name, routed in self._wanted.items()}

    async def resume(self, names: Collection[str]) -> None:
        """Go on from the table that an earlier controller published, as far as it is about ``names``.

        Else a deployment would be without a route until its reconciler has had its first look.
        """
        table = await self._store.routes()
        if table is not None:
            self._published = {d.name: d for d in table.deployments}
            self._wanted = {name: d for name, d in self._published.items() if name in names}
            self._generation = table.generation

    def publish_anew(self) -> None:
        """Have the table published with the next ``publish`` even if nothing has changed: Redis has lost it."""
        self._published = None

    @property
    def generation(self) -> int:
        """Of the table that was published last."""
        return self._generation

    async def publish(self) -> int:
        """Publish what has changed; return the generation that holds it. Concurrent callers share one table."""
        async with self._lock:
            if self._wanted != self._published:
                wanted = dict(self._wanted)
                generation = await self._store.next_number()
                deployments = tuple(wanted[name] for name in sorted(wanted))
                await self._store.put_routes(self._token(), RoutingTable(generation, deployments))
                self._generation, self._published = generation, wanted
            return self._generation

    async def applied(self, generation: int, deadline_s: float = APPLY_DEADLINE_S) -> None:
        """Wait until every living gateway routes by ``generation`` or a later one."""
        loop = asyncio.get_running_loop()
        until = loop.time() + deadline_s
        while behind := [g for g, at in (await self._store.gateways()).items() if at < generation]:
            if loop.time() > until:
                log.warning("gateways %s did not apply routing table %d; going on", ", ".join(behind), generation)
                return
            await asyncio.sleep(APPLY_POLL_S)

    async def publish_and_wait(self) -> None:
        """Publish, and return when every gateway routes accordingly."""
        await self.applied(await self.publish())
