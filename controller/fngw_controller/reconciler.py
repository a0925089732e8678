"""One deployment: looks at what is wanted and what is there, plans, and carries the plan out. Serial in itself.

Whatever takes time (a build, a start, a drain) runs as a task of its own, which ends by waking the reconciler.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fngw.errors import FngwError
from fngw_controller.artifacts import Artifacts
from fngw_controller.engines.base import Engine, Instance
from fngw_controller.images import Images
from fngw_controller.lifecycle import Lifecycle
from fngw_controller.live import failure_of
from fngw_controller.machine import Machine
from fngw_controller.plan import Plan, World, plan
from fngw_controller.replicas import Replicas
from fngw_controller.room import Room
from fngw_controller.routes import Routes
from fngw_controller.snapshots import Snapshots
from fngw_state.configs import Configs
from fngw_state.history import History
from fngw_state.records import (
    DeploymentStatus,
    Desired,
    Failure,
    LiveConfig,
    Replica,
    ReplicaState,
    Revision,
    RoutedDeployment,
    RoutedReplica,
    Status,
    Version,
)
from fngw_state.store import LOST, Store

log = logging.getLogger(__name__)

#: After an error that is not the user's (Redis away): look again.
RETRY_S = 0.5
#: A replica's answer to a new configuration is heard of at once; should that be lost, after this.
ACK_POLL_S = 1.0


@dataclass(frozen=True)
class Rooms:
    """What all reconcilers share."""

    store: Store
    engine: Engine
    lifecycle: Lifecycle
    images: Images
    routes: Routes
    snapshots: Snapshots
    configs: Configs
    history: History
    machine: Machine
    token: Callable[[], int]
    confirm: Callable[[], Awaitable[None]]  # raises Fenced unless this controller leads
    new_id: Callable[[], str]


class Reconciler:
    """Keeps one deployment as it is desired.

    Args:
        name: the deployment.
        rooms: what it works with.
    """

    def __init__(self, name: str, rooms: Rooms) -> None:
        self.name = name
        self.finished = False  # nothing desired, nothing left
        self.replicas = Replicas(self, rooms.lifecycle, rooms.routes, rooms.configs, rooms.machine)
        self._room = Room(self, rooms.machine)
        self._rooms = rooms
        self._artifacts = Artifacts(self, rooms.images, rooms.history, rooms.token)
        self._failure: Failure | None = None
        self._desired: Desired | None = None
        self._told: Status | None = None
        self._wake = asyncio.Event()
        self._wake_at: float | None = None

    def wake(self) -> None:
        """Look again soon."""
        self._wake.set()

    async def retell(self) -> None:
        """Tell everything again, as Redis has lost it."""
        self._told = None
        self.wake()
        await self._artifacts.note_all()

    def adopt(self, instance: Instance, desired: Desired, seen: Replica | None) -> Revision | None:
        """Take over a running replica that an earlier controller started, and last saw as ``seen``.

        Returns:
            What it runs; None when that is known no more.
        """
        held = (desired.target, desired.stable)
        known = next((r for r in held if r and r.generation == instance.generation), None)
        revision = known or dataclasses.replace(desired.target, generation=instance.generation)
        self.replicas.adopt(instance, revision, seen)
        return known

    async def run(self) -> None:
        """Reconcile until cancelled, or until nothing is desired and nothing is left."""
        try:
            while not self.finished:
                self._wake.clear()
                self._wake_at = None
                try:
                    await self._step()
                except LOST as error:
                    log.warning("%s: redis is away (%s)", self.name, error)
                    self._look_again(RETRY_S)
                await self._sleep()
        finally:
            self.replicas.cancel()
            self._artifacts.close()

    async def _sleep(self) -> None:
        if self.finished:
            return
        timeout = None if self._wake_at is None else max(0.0, self._wake_at - time.time())
        # Not wait_for: before Python 3.12 it loses a cancellation that comes together with the event (bpo-37658).
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._wake.wait()

    def _look_again(self, seconds: float) -> None:
        at = time.time() + seconds
        self._wake_at = at if self._wake_at is None else min(at, self._wake_at)

    # -- one step -----------------------------------------------------------------------------------------

    async def _step(self) -> None:
        await self._rooms.confirm()
        desired = await self._rooms.store.desired(self.name)
        if desired is None:
            await self._missing()
            return
        await self._note(desired)
        await self._hear_acks(desired)
        for replica_id, why in self._room.unfit(self.replicas.records, desired.effective).items():
            self.replicas.doubt(replica_id, why)
        todo = plan(desired, self._world(desired), time.time())
        if not todo.empty:
            log.info("%s: %s", self.name, todo.summary)
        if todo.wake_at is not None:
            self._look_again(max(0.0, todo.wake_at - time.time()))
        await self._start(desired, todo)
        self._act(desired, todo)
        await self._reconfigure(desired, todo)
        await self._tell(desired, todo)
        if todo.complete:
            await self._room.settle()
        await self._conclude(desired, todo)

    async def _note(self, desired: Desired) -> None:
        """Take note of a new desired state."""
        before, self._desired = self._desired, desired
        if before and before.serial == desired.serial:
            return
        self._rooms.snapshots.save(desired)
        self._room.forget_shortage()
        if desired.effective:
            self.replicas.follow(desired.effective)
        await self._artifacts.want_only(_wanted(desired))
        if before and before.target.number != desired.target.number:
            self._failure = None
            if not (before.settled or before.failed):
                text = f"superseded by revision {desired.target.number}"
                await self.emit(before.target.number, "superseded", text)
        self._failure = self._failure or self._room.impossible(desired.target)

    def _world(self, desired: Desired) -> World:
        revision = desired.effective
        generation = revision.generation if revision else -1
        return World(
            replicas=self.replicas.records,
            has_artifact=generation in self._artifacts,
            retries=self.replicas.losses.retries(generation),
            failure=self._failure,
            shortage=self._room.shortage,
            over=self._room.told_over(self.replicas.records),
        )

    async def _start(self, desired: Desired, todo: Plan) -> None:
        """Start replicas, as far as there is room for them; if there is not, that changes the plan."""
        revision = desired.effective
        artifact = self._artifacts.get(revision.generation) if revision else None
        if revision is None or artifact is None:
            return
        for attempt in todo.start:
            replica_id = self._rooms.new_id()
            lease = await self._room.take(replica_id, revision, self.replicas.records)
            if lease is None:
                self.wake()
                return
            self.replicas.start(replica_id, revision, artifact, attempt, lease)

    def _act(self, desired: Desired, todo: Plan) -> None:
        """The parts of a plan that begin something."""
        revision = desired.effective
        if revision is None or todo.status == DeploymentStatus.HEALTHY:
            self.replicas.losses.forget_retries()
        if revision is not None and todo.build:
            self._artifacts.build(revision)
        self._drain(todo.stop, desired)

    def _drain(self, replica_ids: Sequence[str], desired: Desired | None) -> None:
        """Take replicas out of the routes and let them go. Nothing is awaited in between: what stops half-way when
        Redis is lost would leave them draining for ever."""
        self.replicas.leave(replica_ids)
        self._rooms.routes.set(self.name, self._routed(desired) if desired else None)
        self.replicas.drain(replica_ids)

    async def _conclude(self, desired: Desired, todo: Plan) -> None:
        """The parts of a plan that end a deploy, well or not."""
        if todo.fail:
            await self._give_up(desired, todo.fail)
        elif todo.settle:
            await self._settle(desired)
        elif todo.gone:
            await self._rooms.routes.publish_and_wait()
            await asyncio.to_thread(self._rooms.lifecycle.forget_logs, self.name)
            if await self._rooms.store.remove_desired(desired):
                await self.emit(desired.target.number, "deleted", f"{self.name} is deleted")
        elif not todo.stop:
            return
        self.wake()  # also after a stop: what follows from it need not wait for the drain, which may take long

    async def _give_up(self, desired: Desired, why: Failure) -> None:
        failed = dataclasses.replace(desired, failure=why)
        if await self._rooms.store.put_desired(desired, failed):
            await self.emit(desired.target.number, "failed", why.message, problem=why.problem())
        self.replicas.losses.forget_retries()
        self._failure = None

    async def _settle(self, desired: Desired) -> None:
        await self._rooms.routes.publish_and_wait()
        target = self._pinned(desired.target)
        settled = dataclasses.replace(desired, target=target, stable=target, failure=None)
        await self._record_version(target)  # first: it is recorded once, however often this is tried
        if await self._rooms.store.put_desired(desired, settled):
            await self.emit(desired.target.number, "done", f"{self.name} is healthy")
        await self._artifacts.want_only({target.generation})

    def _pinned(self, revision: Revision) -> Revision:
        """A revision with what its dependencies were solved to: it is built again, or rolled back to, as it is."""
        artifact = self._artifacts.get(revision.generation)
        if artifact is None or artifact.lock is None:
            return revision
        spec = dataclasses.replace(revision.spec, lock=artifact.lock, upgrade=None)
        return dataclasses.replace(revision, spec=spec)

    async def _missing(self) -> None:
        """Redis does not know this name. A deletion is always seen here first; if it was not, Redis has lost it."""
        lost = self._desired
        if lost is None or lost.deleting:
            await self._abandon()
            return
        if await self._rooms.store.put_desired(None, lost):
            log.warning("%s: redis had lost what is desired; restored revision %d", self.name, lost.target.number)
        self.wake()

    async def _abandon(self) -> None:
        """Nothing is desired under this name: stop what is left, and finish."""
        self._desired = None
        left = [r.id for r in self.replicas.records if r.state != ReplicaState.DRAINING]
        self._drain(left, None)
        await self._rooms.routes.publish()
        if not self.replicas.ids:
            await self._rooms.store.remove_status(self._rooms.token(), self.name)
            self._rooms.snapshots.remove(self.name)
            self.finished = True

    # -- live configuration -------------------------------------------------------------------------------

    async def _reconfigure(self, desired: Desired, todo: Plan) -> None:
        """Tell replicas of the newest live configuration; they answer by ``_hear_acks``."""
        revision = desired.effective
        if not todo.reconfigure or revision is None:
            return
        serial = await self._rooms.store.next_number()
        config = LiveConfig.of(revision, serial)
        self.replicas.told(todo.reconfigure, serial, revision.config_number)
        await self._rooms.configs.send(self._rooms.token(), dict.fromkeys(todo.reconfigure, config))

    async def _hear_acks(self, desired: Desired) -> None:
        for ack, error in await self.replicas.hear_acks():
            rollout = not (desired.settled or desired.failed)
            if rollout and ack.number == desired.target.config_number:
                self._failure = failure_of(desired.target.number, error)
            else:
                self.replicas.distrust(ack.number, error.message)
        if self.replicas.awaiting_acks:
            self._look_again(ACK_POLL_S)

    # -- what others see ----------------------------------------------------------------------------------

    async def _tell(self, desired: Desired, todo: Plan) -> None:
        """Publish the routes and the status that this step led to."""
        await self._rooms.routes.publish()
        revision = desired.effective or desired.target
        artifact = self._artifacts.get(revision.generation)
        status = Status(
            name=self.name,
            status=todo.status,
            message=todo.message,
            number=desired.target.number,
            image=artifact.image if artifact else None,
            lock=artifact.lock if artifact else None,
            replicas=self.replicas.records,
            lost=self.replicas.losses.deaths,
        )
        if status != self._told:
            await self._rooms.store.put_status(self._rooms.token(), status)
            self._told = status

    def _routed(self, desired: Desired) -> RoutedDeployment | None:
        revision = desired.effective
        if revision is None:
            return None
        records = self.replicas.records
        serving = [r for r in records if r.state == ReplicaState.READY]
        serving = serving or [r for r in records if r.state == ReplicaState.UNHEALTHY]
        spec = revision.spec
        return RoutedDeployment(
            name=self.name,
            route_prefix=spec.route_prefix,
            replicas=tuple(RoutedReplica(r.id, r.address) for r in serving),
            max_concurrent_queries=spec.max_concurrent_queries,
            max_queued_requests=spec.max_queued_requests,
            request_timeout_s=spec.request_timeout_s,
        )

    async def _record_version(self, revision: Revision) -> None:
        artifact = self._artifacts.get(revision.generation)
        version = Version(
            name=self.name,
            version=revision.spec.version,
            number=revision.number,
            generation=revision.generation,
            image=artifact.image if artifact else "",
            lock=artifact.lock if artifact else None,
            deployed_at=revision.deployed_at,
            spec=revision.spec.to_dict(),
        )
        await self._rooms.history.add_version(self._rooms.token(), version)

    async def say(self, number: int, replica_id: str, state: str, why: str = "") -> None:
        """Tell those who follow a deploy what happened to a replica, if Redis is there to take it."""
        text = f"replica {replica_id} {state}" + (f": {why}" if why else "")
        try:
            await self.emit(number, "replica", text, replica=replica_id, state=state)
        except LOST as error:
            log.warning("%s: %s (nobody was told: %s)", self.name, text, error)

    async def emit(self, number: int, kind: str, message: str, **more: Any) -> None:
        """Tell those who follow a deploy."""
        await self._rooms.confirm()
        await self._rooms.store.emit(self.name, number, kind, message, **more)

    # -- what it runs from: see Artifacts -----------------------------------------------------------------

    def artifact_gone(self, generation: int) -> None:
        """What a generation runs from was removed: to be built again before the next start."""
        self._artifacts.forget(generation)

    def built(self, revision: Revision, error: FngwError | None) -> None:
        """Take note of how a build ended."""
        if error:
            self._failure = failure_of(revision.number, error)
        elif self._failure and self._failure.number == revision.number:
            self._failure = None

    def is_rollout(self, revision: Revision) -> bool:
        """Whether a revision is the one that is being rolled out."""
        desired = self._desired
        return desired is not None and desired.target.number == revision.number and not desired.settled


def _wanted(desired: Desired) -> set[int]:
    """The generations whose replicas may be started from now on."""
    if desired.deleting:
        return set()
    target = None if desired.failed else desired.target
    return {revision.generation for revision in (target, desired.stable) if revision}
