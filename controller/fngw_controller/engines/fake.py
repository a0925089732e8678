"""An engine in memory, for tests of what stands above engines. It passes the same suite as the real ones.

engine = FakeEngine()
engine.world.refuse("Greeter", StartFailed("no"))    # the next start of this deployment fails
engine.world.die("r1", exit_code=137, oom=True)      # a replica ends by itself
engine.world.away = True                             # the engine does not answer any more
assert engine.calls == [("start", "r1"), …]
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from fngw_controller.engines.base import (
    EngineInfo,
    EngineUnavailable,
    Exited,
    Instance,
    Instances,
    ReplicaNotRunning,
    ReplicaSpec,
)
from fngw_state.records import Artifact


@dataclass
class FakeReplica:
    """One replica of the fake. ``log`` has the time of each chunk."""

    spec: ReplicaSpec
    instance: Instance
    log: list[tuple[float, bytes]] = field(default_factory=list)
    paused: bool = False


class FakeWorld:
    """What is outside of an engine object and survives it: replicas of all installations, and their fates.

    Args:
        clock: the time in Unix seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self.replicas: dict[tuple[str, str], FakeReplica] = {}  # by installation and id
        self.missing: set[Artifact] = set()  # artifacts that are gone
        self.discarded: list[str] = []  # images
        self._away = False
        self._refusals: dict[str, list[Exception]] = defaultdict(list)
        self._gates: dict[str, asyncio.Event] = {}
        self._pids = itertools.count(1000)
        self._subscribers: dict[asyncio.Queue[Exited | None], str] = {}

    # -- what a test does to it -------------------------------------------------------------------------------

    @property
    def away(self) -> bool:
        """Whether the engine does not answer. Setting it back to False makes subscribers get a None."""
        return self._away

    @away.setter
    def away(self, away: bool) -> None:
        came_back = self._away and not away
        self._away = away
        if came_back:
            for queue in self._subscribers:
                queue.put_nowait(None)

    def refuse(self, deployment: str, *errors: Exception) -> None:
        """Let the next starts of a deployment raise these, one each."""
        self._refusals[deployment].extend(errors)

    def hang(self, deployment: str) -> asyncio.Event:
        """Let starts of a deployment wait until the event that is returned is set."""
        return self._gates.setdefault(deployment, asyncio.Event())

    def die(self, id: str, *, exit_code: int | None = 1, oom: bool = False, announce: bool = True) -> None:
        """Let a replica end; with ``announce`` False, its event is lost."""
        for installation, replica_id in self.replicas:
            if replica_id == id:
                self.end(installation, id, exit_code, oom=oom, announce=announce)

    def remove(self, id: str) -> None:
        """Let a replica be removed by hand: it ends, and the engine forgets it."""
        self.die(id, exit_code=137)
        self.replicas = {key: replica for key, replica in self.replicas.items() if key[1] != id}

    def say(self, id: str, text: bytes) -> None:
        """Let a replica write to its output."""
        for (_, replica_id), replica in self.replicas.items():
            if replica_id == id:
                replica.log.append((self.clock(), text))

    # -- what an engine asks of it ----------------------------------------------------------------------------

    async def run(self, installation: str, spec: ReplicaSpec) -> FakeReplica:
        gate = self._gates.get(spec.deployment)
        if gate is not None:
            await gate.wait()
        if self._refusals[spec.deployment]:
            raise self._refusals[spec.deployment].pop(0)
        instance = Instance(
            id=spec.id,
            deployment=spec.deployment,
            generation=spec.generation,
            version=spec.version,
            number=spec.number,
            running=True,
            pid=next(self._pids),
            gpus=spec.gpus,
            started_at=self.clock(),
            exit_code=None,
        )
        replica = self.replicas[installation, spec.id] = FakeReplica(spec, instance)
        return replica

    def end(
        self, installation: str, id: str, exit_code: int | None, *, oom: bool = False, announce: bool = True
    ) -> None:
        replica = self.replicas[installation, id]
        if not replica.instance.running:
            return
        replica.instance = dataclasses.replace(
            replica.instance, running=False, pid=None, exit_code=exit_code, oom=oom
        )
        if announce and not self._away:
            self._announce(installation, replica, exit_code, oom)

    def subscribe(self, installation: str) -> asyncio.Queue[Exited | None]:
        queue: asyncio.Queue[Exited | None] = asyncio.Queue()
        self._subscribers[queue] = installation
        if not self._away:
            queue.put_nowait(None)
        return queue

    def unsubscribe(self, queue: asyncio.Queue[Exited | None]) -> None:
        self._subscribers.pop(queue, None)

    def _announce(self, installation: str, replica: FakeReplica, exit_code: int | None, oom: bool) -> None:
        exited = Exited(replica.spec.id, replica.spec.deployment, exit_code, oom, self.clock())
        for queue, wanted in self._subscribers.items():
            if wanted == installation:
                queue.put_nowait(exited)


