"""One deployment: looks at what is wanted and what is there, plans, and carries the plan out. Serial in itself.

Whatever takes time (a build, a start, a drain) runs as a task of its own, which ends by waking the reconciler.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from fngw import errors
from fngw.errors import BuildFailed, FngwError, to_problem
from fngw_controller import probes
from fngw_controller.engines.base import Engine, Exited, Instance, StartFailed
from fngw_controller.images import Images
from fngw_controller.lifecycle import Lifecycle, stop_grace
from fngw_controller.plan import Plan, Retry, World, back_off, plan
from fngw_controller.routes import Routes
from fngw_controller.snapshots import Snapshots
from fngw_state.configs import Configs, new_secret
from fngw_state.records import (
    Ack,
    Artifact,
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

#: A replica that lived this long was no crash loop: its place starts counting anew.
STABLE_AFTER_S = 30.0
HEALTH_FAILURES = 3
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
    token: Callable[[], int]
    new_id: Callable[[], str]


@dataclass
class _Live:
    """A replica in the controller's memory: its record, and what the record does not tell."""

    record: Replica
    revision: Revision
    attempt: int
    secret: str
    serial: int = 0  # of the live configuration it was last told to apply
    exited: asyncio.Event = field(default_factory=asyncio.Event)
    exit: Exited | None = None

    def move(self, state: ReplicaState, message: str = "") -> None:
        self.record = dataclasses.replace(self.record, state=state, since=time.time(), message=message)


