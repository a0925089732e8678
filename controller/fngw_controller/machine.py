"""The machine that replicas run on: what it has, who holds what of it, and who waits for something to become free.

The leading controller is the only one that leases, so that what it remembers of the leases is the truth, should
Redis lose them. Whoever waits is woken by whatever may have made room.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping

from fngw.errors import ValidationError
from fngw.spec import DeploymentSpec
from fngw_controller import processes
from fngw_controller.inventory.base import Inventory
from fngw_controller.metering import Excess, excesses, usage
from fngw_state.leases import Blocker, Leases
from fngw_state.resources import Capacity, Lease, Ledger, Request, does_not_fit
from fngw_state.store import LOST
from fngw_state.usage import Measured

log = logging.getLogger(__name__)

#: Between looks at what the machine has.
REFRESH_S = 10.0


class Machine:
    """Leases of one machine.

    Args:
        leases: where they are kept.
        measured: where what they use is told.
        inventory: says what the machine has.
        token: gives the leader's fencing token.
    """

    def __init__(self, leases: Leases, measured: Measured, inventory: Inventory, token: Callable[[], int]) -> None:
        self._leases = leases
        self._measured = measured
        self._inventory = inventory
        self._token = token
        self._capacity = Capacity()
        self._over: dict[str, Excess] = {}  # by replica
        self._changed = False  # since an earlier leader saw it
        self._held: dict[str, Lease] = {}  # by replica
        self._taking: set[str] = set()  # replicas whose leases are being asked for
        self._unsettled: set[str] = set()  # deployments for which more may be reserved than they hold
        self._waiting: dict[str, Callable[[], None]] = {}  # by deployment, longest first

    # -- what there is ------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Find out what the machine has, and write it down.

        Raises:
            InventoryError: what was declared cannot be read.
        """
        before = (await self._leases.ledger()).capacity
        self._capacity = await self._inventory.read()
        self._changed = before != self._capacity
        await self._leases.declare(self._token(), self._capacity)

    async def watch(self, changed: Callable[[], None], mains: Callable[[], Mapping[int, str]]) -> None:
        """Look every few seconds what the machine has, and what is used of it.

        Args:
            changed: called when there is something new for the deployments.
            mains: gives the replicas by their main processes.
        """
        while True:
            await asyncio.sleep(REFRESH_S)
            try:
                if await self._look() | await self._measure(mains()):
                    changed()
            except LOST as error:
                log.warning("redis is away (%s)", error)

    async def _look(self) -> bool:
        """Take note of what the machine has; tell whether that is something else than before."""
        capacity = await self._inventory.read()
        if capacity == self._capacity:
            return False
        log.info("the machine has changed: %s", capacity)
        self._capacity = capacity
        await self._leases.declare(self._token(), capacity)
        await self._let_go()
        self._wake()
        return True

    async def _measure(self, mains: Mapping[int, str]) -> bool:
        """Take note of what is used of the GPUs, where they tell; tell whether who is over has changed."""
        in_use = await self._inventory.gpus.in_use()
        if in_use is None:
            return False
        found = usage(in_use, await asyncio.to_thread(processes.table), mains, self._held)
        await self._measured.put(self._token(), found)
        before, self._over = self._over, excesses(found, self._over)
        return before != self._over

    def over(self, replica: str) -> Excess | None:
        """Return how far a replica is over its GPU memory; None when it is not, or nobody can tell."""
        return self._over.get(replica)

    async def _let_go(self) -> None:
        """Keep nothing that was reserved of another machine: it might keep all others out of this one."""
        for deployment in (await self._leases.ledger()).reserved:
            await self._leases.settle(self._token(), deployment)

    async def restore(self) -> None:
        """Write everything down again: Redis was emptied."""
        await self._leases.declare(self._token(), self._capacity, self._held)

    def impossible(self, spec: DeploymentSpec) -> ValidationError | None:
        """Return why a replica of ``spec`` cannot ever run here; None when it can."""
        return does_not_fit(self._capacity, Request.of(spec))

    def faults(self, replica: str) -> str:
        """Return what is wrong with the devices of a replica; empty when nothing is."""
        lease = self._held.get(replica)
        found = [(uuid, self._capacity.device(uuid)) for uuid in (lease.gpus if lease else ())]
        return "; ".join(f"{uuid}: {d.fault if d else 'gone'}" for uuid, d in found if d is None or d.fault)

    # -- who holds it -------------------------------------------------------------------------------------

    async def take(
        self, replica: str, deployment: str, request: Request, leaving: Collection[str], old: Collection[str]
    ) -> Lease | Blocker:
        """Take what a replica is to hold: see ``Leases.take``."""
        if not request.counted(self._capacity):
            return Lease(deployment)
        self._taking.add(replica)
        self._unsettled.add(deployment)
        try:
            found = await self._leases.take(self._token(), replica, deployment, request, leaving=leaving, old=old)
            if isinstance(found, Lease):
                self._held[replica] = found
            return found
        finally:
            self._taking.discard(replica)

    async def adopt(self, replica: str, deployment: str, spec: DeploymentSpec, gpus: Collection[str]) -> None:
        """Write down what a running replica holds, unless it is (``keep`` found it)."""
        request = Request.of(spec)
        if replica not in self._held and request.counted(self._capacity):
            self._unsettled.add(deployment)
            self._held[replica] = await self._leases.adopt(self._token(), replica, deployment, request, gpus)

    async def release(self, replica: str) -> None:
        """Give back what a replica held, and wake who waits."""
        if replica in self._held:
            await self._leases.release(self._token(), replica)
            self._forget(replica)

    async def settle(self, deployment: str) -> None:
        """Reserve for a deployment no more than its replicas hold."""
        if deployment in self._unsettled:
            freed = await self._leases.settle(self._token(), deployment)
            self._unsettled.discard(deployment)
            if freed:
                self._wake()

    async def keep(self, replicas: Collection[str], deployments: Collection[str]) -> None:
        """Go on from what an earlier leader left, but for what others hold than these: they are gone."""
        dropped = await self._leases.keep(self._token(), replicas, deployments)
        self._held = dict((await self._leases.ledger()).leases)
        self._unsettled.update(deployments)
        if self._changed:
            await self._let_go()
        if dropped:
            log.info("dropped the leases of %s", ", ".join(dropped))

    async def sweep(self, alive: Collection[str], deployments: Collection[str]) -> None:
        """Drop leases that nobody minds: of replicas that are gone, or that were taken when Redis got lost."""
        gone = [r for r in self._held if r not in alive]  # before anything is awaited: more may be taken meanwhile
        ledger = await self._leases.ledger()
        self._unsettled.update(name for name in ledger.reserved if name not in deployments)
        for deployment in [name for name in self._unsettled if name not in deployments]:
            await self.settle(deployment)
        unknown = [r for r in ledger.leases if r not in self._held and r not in self._taking]
        for replica in (*unknown, *gone):
            log.warning("dropping the lease of replica %s, which is gone", replica)
            if replica in ledger.leases:
                self._unsettled.add(ledger.leases[replica].deployment)
            await self._leases.release(self._token(), replica)
            self._forget(replica)

    def _forget(self, replica: str) -> None:
        lease = self._held.pop(replica, None)
        if lease:
            self._unsettled.add(lease.deployment)
        self._wake()

    def holders(self, deployment: str) -> list[str]:
        """The replicas of a deployment that hold something, those that are about to be cleared away included."""
        return [replica for replica, lease in self._held.items() if lease.deployment == deployment]

    async def ledger(self) -> Ledger:
        return await self._leases.ledger()

    # -- who waits ----------------------------------------------------------------------------------------

    def wait(self, deployment: str, wake: Callable[[], None]) -> None:
        """Have ``wake`` called once, as soon as there may be more room."""
        self._waiting[deployment] = wake

    def wait_no_more(self, deployment: str) -> None:
        self._waiting.pop(deployment, None)

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for wake in waiting.values():
            wake()
