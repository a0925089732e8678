"""The replicas of one deployment: each is started, followed until it is ready, watched over, drained or buried.

Every replica's life is a task of its own. What happens in it lands in its record, and the reconciler is woken; what
a deployment *should* have is the planner's business, not decided here.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections.abc import Awaitable, Coroutine, Iterable
from typing import Any, Protocol

import aiohttp

from fngw.errors import FngwError, from_problem
from fngw_controller import probes
from fngw_controller.engines.base import EngineError, Exited, Instance
from fngw_controller.lifecycle import Lifecycle, cause, stop_grace
from fngw_controller.live import Live, failure_of
from fngw_controller.losses import Losses
from fngw_controller.machine import Machine
from fngw_controller.patience import patiently
from fngw_controller.routes import Routes
from fngw_state.configs import Configs, new_secret
from fngw_state.records import Ack, Artifact, Failure, Replica, ReplicaState, Revision
from fngw_state.resources import Lease
from fngw_state.store import Fenced

log = logging.getLogger(__name__)

#: A replica that lived this long was no crash loop: its place starts counting anew.
STABLE_AFTER_S = 30.0
HEALTH_FAILURES = 3
#: Codes of a start that failed because what it was to run from was removed, as by `docker rmi`.
ARTIFACT_GONE = frozenset({"image_missing", "code_missing", "interpreter_missing"})
#: For a replica that has already told that it cannot serve.
REFUSED_GRACE_S = 1.0


class Owner(Protocol):
    """Whom the replicas tell what happens to them: the reconciler."""

    name: str

    def wake(self) -> None: ...

    async def say(self, number: int, replica_id: str, state: str, why: str = "") -> None: ...

    def artifact_gone(self, generation: int) -> None: ...


class Replicas:
    """All replicas of one deployment.

    Args:
        owner: is told what happens.
        lifecycle: starts and stops them.
        routes: waits until gateways have let go of one that drains.
        configs: lets them into Redis.
        machine: is told when one holds nothing of it any more.
    """

    def __init__(
        self,
        owner: Owner,
        lifecycle: Lifecycle,
        routes: Routes,
        configs: Configs,
        machine: Machine,
    ) -> None:
        self._owner = owner
        self._lifecycle = lifecycle
        self._routes = routes
        self._configs = configs
        self._machine = machine
        self._live: dict[str, Live] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.losses = Losses()

    @property
    def records(self) -> tuple[Replica, ...]:
        return tuple(live.record for live in self._live.values())

    @property
    def ids(self) -> list[str]:
        return list(self._live)

    @property
    def placed(self) -> list[str]:
        """Ids of those that the engine has started."""
        return [i for i, live in self._live.items() if live.record.pid is not None]

    @property
    def secrets(self) -> dict[str, str]:
        """Their passwords for Redis."""
        return {i: live.secret for i, live in self._live.items() if live.secret}

    # -- what to do ---------------------------------------------------------------------------------------

    def start(self, replica_id: str, revision: Revision, artifact: Artifact, attempt: int, lease: Lease) -> None:
        """Start a replica, which holds ``lease``, in a place where ``attempt`` starts failed before."""
        self.losses.fill(revision.generation, attempt)
        live = self._track(replica_id, revision, attempt, new_secret(), lease)
        self._spawn(self._start(live, artifact))

    def adopt(self, instance: Instance, revision: Revision, seen: Replica | None) -> None:
        """Take over a running replica that an earlier controller started, and last saw as ``seen``."""
        live = self._track(instance.id, revision, 0, self._lifecycle.secret(instance.id), Lease(self._owner.name))
        live.record = dataclasses.replace(live.record, pid=instance.pid, gpus=instance.gpus)
        live.started.set()
        if seen and seen.state in (ReplicaState.READY, ReplicaState.DRAINING):
            live.record = dataclasses.replace(live.record, state=seen.state, since=seen.since)
            live.configured(seen.config_number)
        go_on = {ReplicaState.READY: self._watch_over, ReplicaState.DRAINING: self._drain}
        self._spawn(go_on.get(live.record.state, self._until_ready)(live))

    def follow(self, revision: Revision) -> None:
        """Have the replicas of a revision's generation looked after by its options from now on."""
        for live in self._live.values():
            if live.revision.generation == revision.generation:
                live.revision = revision

    def leave(self, replica_ids: Iterable[str]) -> None:
        """Mark replicas as draining: they are to be out of the next routing table."""
        for replica_id in replica_ids:
            self._live[replica_id].move(ReplicaState.DRAINING)

    def drain(self, replica_ids: Iterable[str]) -> None:
        """Stop replicas, once every gateway routes by the table that was published last."""
        for replica_id in replica_ids:
            self._spawn(self._drain(self._live[replica_id]))

    def exited(self, replica_id: str, event: Exited | None) -> None:
        """The engine says that a replica's process has ended (None: it is just not there any more)."""
        live = self._live.get(replica_id)
        if live and not live.exited.is_set():
            live.exit = event
            live.exited.set()

    def missed(self, replica_id: str, end: Exited | None) -> None:
        """The engine does not list a replica as running: it has seen this end, or does not know it any more.

        One that is only being started has no process yet.
        """
        if replica_id in self.placed:
            self.exited(replica_id, end)

    def cancel(self) -> None:
        """Follow no replica any more; they run on."""
        for task in self._tasks:
            task.cancel()

    # -- live configuration -------------------------------------------------------------------------------

    def told(self, replica_ids: Iterable[str], serial: int, number: int) -> None:
        """Note that replicas were told to apply a configuration."""
        for replica_id in replica_ids:
            live = self._live[replica_id]
            live.serial = serial
            live.record = dataclasses.replace(live.record, config_sent=number)

    async def hear_acks(self) -> list[tuple[Ack, FngwError]]:
        """Note what replicas answered; return those that could not apply it, with why."""
        waiting = [i for i, live in self._live.items() if live.serial]
        refusals = []
        for replica_id, ack in (await self._configs.acks(waiting)).items():
            live = self._live.get(replica_id)
            if live is None or ack.serial != live.serial:
                continue
            live.serial = 0
            if ack.error is None:
                live.configured(ack.number)
            else:
                live.configured(-1)  # nobody knows what it runs by: to be told again
                refusals.append((ack, from_problem(dict(ack.error))))
        return refusals

    @property
    def awaiting_acks(self) -> bool:
        return any(live.serial for live in self._live.values())

    def distrust(self, number: int, why: str) -> None:
        """Have replicas replaced that could not apply a configuration outside of a rollout."""
        for live in self._live.values():
            if live.record.config_number == -1 and live.record.state == ReplicaState.READY:
                self.doubt(live.id, f"configuration {number}: {why}")

    def doubt(self, replica_id: str, why: str) -> None:
        """Have a replica replaced: it serves on only while no other does."""
        log.warning("%s: replica %s is unhealthy: %s", self._owner.name, replica_id, why)
        self._live[replica_id].move(ReplicaState.UNHEALTHY, why)

    # -- one replica's life -------------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run ``work`` beside the reconciler; a bug in it is logged, and the reconciler looks again."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error and not isinstance(error, Fenced):  # of that, the leader's lease tells the controller as a whole
            log.error("%s: a task failed", self._owner.name, exc_info=error)
        self._owner.wake()

    def _track(self, replica_id: str, revision: Revision, attempt: int, secret: str, lease: Lease) -> Live:
        record = Replica(
            id=replica_id,
            deployment=self._owner.name,
            generation=revision.generation,
            state=ReplicaState.STARTING,
            since=time.time(),
            gpus=lease.gpus,
            address=str(self._lifecycle.layout.replica_socket(replica_id)),
            config_number=revision.config_number,
            config_sent=revision.config_number,
        )
        live = self._live[replica_id] = Live(record, revision, attempt, secret, lease)
        return live

    async def _start(self, live: Live, artifact: Artifact) -> None:
        await self._say(live, "starting")
        try:
            instance = await patiently(f"starting replica {live.id}", lambda: self._place(live, artifact))
        except Exception as error:  # a bug, if it is not the engine's: told, too, as nobody shall wait for ever
            await self._not_started(live, error)
            return
        finally:
            live.started.set()
        if instance is not None:
            live.record = dataclasses.replace(live.record, pid=instance.pid, gpus=instance.gpus)
            await self._until_ready(live)

    async def _not_started(self, live: Live, error: Exception) -> None:
        if not isinstance(error, FngwError):
            log.error("%s: starting replica %s failed", self._owner.name, live.id, exc_info=error)
            error = FngwError(f"replica {live.id} could not be started: {error!r}", hint="see the controller's log")
        if not live.leaving:
            await self._lost(live, failure_of(live.revision.number, error))
            await self._let_go(live)

    async def _place(self, live: Live, artifact: Artifact) -> Instance | None:
        """Let it into Redis and start it; None when it was told to leave before that."""
        if live.leaving:
            return None
        await self._configs.grant({live.id: live.secret})
        return await self._lifecycle.start(live.id, live.revision, artifact, live.secret, live.lease)

    async def _until_ready(self, live: Live) -> None:
        """Follow a started replica until it is ready, then watch over it until it ends."""
        ready = asyncio.create_task(probes.wait_ready(self._socket(live)))
        gone = asyncio.create_task(live.exited.wait())
        try:
            await asyncio.wait((ready, gone), return_when=asyncio.FIRST_COMPLETED)
            info = ready.result() if ready.done() else {}
        except probes.NotReady as error:
            if not live.leaving:
                await self._refused(live, error.error)
            return
        finally:
            ready.cancel()
            gone.cancel()
        if live.leaving:
            return
        if live.exited.is_set():
            await self._bury(live)
            return
        live.configured(info.get("config_number", live.record.config_number))
        live.move(ReplicaState.READY)
        self._owner.wake()
        await self._say(live, "healthy")
        await self._watch_over(live)

    async def _watch_over(self, live: Live) -> None:
        """Check a ready replica's health until it dies, drains or fails its checks."""
        failures = 0
        while live.record.state == ReplicaState.READY:
            spec = live.revision.spec  # it may have changed in place
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(spec.health_check_period_s):  # not wait_for: see Reconciler._sleep
                    await live.exited.wait()
            if live.record.state != ReplicaState.READY:
                return
            if live.exited.is_set():
                await self._bury(live)
                return
            problem = await self._health_problem(live, spec.health_check_timeout_s)
            failures = failures + 1 if problem else 0
            if problem and failures >= HEALTH_FAILURES and live.record.state == ReplicaState.READY:
                self.doubt(live.id, problem)

    async def _health_problem(self, live: Live, timeout_s: float) -> str | None:
        try:
            await probes.check_health(self._socket(live), timeout_s)
        except probes.NotReady as error:
            return error.error.message
        except TimeoutError:
            return f"check_health did not answer within {timeout_s:g} s"
        except (aiohttp.ClientError, OSError) as error:
            return f"cannot be reached: {error}"
        return None

    async def _drain(self, live: Live) -> None:
        """Out of the routes everywhere, then let it finish, then gone."""
        await live.started.wait()  # what an engine is only starting it cannot stop
        await patiently(f"draining replica {live.id}", self._routes.publish_and_wait)
        await self._remove(live, stop_grace(live.revision))
        live.exited.set()
        self._live.pop(live.id, None)

    async def _refused(self, live: Live, error: FngwError) -> None:
        """A replica told that it cannot serve: stop it."""
        live.move(ReplicaState.FAILED, error.message)
        await self._remove(live, REFUSED_GRACE_S)
        await self._lost(live, failure_of(live.revision.number, error))

    async def _bury(self, live: Live) -> None:
        """A replica died by itself. One that served is succeeded at once; why it died is found out after."""
        served = live.record.state == ReplicaState.READY
        if served and time.time() - live.record.since > STABLE_AFTER_S:
            live.attempt = -1
        why = cause(live.id, live.revision.number, live.exit)
        live.move(ReplicaState.FAILED, why.message)
        self.losses.died(live.id, why)
        if served:
            self._schedule(live, why)
        failure = await self._last_words(live)
        if served:
            self.losses.explain(why, failure)
            log.warning("%s: %s", self._owner.name, failure.message)
            await self._say(live, "failed", failure.message)
        else:
            await self._lost(live, failure)

    async def _last_words(self, live: Live) -> Failure:
        """Find out why a replica died, and clean up after it."""
        name, number, what = self._owner.name, live.revision.number, f"clearing replica {live.id} away"
        failure = await patiently(
            what, lambda: self._lifecycle.died(live.id, name, number, live.exit), on=EngineError
        )
        await self._let_go(live)
        return failure

    async def _remove(self, live: Live, grace_s: float) -> None:
        name, what = self._owner.name, f"stopping replica {live.id}"
        await patiently(what, lambda: self._lifecycle.retire(live.id, name, grace_s), on=EngineError)
        await self._let_go(live)

    async def _let_go(self, live: Live) -> None:
        """Take back what a replica that is gone had besides its process."""
        what = f"taking back what replica {live.id} had"
        await patiently(what, lambda: self._machine.release(live.id))
        await patiently(what, lambda: self._configs.revoke(live.id))

    async def _lost(self, live: Live, failure: Failure) -> None:
        """A replica did not come up: forget it, and fill its place again after a back-off."""
        log.warning("%s: replica %s did not start: %s", self._owner.name, live.id, failure.message)
        if failure.code in ARTIFACT_GONE:
            self._owner.artifact_gone(live.revision.generation)
        self._schedule(live, failure)
        await self._say(live, "failed", failure.message)

    def _schedule(self, live: Live, failure: Failure) -> None:
        self._live.pop(live.id, None)
        self.losses.schedule(live.revision.generation, live.attempt + 1, failure)
        self._owner.wake()

    def _socket(self, live: Live) -> Any:
        return self._lifecycle.layout.replica_socket(live.id)

    def _say(self, live: Live, state: str, why: str = "") -> Awaitable[None]:
        return self._owner.say(live.revision.number, live.id, state, why)
