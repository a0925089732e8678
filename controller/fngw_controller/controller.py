"""All deployments: one reconciler each, woken by desired state and by the engine's events.

Life of a controller: wait to lead → restore desired state if Redis is empty → adopt what runs → work → stop.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from contextlib import suppress

from fngw_controller.engines.base import EngineError, Instance
from fngw_controller.garbage import Collector
from fngw_controller.leader import Leader
from fngw_controller.lifecycle import stop_grace
from fngw_controller.reconciler import Reconciler, Rooms
from fngw_state import keys
from fngw_state.records import DeploymentStatus, Revision
from fngw_state.store import LOST
from fngw_state.watch import watch

log = logging.getLogger(__name__)

#: Safety net: look at every deployment and at the engine's list this often, whatever was or was not heard.
SWEEP_S = 15.0
#: An emptied Redis is noticed within this.
MIND_REDIS_S = 1.0
#: How long gateways may take to learn that all replicas are about to stop.
FAREWELL_S = 2.0
DEFAULT_GRACE_S = 25.0


class Controller:
    """Keeps all deployments of one installation.

    Args:
        rooms: what the reconcilers work with.
        leader: this controller's claim to lead.
        collector: clears away what nothing needs any more.
    """

    def __init__(self, rooms: Rooms, leader: Leader, collector: Collector) -> None:
        self._rooms = rooms
        self._leader = leader
        self._collector = collector
        self._reconcilers: dict[str, Reconciler] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Work until cancelled.

        Call it once the leader's lease is held.

        Raises:
            Fenced (in an exception group): another controller leads.
        """
        engine = await self._rooms.engine.check()
        await self._rooms.store.put_engine(self._leader.token, engine.name, engine.version, engine.detail)
        await self._rooms.snapshots.restore(self._rooms.store)
        await self._rooms.machine.open()
        await self._adopt()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._leader.keep())
            group.create_task(self._follow_desired(group))
            group.create_task(self._follow_engine())
            group.create_task(self._follow_acks())
            group.create_task(self._sweep())
            group.create_task(self._mind_redis())
            group.create_task(self._rooms.machine.watch(self._wake_all, self._mains))
            group.create_task(self._collector.run())

    async def stop_replicas(self) -> None:
        """Take all replicas out of the routes, then drain and stop them. Works with Redis away, too.

        The routes stay: who comes now, or early at the next start, waits for replicas.
        """
        self._rooms.routes.without_replicas()
        with suppress(*LOST, TimeoutError):
            async with asyncio.timeout(FAREWELL_S):
                await self._rooms.routes.publish_and_wait()
                await self._leave_word()
        graces = await self._graces()
        instances = await self._rooms.engine.list()
        log.info("stopping %d replicas", len(instances))
        stops = [self._stop(i, graces.get(i.deployment, DEFAULT_GRACE_S)) for i in instances]
        # One that fails must not keep the others from being drained to their end.
        results = await asyncio.gather(*stops, return_exceptions=True)
        for instance, result in zip(instances, results, strict=True):
            if isinstance(result, BaseException):
                log.error("replica %s of %s was not stopped: %r", instance.id, instance.deployment, result)
        await self._rooms.engine.cleanup()

    async def _leave_word(self) -> None:
        """Write down how it is about to be; else the next start would for a while call healthy what is gone."""
        for status in (await self._rooms.store.all_status()).values():
            stopped = dataclasses.replace(
                status, status=DeploymentStatus.UPDATING, message="stopped with fngw; starting again", replicas=()
            )
            await self._rooms.store.put_status(self._rooms.token(), stopped)

    async def resign(self) -> None:
        """Give the lead back."""
        with suppress(*LOST):
            await self._leader.resign()

    async def _graces(self) -> dict[str, float]:
        with suppress(*LOST, TimeoutError):
            async with asyncio.timeout(FAREWELL_S):
                desired = await self._rooms.store.all_desired()
                return {name: stop_grace(d.target) for name, d in desired.items()}
        return {}

    async def _stop(self, instance: Instance, grace_s: float) -> None:
        await self._rooms.lifecycle.retire(instance.id, instance.deployment, grace_s)

    # -- what to look after -------------------------------------------------------------------------------

    async def _adopt(self) -> None:
        """Take over what an earlier controller started; stop what belongs to nothing."""
        desired = await self._rooms.store.all_desired()
        self._rooms.snapshots.prune(desired)
        await self._rooms.routes.resume(desired)
        statuses = await self._rooms.store.all_status()
        seen = {(r.id, r.generation): r for status in statuses.values() for r in status.replicas}
        for name in desired:
            self._reconcilers[name] = Reconciler(name, self._rooms)
            if name in statuses:
                self._reconcilers[name].replicas.losses.remember(statuses[name].lost)
        adopted: dict[Instance, Revision | None] = {}
        unwanted, strangers = [], set()
        for instance in await self._rooms.engine.list():
            wanted = desired.get(instance.deployment)
            if instance.running and wanted is not None:
                log.info("adopting replica %s of %s", instance.id, instance.deployment)
                last = seen.get((instance.id, instance.generation))
                revision = self._reconcilers[instance.deployment].adopt(instance, wanted, last)
                adopted[instance] = revision
            else:
                log.info("removing replica %s of %s, which is not wanted", instance.id, instance.deployment)
                unwanted.append(self._stop(instance, DEFAULT_GRACE_S if instance.running else 0))
                strangers.add(instance.deployment)
        await asyncio.gather(*unwanted)
        await self._rooms.machine.keep({instance.id for instance in adopted}, desired)
        for instance, revision in adopted.items():
            if revision:
                await self._rooms.machine.adopt(instance.id, instance.deployment, revision.spec, instance.gpus)
        for name in strangers - set(desired):
            self._rooms.lifecycle.forget_logs(name)

    def _look_after(self, name: str, group: asyncio.TaskGroup) -> None:
        """Wake a deployment's reconciler; make one where there is none, or none that still runs."""
        task = self._tasks.get(name)
        if task is None or task.done():
            reconciler = self._reconcilers.get(name)
            if reconciler is None or reconciler.finished:
                reconciler = self._reconcilers[name] = Reconciler(name, self._rooms)
            self._tasks[name] = group.create_task(reconciler.run())
        else:
            self._reconcilers[name].wake()

    async def _follow_desired(self, group: asyncio.TaskGroup) -> None:
        async for message in watch(self._rooms.store.redis, keys.DESIRED_CHANNEL):
            if message is not None:
                self._look_after(message[1], group)
                self._collector.wake()
                continue
            with suppress(*LOST):  # lost again: the next subscription comes by here
                await self._heal()
                for name in {*self._reconcilers, *await self._rooms.store.all_desired()}:
                    self._look_after(name, group)

    async def _follow_acks(self) -> None:
        """Wake the reconcilers of replicas that answered. After a restart of Redis, let all replicas in again."""
        async for message in watch(self._rooms.store.redis, keys.ACKED_CHANNEL):
            with suppress(*LOST):
                if message is None:
                    for reconciler in self._reconcilers.values():
                        await self._rooms.configs.grant(reconciler.replicas.secrets)
                        reconciler.wake()
                else:
                    owner = self._owner(message[1])
                    if owner:
                        owner.wake()

    def _owner(self, replica_id: str) -> Reconciler | None:
        return next((r for r in self._reconcilers.values() if replica_id in r.replicas.ids), None)

    # -- what the engine tells ----------------------------------------------------------------------------

    async def _follow_engine(self) -> None:
        async for event in self._rooms.engine.events():
            if event is None:
                await self._compare()
                continue
            self._collector.wake()
            owner = self._owner(event.id)
            if owner:
                owner.replicas.exited(event.id, event)

    async def _compare(self) -> None:
        """Tell reconcilers of replicas that ended while nobody listened."""
        before = {r: r.replicas.placed for r in self._reconcilers.values()}
        try:
            listed = {i.id: i for i in await self._rooms.engine.list()}
        except EngineError as error:  # its events begin anew once it answers: then this is called again
            log.warning("the engine's replicas cannot be listed: %s", error.message)
            return
        for reconciler, ids in before.items():
            for replica_id in ids:
                instance = listed.get(replica_id)
                if instance is None or not instance.running:
                    reconciler.replicas.missed(replica_id, instance.ended(time.time()) if instance else None)

    # -- should Redis lose its memory ---------------------------------------------------------------------

    async def _mind_redis(self) -> None:
        while True:
            await asyncio.sleep(MIND_REDIS_S)
            with suppress(*LOST):
                await self._heal()

    async def _heal(self) -> None:
        """If Redis was emptied, write back all that is known here. Nothing is stopped because of that."""
        rooms = self._rooms
        if await rooms.snapshots.restore(rooms.store, rooms.routes.generation):
            rooms.routes.publish_anew()
            await rooms.machine.restore()
            for reconciler in list(self._reconcilers.values()):
                await rooms.configs.grant(reconciler.replicas.secrets)
                await reconciler.retell()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            await self._compare()
            with suppress(EngineError, *LOST):
                await self._sweep_leases()
            for name, reconciler in list(self._reconcilers.items()):
                if reconciler.finished:
                    del self._reconcilers[name]
                    self._tasks.pop(name, None)
                reconciler.wake()

    def _wake_all(self) -> None:
        for reconciler in self._reconcilers.values():
            reconciler.wake()

    def _mains(self) -> dict[int, str]:
        """The replicas by their main processes."""
        records = [record for r in self._reconcilers.values() for record in r.replicas.records]
        return {record.pid: record.id for record in records if record.pid is not None}

    async def _sweep_leases(self) -> None:
        listed = {i.id for i in await self._rooms.engine.list()}
        known = {replica_id for r in self._reconcilers.values() for replica_id in r.replicas.ids}
        await self._rooms.machine.sweep(listed | known, self._reconcilers)