class FakeEngine:
    """The protocol on a ``FakeWorld``; several engines on one world are one engine asked by several controllers.

    ``calls`` records what was asked, as ``(method, id)``.
    """

    name = "fake"

    def __init__(self, installation: str = "fake", *, world: FakeWorld | None = None) -> None:
        self.installation = installation
        self.world = world or FakeWorld()
        self.calls: list[tuple[str, str]] = []

    async def check(self) -> EngineInfo:
        self._ask("check")
        return EngineInfo(self.name, "1", "replicas are figments")

    async def start(self, spec: ReplicaSpec) -> Instance:
        self._ask("start", spec.id)
        replica = self._find(spec.id) or await self.world.run(self.installation, spec)
        return replica.instance

    async def stop(self, id: str, timeout_s: float) -> None:
        self._ask("stop", id)
        replica = self._find(id)
        if replica is not None:
            self.world.end(self.installation, id, 0)
            del self.world.replicas[self.installation, id]

    async def list(self) -> Instances:
        self._ask("list")
        mine = [r for (installation, _), r in self.world.replicas.items() if installation == self.installation]
        return [replica.instance for replica in mine]

    async def events(self) -> AsyncIterator[Exited | None]:
        queue = self.world.subscribe(self.installation)
        try:
            while True:
                yield await queue.get()
        finally:
            self.world.unsubscribe(queue)

    async def logs(self, id: str, *, tail: int | None, since: float | None, follow: bool) -> AsyncIterator[bytes]:
        self._ask("logs", id)
        replica = self._find(id)
        if replica is None:
            return
        seen = len(replica.log)
        text = b"".join(chunk for at, chunk in replica.log[:seen] if since is None or at >= since)
        lines = text.splitlines(keepends=True)
        for line in lines if tail is None else lines[max(0, len(lines) - tail) :]:
            yield line
        while follow:
            last = not replica.instance.running
            for _, chunk in replica.log[seen:]:
                yield chunk
            seen = len(replica.log)
            if last:
                return
            await asyncio.sleep(0.01)

    async def pause(self, id: str) -> None:
        self._ask("pause", id)
        self._living(id).paused = True

    async def unpause(self, id: str) -> None:
        self._ask("unpause", id)
        self._living(id).paused = False

    async def has(self, artifact: Artifact) -> bool:
        self._ask("has")
        return artifact not in self.world.missing and artifact.ref not in self.world.discarded

    async def discard(self, image: str) -> bool:
        self._ask("discard", image)
        if any(image == replica.spec.artifact.ref for replica in self.world.replicas.values()):
            return False
        self.world.discarded.append(image)
        return True

    async def cleanup(self) -> None:
        self._ask("cleanup")

    async def close(self) -> None:
        self.calls.append(("close", ""))

    def _ask(self, method: str, id: str = "") -> None:
        self.calls.append((method, id))
        if self.world.away:
            raise EngineUnavailable("the fake engine is away", hint="set world.away to False")

    def _find(self, id: str) -> FakeReplica | None:
        return self.world.replicas.get((self.installation, id))

    def _living(self, id: str) -> FakeReplica:
        replica = self._find(id)
        if replica is None or not replica.instance.running:
            raise ReplicaNotRunning(f"replica {id} does not run")
        return replica
