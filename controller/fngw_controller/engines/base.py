"""The protocol between the controller and whatever runs replicas, and the values that cross it.

::

    EngineError (FngwError)
    ├── EngineUnavailable     no engine answers, or it does not let this user in
    └── StartFailed           this replica could not be started; nothing is left behind
        ReplicaNotRunning     there is nothing to pause or unpause

Nothing here assumes one host besides the two directories of a ``ReplicaSpec``. Implementations: ``docker``,
``process`` and, for tests, ``fake``; one suite in ``tests/integration/engines`` runs against all three.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from fngw.errors import FngwError
from fngw_state.records import Artifact

__all__ = [
    "Engine",
    "EngineError",
    "EngineInfo",
    "EngineUnavailable",
    "Exited",
    "Instance",
    "ReplicaNotRunning",
    "ReplicaSpec",
    "StartFailed",
]


class EngineError(FngwError):
    """An engine did not do what it was asked."""

    default_code = "engine_error"


class EngineUnavailable(EngineError):
    """No engine answers (``engine_unreachable``), or it does not let this user in (``engine_permission``)."""

    default_code = "engine_unreachable"
    default_status = 503


class StartFailed(EngineError):
    """A replica could not be started; nothing of it is left in the engine.

    Codes: ``start_failed``, ``image_missing``, ``gpu_runtime_missing``, ``interpreter_missing``, ``code_missing``.
    """

    default_code = "start_failed"


class ReplicaNotRunning(EngineError):
    """A replica that should be paused or unpaused does not run."""

    default_code = "replica_not_running"
    default_status = 409


#: Variables that would show a replica GPUs that it was not given, or take more of one than its share.
RESERVED_PREFIXES = ("NVIDIA_", "CUDA_MPS_", "CUDA_VISIBLE_DEVICES")


@dataclass(frozen=True)
class ReplicaSpec:
    """One replica to start.

    Args:
        id: unique over all replicas that ever were; names the container.
        deployment, generation, version, number: carried as labels, and given back by ``Engine.list``.
        artifact: the image (Docker), or interpreter and code (processes).
        directory: the replica's own directory, which it may write to.
        shared: the directory of the shared sockets, read-only for the replica.
        log_file: where engines without logs of their own write its output.
        env: the user's environment variables.
        cpus: a weight against other replicas, not a limit.
        memory: limit in bytes, or None.
        gpus: UUIDs of the devices that it may see.
        gpu_shares: thousandths and MiB of each of them that are its own.
        mps: where NVIDIA's MPS daemon is reached, which holds it to its share; None where none runs.
    """

    id: str
    deployment: str
    generation: int
    version: str | None
    number: int
    artifact: Artifact
    directory: Path
    shared: Path
    log_file: Path
    env: Mapping[str, str]
    cpus: float
    memory: int | None
    gpus: tuple[str, ...] = ()
    gpu_shares: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    mps: Path | None = None

    @property
    def user_env(self) -> dict[str, str]:
        """``env`` without the variables that are not the user's to set."""
        return {k: v for k, v in self.env.items() if not k.startswith(RESERVED_PREFIXES)}


@dataclass(frozen=True)
class Instance:
    """One replica as the engine sees it, running (paused included) or dead.

    ``pid`` is its process id on the engine's host while it runs. ``started_at`` is Unix seconds. ``exit_code`` is
    None while it runs, and where nobody could see it end; a signal counts as 128 + its number. ``oom``: the kernel
    killed it, or a child of its, for want of memory; ``limit``: the bytes that it is held to, None for none.
    """

    id: str
    deployment: str
    generation: int
    version: str | None
    number: int
    running: bool
    pid: int | None
    gpus: tuple[str, ...]
    started_at: float
    exit_code: int | None
    oom: bool = False
    limit: int | None = None

    def ended(self, at: float) -> Exited:
        """Return a dead one's end, as the engine would have told it."""
        return Exited(self.id, self.deployment, self.exit_code, self.oom, at, self.limit)


@dataclass(frozen=True)
class Exited:
    """A replica's process has ended, by itself or by ``Engine.stop``. ``at`` is in Unix seconds."""

    id: str
    deployment: str
    exit_code: int | None
    oom: bool
    at: float
    limit: int | None = None


@dataclass(frozen=True)
class EngineInfo:
    """What answers: ``detail`` is one line for people; ``memory`` the bytes that its host has for replicas."""

    name: str
    version: str
    detail: str
    memory: int | None = None

    def __str__(self) -> str:
        return self.detail


#: Named, because within a class that has a method ``list`` the builtin is out of sight for type checkers.
Instances = list[Instance]


class Engine(Protocol):
    """Runs the replicas of one installation, and sees no other's.

    Calls about one replica come one after the other; calls about several may overlap. Every method may raise
    ``EngineUnavailable``.
    """

    name: str

    async def check(self) -> EngineInfo:
        """Say what answers.

        Raises:
            EngineUnavailable: with a hint on how to get one.
        """
        ...

    async def start(self, spec: ReplicaSpec) -> Instance:
        """Start a replica, or return the one with this id as it is. A dead one is returned, never revived.

        Raises:
            StartFailed: with the reason; nothing is left behind.
        """
        ...

    async def stop(self, id: str, timeout_s: float) -> None:
        """End a replica (SIGTERM, after ``timeout_s`` seconds SIGKILL) and forget it. Unknown ids are fine."""
        ...

    async def list(self) -> Instances:
        """Return this installation's replicas, running and dead, until each is stopped or removed by hand."""
        ...

    def events(self) -> AsyncIterator[Exited | None]:
        """Yield each replica that ends, and None at every (re)subscription: then ``list`` again.

        Never ends by itself: while the engine is away it tries again, with a growing delay.
        """
        ...

    def logs(self, id: str, *, tail: int | None, since: float | None, follow: bool) -> AsyncIterator[bytes]:
        """Yield stdout and stderr in chunks of any size; an unknown replica has none.

        Args:
            id: the replica.
            tail: only that many last lines; None for all.
            since: only what was written after this Unix time in seconds; engines without times leave out a log
                that was not written to since.
            follow: go on until the replica ends.
        """
        ...

    async def pause(self, id: str) -> None:
        """Freeze a replica; a frozen one stays frozen.

        Raises:
            ReplicaNotRunning: there is none, or it is dead.
        """
        ...

    async def unpause(self, id: str) -> None:
        """Let a frozen replica go on; one that runs is left alone.

        Raises:
            ReplicaNotRunning: there is none, or it is dead.
        """
        ...

    async def has(self, artifact: Artifact) -> bool:
        """Tell whether a replica could be started from this artifact."""
        ...

    async def discard(self, image: str) -> bool:
        """Remove an image, unless a replica of any installation has it; tell whether it is gone.

        Engines without images have none to remove.
        """
        ...

    async def cleanup(self) -> None:
        """Remove what the engine made for the installation besides replicas, where nothing uses it any more."""
        ...

    async def close(self) -> None:
        """Let go of the engine; replicas live on."""
        ...
