"""Replicas as local processes: no isolation, but nothing to install.

Each replica has a state file that names its process, so that a controller that comes back adopts what still runs;
each process has a session of its own, so that a Ctrl-C in the controller's terminal does not reach it.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

from fngw_controller.engines import _local, _log_file
from fngw_controller.engines._local_env import environment, link_runtime
from fngw_controller.engines._local_oom import OomKills
from fngw_controller.engines.base import (
    EngineError,
    EngineInfo,
    EngineUnavailable,
    Exited,
    Instance,
    Instances,
    ReplicaNotRunning,
    ReplicaSpec,
    StartFailed,
)
from fngw_controller.inventory.host import memory
from fngw_state.records import Artifact, Record

log = logging.getLogger(__name__)

#: Seconds from SIGKILL until a process that is still there counts as stuck in the kernel.
KILL_S = 10.0
#: The exit code of a process that SIGKILL ended.
KILLED = 128 + signal.SIGKILL


@dataclass(frozen=True)
class Entry(Record):
    """A replica's state file. ``ended_at`` is None until its end was seen; ``exit_code`` may stay unknown."""

    id: str
    deployment: str
    generation: int
    version: str | None
    number: int
    gpus: tuple[str, ...]
    process: _local.Identity
    log_file: str
    started_at: float
    exit_code: int | None = None
    ended_at: float | None = None
    oom: bool = False

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        identity = _local.Identity(**data["process"])
        return super().from_dict({**data, "process": identity, "gpus": tuple(data["gpus"])})

    @property
    def running(self) -> bool:
        return self.ended_at is None and _local.alive(self.process)

    def instance(self) -> Instance:
        running = self.running
        return Instance(
            id=self.id,
            deployment=self.deployment,
            generation=self.generation,
            version=self.version,
            number=self.number,
            running=running,
            pid=self.process.pid if running else None,
            gpus=self.gpus,
            started_at=self.started_at,
            exit_code=self.exit_code,
            oom=self.oom,
        )