class Reconciler:
    """Keeps one deployment as it is desired.

    Args:
        name: the deployment.
        rooms: what it works with.
    """

    def __init__(self, name: str, rooms: Rooms) -> None:
        self.name = name
        self.finished = False  # nothing desired, nothing left
        self._rooms = rooms
        self._live: dict[str, _Live] = {}
        self._retries: list[tuple[int, Retry]] = []  # with the generation they belong to
        self._artifacts: dict[int, Artifact] = {}  # by generation
        self._builds: dict[int, asyncio.Task[None]] = {}
        self._failure: Failure | None = None
        self._desired: Desired | None = None
        self._told: Status | None = None
        self._wake = asyncio.Event()
        self._wake_at: float | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    # -- from outside -------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Look again soon."""
        self._wake.set()

    @property
    def secrets(self) -> dict[str, str]:
        """The passwords of the replicas that this reconciler answers for."""
        return {i: live.secret for i, live in self._live.items() if live.secret}

    @property
    def replica_ids(self) -> list[str]:
        """The replicas that this reconciler answers for."""
        return list(self._live)

    def exited(self, replica_id: str, event: Exited | None) -> None:
        """The engine says that a replica's process has ended (None: it is just not there any more)."""
        live = self._live.get(replica_id)
        if live and not live.exited.is_set():
            live.exit = event
            live.exited.set()

    def missed(self, replica_id: str) -> None:
        """The engine does not list a replica as running. One that is only being started has no process yet."""
        live = self._live.get(replica_id)
        if live and live.record.pid is not None:
            self.exited(replica_id, None)

    def adopt(self, instance: Instance, desired: Desired) -> None:
        """Take over a running replica that an earlier controller started."""
        held = (desired.target, desired.stable)
        revision = next((r for r in held if r and r.generation == instance.generation), desired.target)
        revision = dataclasses.replace(revision, generation=instance.generation)
        live = self._track(instance.id, revision, 0, self._rooms.lifecycle.secret(instance.id))
        live.record = dataclasses.replace(live.record, pid=instance.pid, gpus=instance.gpus)
        self._spawn(self._until_ready(live))

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
                    self._wake_at = time.time() + RETRY_S
                await self._sleep()
        finally:
            for task in (*self._tasks, *self._builds.values()):
                task.cancel()

    async def _sleep(self) -> None:
        if self.finished:
            return
        timeout = None if self._wake_at is None else max(0.0, self._wake_at - time.time())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), timeout)

    # -- one step -----------------------------------------------------------------------------------------

    async def _step(self) -> None:
        desired = await self._rooms.store.desired(self.name)
        if desired is None:
            await self._abandon()
            return
        await self._note(desired)
        await self._hear_acks(desired)
        todo = plan(desired, self._world(desired), time.time())
        if not todo.empty:
            log.info("%s: %s", self.name, _summary(todo))
        if todo.status == DeploymentStatus.HEALTHY:
            self._retries.clear()
        moments = [at for at in (todo.wake_at, self._wake_at) if at is not None]
        self._wake_at = min(moments, default=None)
        self._carry_out(desired, todo)
        await self._reconfigure(desired, todo)
        await self._tell(desired, todo)
        await self._conclude(desired, todo)

    async def _note(self, desired: Desired) -> None:
        """Take note of a new desired state."""
        before, self._desired = self._desired, desired
        if before and before.serial == desired.serial:
            return
        self._rooms.snapshots.save(desired)
        if before and before.target.number != desired.target.number:
            self._failure = None
            if not (before.settled or before.failed):
                text = f"superseded by revision {desired.target.number}"
                await self._emit(before.target.number, "superseded", text)

    def _world(self, desired: Desired) -> World:
        revision = desired.effective
        generation = revision.generation if revision else -1
        return World(
            replicas=tuple(live.record for live in self._live.values()),
            has_artifact=generation in self._artifacts,
            retries=tuple(r for g, r in self._retries if g == generation),
            failure=self._failure,
        )

    def _carry_out(self, desired: Desired, todo: Plan) -> None:
        revision = desired.effective
        if revision is None:
            self._retries.clear()
        if todo.build and revision:
            self._ensure_build(revision)
        for attempt in todo.start if revision else ():
            assert revision is not None
            self._take_retry(revision.generation, attempt)
            live = self._track(self._rooms.new_id(), revision, attempt, new_secret())
            self._spawn(self._start(live, self._artifacts[revision.generation]))
        for replica_id in todo.stop:
            live = self._live[replica_id]
            live.move(ReplicaState.DRAINING)
            self._spawn(self._drain(live))

    async def _reconfigure(self, desired: Desired, todo: Plan) -> None:
        """Tell replicas of the newest live configuration; they answer by ``_hear_acks``."""
        revision = desired.effective
        if not todo.reconfigure or revision is None:
            return
        serial, spec = await self._rooms.store.next_number(), revision.spec
        config = LiveConfig(serial, revision.config_number, spec.user_config, spec.max_concurrent_queries)
        for replica_id in todo.reconfigure:
            live = self._live[replica_id]
            live.serial = serial
            live.record = dataclasses.replace(live.record, config_sent=revision.config_number)
        await self._rooms.configs.send(self._rooms.token(), dict.fromkeys(todo.reconfigure, config))

    async def _hear_acks(self, desired: Desired) -> None:
        """Take note of what replicas answered. The nudge that they did may be lost: look again in a while."""
        waiting = [i for i, live in self._live.items() if live.serial]
        for replica_id, ack in (await self._rooms.configs.acks(waiting)).items():
            live = self._live.get(replica_id)
            if live and ack.serial == live.serial:
                live.serial = 0
                self._heard(live, ack, desired)
        if any(live.serial for live in self._live.values()):
            self._wake_at = time.time() + ACK_POLL_S

    def _heard(self, live: _Live, ack: Ack, desired: Desired) -> None:
        if ack.error is None:
            live.record = dataclasses.replace(live.record, config_number=ack.number)
            return
        error = errors.from_problem(dict(ack.error))
        log.warning("%s: replica %s did not apply its user_config: %s", self.name, live.record.id, error.message)
        live.record = dataclasses.replace(live.record, config_number=-1, config_sent=-1)
        if ack.number == desired.target.config_number and not (desired.settled or desired.failed):
            self._failure = _failure(desired.target.number, error)
        else:
            live.move(ReplicaState.UNHEALTHY, error.message)

    async def _conclude(self, desired: Desired, todo: Plan) -> None:
        """The parts of a plan that end a deploy, well or not."""
        store, number = self._rooms.store, desired.target.number
        if todo.fail:
            failed = dataclasses.replace(desired, failure=todo.fail)
            if await store.put_desired(desired, failed):
                problem = to_problem(_error(todo.fail))
                await self._emit(number, "failed", todo.fail.message, problem=problem)
            self._retries.clear()
            self._failure = None
            self.wake()
        elif todo.settle:
            await self._rooms.routes.publish_and_wait()
            settled = dataclasses.replace(desired, stable=desired.target, failure=None)
            if await store.put_desired(desired, settled):
                await self._record_version(desired.target)
                await self._emit(number, "done", f"{self.name} is healthy")
            self.wake()
        elif todo.gone:
            await self._rooms.routes.publish_and_wait()
            if await store.remove_desired(desired):
                await self._emit(number, "deleted", f"{self.name} is deleted")
            self.wake()

    async def _abandon(self) -> None:
        """Nothing is desired under this name: stop what is left, and finish."""
        self._desired = None
        for live in list(self._live.values()):
            if live.record.state != ReplicaState.DRAINING:
                live.move(ReplicaState.DRAINING)
                self._spawn(self._drain(live))
        self._rooms.routes.set(self.name, None)
        await self._rooms.routes.publish()
        if not self._live:
            await self._rooms.store.remove_status(self._rooms.token(), self.name)
            self._rooms.snapshots.remove(self.name)
            self.finished = True

    # -- what others see ----------------------------------------------------------------------------------

    async def _tell(self, desired: Desired, todo: Plan) -> None:
        """Publish the routes and the status that this step led to."""
        self._route(desired)
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
            replicas=tuple(live.record for live in self._live.values()),
        )
        if status != self._told:
            await self._rooms.store.put_status(self._rooms.token(), status)
            self._told = status

    def _route(self, desired: Desired) -> None:
        revision = desired.effective
        if revision is None:
            self._rooms.routes.set(self.name, None)
            return
        records = [live.record for live in self._live.values()]
        serving = [r for r in records if r.state == ReplicaState.READY]
        serving = serving or [r for r in records if r.state == ReplicaState.UNHEALTHY]
        spec = revision.spec
        routed = RoutedDeployment(
            name=self.name,
            route_prefix=spec.route_prefix,
            replicas=tuple(RoutedReplica(r.id, r.address) for r in serving),
            max_concurrent_queries=spec.max_concurrent_queries,
            max_queued_requests=spec.max_queued_requests,
            request_timeout_s=spec.request_timeout_s,
        )
        self._rooms.routes.set(self.name, routed)

    async def _record_version(self, revision: Revision) -> None:
        artifact = self._artifacts.get(revision.generation)
        version = Version(
            name=self.name,
            version=revision.spec.version,
            number=revision.number,
            image=artifact.image if artifact else "",
            lock=artifact.lock if artifact else None,
            deployed_at=revision.deployed_at,
            spec=revision.spec.to_dict(),
        )
        await self._rooms.store.add_version(self._rooms.token(), version)

    async def _emit(self, number: int, kind: str, message: str, **more: Any) -> None:
        await self._rooms.store.emit(self.name, number, kind, message, **more)

    # -- tasks --------------------------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run ``work`` beside the reconciler; a bug in it is logged, and the reconciler looks again."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("%s: a task failed", self.name, exc_info=error)
        self.wake()

    def _ensure_build(self, revision: Revision) -> None:
        if revision.generation not in self._builds:
            task = asyncio.create_task(self._build(revision))
            self._builds[revision.generation] = task

    async def _build(self, revision: Revision) -> None:
        async def report(line: str) -> None:
            await self._emit(revision.number, "build", line)

        try:
            artifact, reused = await self._rooms.images.ensure(revision.spec, report)
            self._artifacts[revision.generation] = artifact
            self._failure = None
            await self._emit(revision.number, "image", artifact.image, image=artifact.image, reused=reused)
        except FngwError as error:
            self._failure = _failure(revision.number, error)
            await asyncio.sleep(0 if self._is_rollout(revision) else back_off(5))
        except LOST as error:
            log.warning("%s: lost Redis during a build (%s)", self.name, error)
            await asyncio.sleep(RETRY_S)
        finally:
            del self._builds[revision.generation]
            self.wake()

    def _is_rollout(self, revision: Revision) -> bool:
        desired = self._desired
        return desired is not None and desired.target.number == revision.number and not desired.settled

    def _track(self, replica_id: str, revision: Revision, attempt: int, secret: str) -> _Live:
        record = Replica(
            id=replica_id,
            deployment=self.name,
            generation=revision.generation,
            state=ReplicaState.STARTING,
            since=time.time(),
            address=str(self._rooms.lifecycle.layout.replica_socket(replica_id)),
            config_number=revision.config_number,
            config_sent=revision.config_number,
        )
        live = self._live[replica_id] = _Live(record, revision, attempt, secret)
        return live

    async def _start(self, live: _Live, artifact: Artifact) -> None:
        await self._say(live, "starting")
        try:
            await self._rooms.configs.grant({live.record.id: live.secret})
            instance = await self._rooms.lifecycle.start(live.record.id, live.revision, artifact, live.secret)
        except StartFailed as error:
            if error.code == "image_missing":
                self._artifacts.pop(live.revision.generation, None)
            self._lost(live, _failure(live.revision.number, error))
            return
        live.record = dataclasses.replace(live.record, pid=instance.pid, gpus=instance.gpus)
        await self._until_ready(live)

    async def _until_ready(self, live: _Live) -> None:
        """Follow a started replica until it is ready, then watch over it until it ends."""
        socket = self._rooms.lifecycle.layout.replica_socket(live.record.id)
        ready = asyncio.create_task(probes.wait_ready(socket))
        gone = asyncio.create_task(live.exited.wait())
        try:
            await asyncio.wait((ready, gone), return_when=asyncio.FIRST_COMPLETED)
            if ready.done():
                number = ready.result().get("config_number", live.record.config_number)
                live.record = dataclasses.replace(live.record, config_number=number, config_sent=number)
        except probes.NotReady as error:
            if live.record.state != ReplicaState.DRAINING:
                await self._refused(live, error.error)
            return
        finally:
            ready.cancel()
            gone.cancel()
        if live.record.state == ReplicaState.DRAINING:
            return
        if live.exited.is_set():
            await self._bury(live)
            return
        live.move(ReplicaState.READY)
        self.wake()
        await self._say(live, "healthy")
        await self._watch_over(live)

    async def _watch_over(self, live: _Live) -> None:
        """Check a ready replica's health until it dies or fails its checks."""
        failures, spec = 0, live.revision.spec
        while live.record.state == ReplicaState.READY:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(live.exited.wait(), spec.health_check_period_s)
            if live.exited.is_set():
                if live.record.state == ReplicaState.READY:
                    await self._bury(live)
                return
            problem = await self._health_problem(live, spec.health_check_timeout_s)
            failures = failures + 1 if problem else 0
            if problem and failures >= HEALTH_FAILURES and live.record.state == ReplicaState.READY:
                log.warning("%s: replica %s is unhealthy: %s", self.name, live.record.id, problem)
                live.move(ReplicaState.UNHEALTHY, problem)

    async def _health_problem(self, live: _Live, timeout_s: float) -> str | None:
        socket = self._rooms.lifecycle.layout.replica_socket(live.record.id)
        try:
            await probes.check_health(socket, timeout_s)
        except probes.NotReady as error:
            return error.error.message
        except TimeoutError:
            return f"check_health did not answer within {timeout_s:g} s"
        except (aiohttp.ClientError, OSError) as error:
            return f"cannot be reached: {error}"
        return None

    async def _refused(self, live: _Live, error: FngwError) -> None:
        """A replica told that it cannot serve: stop it."""
        live.move(ReplicaState.FAILED, error.message)
        await self._rooms.lifecycle.save_log(live.record.id, self.name)
        await self._rooms.lifecycle.stop(live.record.id, self.name, 1.0)
        await self._rooms.configs.revoke(live.record.id)
        self._lost(live, _failure(live.revision.number, error))

    async def _bury(self, live: _Live) -> None:
        """A replica died: out of the routes at once, then find out why."""
        served = live.record.state == ReplicaState.READY
        if served and time.time() - live.record.since > STABLE_AFTER_S:
            live.attempt = -1
        live.move(ReplicaState.FAILED)
        if served:  # its successor need not wait for the reason
            self._schedule(live, Failure(live.revision.number, "replica_died", _died(live)))
        failure = await self._rooms.lifecycle.died(live.record.id, self.name, live.revision.number, live.exit)
        await self._rooms.configs.revoke(live.record.id)
        log.warning("%s: %s", self.name, failure.message)
        if served:
            self._explain(live, failure)
        else:
            self._schedule(live, failure)
        await self._say(live, "failed", failure.message)

    def _lost(self, live: _Live, failure: Failure) -> None:
        """A replica did not come up: forget it, and fill its place again after a back-off."""
        log.warning("%s: replica %s did not start: %s", self.name, live.record.id, failure.message)
        self._schedule(live, failure)
        self._spawn(self._say(live, "failed", failure.message))

    def _schedule(self, live: _Live, failure: Failure) -> None:
        self._live.pop(live.record.id, None)
        attempt = live.attempt + 1
        retry = Retry(attempt, time.time() + back_off(attempt), failure)
        self._retries.append((live.revision.generation, retry))
        self.wake()

    def _explain(self, live: _Live, failure: Failure) -> None:
        """Put the reason that was found into the place that waits for its next try."""
        self._retries = [
            (g, dataclasses.replace(r, failure=failure) if r.failure.message == _died(live) else r)
            for g, r in self._retries
        ]

    def _take_retry(self, generation: int, attempt: int) -> None:
        for entry in self._retries:
            if entry[0] == generation and entry[1].attempt == attempt:
                self._retries.remove(entry)
                return

    async def _drain(self, live: _Live) -> None:
        """Out of the routes everywhere, then let it finish, then gone."""
        if self._desired is not None:
            self._route(self._desired)
        await self._rooms.routes.publish_and_wait()
        await self._rooms.lifecycle.save_log(live.record.id, self.name)
        await self._rooms.lifecycle.stop(live.record.id, self.name, stop_grace(live.revision))
        await self._rooms.configs.revoke(live.record.id)
        self._live.pop(live.record.id, None)

    async def _say(self, live: _Live, state: str, why: str = "") -> None:
        text = f"replica {live.record.id} {state}" + (f": {why}" if why else "")
        await self._emit(live.revision.number, "replica", text, replica=live.record.id, state=state)


def _failure(number: int, error: FngwError) -> Failure:
    kind = "BuildFailed" if isinstance(error, BuildFailed) else "DeploymentFailed"
    return Failure(number, error.code, error.message, detail=error.detail, hint=error.hint, error=kind)


def _died(live: _Live) -> str:
    return f"replica {live.record.id} died"


def _error(failure: Failure) -> FngwError:
    cls: type[FngwError] = getattr(errors, failure.error)
    return cls(failure.message, code=failure.code, detail=failure.detail, hint=failure.hint)


def _summary(todo: Plan) -> str:
    acts = [
        "build" if todo.build else "",
        f"start {len(todo.start)}" if todo.start else "",
        f"stop {', '.join(todo.stop)}" if todo.stop else "",
        f"reconfigure {len(todo.reconfigure)}" if todo.reconfigure else "",
        f"give up: {todo.fail.message}" if todo.fail else "",
        "rolled out" if todo.settle else "",
        "gone" if todo.gone else "",
    ]
    return "; ".join(a for a in acts if a) or "nothing to do"