class ProcessEngine:
    """Runs replicas as processes of this user, on Linux.

    Args:
        installation: a short id of the data dir; processes of other installations are never touched.
        directory: where the state files go; one that a reboot empties will do.
        reason: why it is not Docker, for people.
    """

    name = "process"

    def __init__(self, installation: str, directory: Path, *, reason: str = "") -> None:
        self._directory = directory / installation
        self._runtime = self._directory / "runtime"
        self._reason = reason
        self._oom_kills = OomKills()
        self._stopping: set[str] = set()
        self._watchers: dict[str, asyncio.Task[None]] = {}
        self._listeners: set[asyncio.Queue[Exited]] = set()

    async def check(self) -> EngineInfo:
        if sys.platform != "linux":
            raise EngineUnavailable("replicas as local processes need Linux", hint="run with --engine docker")
        detail = "local processes, without isolation: they share this user's files, network and memory"
        detail += f" ({self._reason})" if self._reason else ""
        return EngineInfo(self.name, platform.release(), detail, memory=memory())

    async def close(self) -> None:
        watchers = list(self._watchers.values())
        self._watchers.clear()
        for task in watchers:
            task.cancel()
        await asyncio.gather(*watchers, return_exceptions=True)

    async def cleanup(self) -> None:
        if not any(self._entries()):
            await asyncio.to_thread(shutil.rmtree, self._directory, ignore_errors=True)

    # -- replicas ---------------------------------------------------------------------------------------------

    async def start(self, spec: ReplicaSpec) -> Instance:
        # Not in a thread: a cancelled start would leave a process that no state file names. It takes 2 ms.
        entry = self._read(spec.id) or self._spawn(spec)
        self._watch(entry)
        return entry.instance()

    def _spawn(self, spec: ReplicaSpec) -> Entry:
        _check_artifact(spec)
        try:
            link_runtime(self._runtime)
            spec.log_file.parent.mkdir(parents=True, exist_ok=True)
            spec.directory.chmod(0o700)
            with spec.log_file.open("ab") as output:
                pid = _popen(spec, environment(spec, os.environ, self._runtime), output)
        except OSError as error:
            raise StartFailed(f"replica {spec.id} of {spec.deployment} could not be started: {error}") from error
        return self._record(spec, pid)

    def _record(self, spec: ReplicaSpec, pid: int) -> Entry:
        process = _local.identify(pid)
        assert process is not None  # an unreaped child keeps its entry in the process table
        entry = Entry(
            id=spec.id,
            deployment=spec.deployment,
            generation=spec.generation,
            version=spec.version,
            number=spec.number,
            gpus=spec.gpus,
            process=process,
            log_file=str(spec.log_file),
            started_at=_local.now(),
        )
        try:
            self._write(entry)
        except OSError as error:
            _local.signal_group(process, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise StartFailed(f"replica {spec.id} was stopped, as it could not be recorded: {error}") from error
        return entry

    async def stop(self, id: str, timeout_s: float) -> None:
        entry = self._read(id)
        if entry is None:
            return
        watcher = self._watch(entry)
        if watcher is not None:
            self._stopping.add(id)
            try:
                await self._end(entry, watcher, timeout_s)
            finally:
                self._stopping.discard(id)
        self._path(id).unlink(missing_ok=True)
        self._watchers.pop(id, None)

    async def _end(self, entry: Entry, watcher: asyncio.Task[None], timeout_s: float) -> None:
        _local.signal_process(entry.process, signal.SIGTERM)
        _local.signal_group(entry.process, signal.SIGCONT)  # a frozen one would not see it
        done, _ = await asyncio.wait({watcher}, timeout=timeout_s)
        if not done:
            _local.signal_group(entry.process, signal.SIGKILL)
            done, _ = await asyncio.wait({watcher}, timeout=KILL_S)
        if not done:
            raise EngineError(
                f"replica {entry.id} (process {entry.process.pid}) does not die of SIGKILL",
                code="replica_stuck",
                hint="it hangs in the kernel, often in a driver or a network file system: see dmesg",
            )

    async def list(self) -> Instances:
        self._oom_kills.look()
        entries = list(self._entries())
        for entry in entries:
            self._watch(entry)
        return [entry.instance() for entry in entries]

    async def has(self, artifact: Artifact) -> bool:
        return _missing(artifact) is None

    async def discard(self, image: str) -> bool:
        return True

    async def pause(self, id: str) -> None:
        _local.signal_group(self._living(id).process, signal.SIGSTOP)

    async def unpause(self, id: str) -> None:
        _local.signal_group(self._living(id).process, signal.SIGCONT)

    def _living(self, id: str) -> Entry:
        entry = self._read(id)
        if entry is None or not entry.running:
            raise ReplicaNotRunning(f"replica {id} does not run")
        return entry

    # -- what replicas say and do -----------------------------------------------------------------------------

    async def events(self) -> AsyncIterator[Exited | None]:
        queue: asyncio.Queue[Exited] = asyncio.Queue()
        self._listeners.add(queue)
        try:
            for entry in self._entries():
                self._watch(entry)
            yield None
            while True:
                yield await queue.get()
        finally:
            self._listeners.discard(queue)

    def _watch(self, entry: Entry) -> asyncio.Task[None] | None:
        """Return the task that waits for the replica's end, started when there is none; None for a dead one."""
        if entry.ended_at is not None:
            return None
        if entry.id not in self._watchers:
            self._watchers[entry.id] = asyncio.create_task(self._see_end(entry), name=f"watch {entry.id}")
        return self._watchers[entry.id]

    async def _see_end(self, entry: Entry) -> None:
        await _local.ended(entry.process)
        _local.signal_group(entry.process, signal.SIGKILL)  # children do not outlive it, as in a container
        code = _local.reap(entry.process.pid)
        oom = code in (None, KILLED) and entry.id not in self._stopping and self._oom_kills.just_now()
        code = self._record_end(entry, code, oom)
        exited = Exited(entry.id, entry.deployment, code, oom, at=_local.now())
        for queue in self._listeners:
            queue.put_nowait(exited)

    def _record_end(self, entry: Entry, code: int | None, oom: bool) -> int | None:
        """Write the end into the state file, where there still is one; return the exit code where it is known."""
        current = self._read(entry.id)
        if current is None:
            return code
        if code is None and current.ended_at is not None:
            return current.exit_code  # recorded by another engine object, whose child it was
        try:
            self._write(dataclasses.replace(entry, exit_code=code, ended_at=_local.now(), oom=oom))
        except OSError as error:
            log.warning("the end of replica %s could not be recorded: %s", entry.id, error)
        return code

    async def logs(self, id: str, *, tail: int | None, since: float | None, follow: bool) -> AsyncIterator[bytes]:
        entry = self._read(id)
        if entry is None:
            return
        watcher = self._watch(entry) if follow else None
        with contextlib.closing(_log_file.open_at(Path(entry.log_file), tail, since)) as file:
            async for chunk in _log_file.chunks(file, until=watcher):
                yield chunk

    # -- state files ------------------------------------------------------------------------------------------

    def _path(self, id: str) -> Path:
        return self._directory / f"{id}.json"

    def _entries(self) -> Iterator[Entry]:
        for path in sorted(self._directory.glob("*.json")):
            entry = self._read(path.stem)
            if entry is not None:
                yield entry

    def _read(self, id: str) -> Entry | None:
        try:
            return Entry.from_json(self._path(id).read_bytes())
        except FileNotFoundError:
            return None
        except ValueError:  # cut short by a power failure, which the replica did not survive either
            log.warning("the state file of replica %s is unreadable; it counts as gone", id)
            return None

    def _write(self, entry: Entry) -> None:
        part = self._path(entry.id).with_suffix(".part")
        part.write_text(entry.to_json())
        part.replace(self._path(entry.id))


def _popen(spec: ReplicaSpec, env: Mapping[str, str], output: BinaryIO) -> int:
    """Start the runtime and return its process id."""
    process = subprocess.Popen(
        [spec.artifact.python, "-m", "fngw_runtime"],
        cwd=spec.artifact.app_dir,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    # Disowned: it may outlive this process, which Popen would warn of, and `_see_end` reaps it.
    process.returncode = 0
    return process.pid


def _missing(artifact: Artifact) -> tuple[str, str] | None:
    """Return the code and the path of what is gone from an artifact."""
    if not (artifact.python and os.access(artifact.python, os.X_OK)):
        return "interpreter_missing", artifact.python
    if not (artifact.app_dir and Path(artifact.app_dir).is_dir()):
        return "code_missing", artifact.app_dir
    return None


def _check_artifact(spec: ReplicaSpec) -> None:
    missing = _missing(spec.artifact)
    if missing is not None:
        code, path = missing
        what = "interpreter" if code == "interpreter_missing" else "code"
        raise StartFailed(
            f"replica {spec.id} of {spec.deployment} could not be started: its {what} {path!r} is gone",
            code=code,
            hint="deploy again: the environment is built anew",
        )
