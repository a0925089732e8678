"""One replica: prepare its directory, start it, save its last words, stop it, clean up.

Knows engines and files, but nothing of plans or Redis.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from fngw import protocol
from fngw.protocol import ReplicaConfig
from fngw_controller.engines import find_pipes
from fngw_controller.engines.base import Engine, Exited, Instance, ReplicaSpec, StartFailed
from fngw_state import keys
from fngw_state.configs import user_of
from fngw_state.layout import Layout
from fngw_state.records import Artifact, Failure, Revision
from fngw_state.resources import MIB, Lease, show_mib

log = logging.getLogger(__name__)

LOG_TAIL_LINES = 60
#: Logs of replicas that are gone, kept per deployment.
LOGS_KEPT = 5
#: For the rest of a log to arrive after its replica has ended.
LAST_WORDS_S = 1.0
#: On top of the user's own limits, for the runtime to notice and leave by itself.
STOP_MARGIN_S = 3.0


@dataclass(frozen=True)
class Lifecycle:
    """Starts and stops the replicas of one installation.

    Args:
        engine: what runs them.
        layout: where their directories are.
        debug: whether tracebacks go into HTTP answers.
    """

    engine: Engine
    layout: Layout
    redis_url: str = ""
    debug: bool = False

    async def start(
        self, replica_id: str, revision: Revision, artifact: Artifact, secret: str, lease: Lease
    ) -> Instance:
        """Start one replica; it is running, but perhaps not ready, on return.

        Args:
            replica_id: a new one.
            revision: what it is to run.
            artifact: what it runs from.
            secret: its password for Redis.
            lease: what it holds of the machine.

        Raises:
            StartFailed: the engine refused; nothing is left behind.
        """
        try:
            await asyncio.to_thread(self._prepared, replica_id, revision, artifact, secret)
            return await self.engine.start(self._spec(replica_id, revision, artifact, lease))
        except BaseException:
            await asyncio.to_thread(self._remove_dir, replica_id)
            raise

    async def retire(self, replica_id: str, deployment: str, grace_s: float) -> None:
        """Stop one replica and remove what it leaves, but for the end of its log, its last words included."""
        words = asyncio.create_task(self._read_log(replica_id, follow=True))
        try:
            await self.engine.stop(replica_id, grace_s)
            await asyncio.wait((words,), timeout=LAST_WORDS_S)
        finally:
            words.cancel()
        text = words.result() if words.done() and not words.cancelled() else b""
        await asyncio.to_thread(self._clear, replica_id, deployment, text)

    async def died(self, replica_id: str, deployment: str, number: int, exited: Exited | None) -> Failure:
        """Describe why a replica that was not told to stop is gone, with the end of its log; then clean up."""
        failure = cause(replica_id, number, exited)
        text = await self._read_log(replica_id, follow=False)
        await self.engine.stop(replica_id, 0)
        await asyncio.to_thread(self._clear, replica_id, deployment, text, f"fngw: {failure.message}\n".encode())
        return dataclasses.replace(failure, detail=text.decode(errors="replace"))

    async def _read_log(self, replica_id: str, *, follow: bool) -> bytes:
        chunks = self.engine.logs(replica_id, tail=LOG_TAIL_LINES, since=None, follow=follow)
        return b"".join([chunk async for chunk in chunks])

    def _clear(self, replica_id: str, deployment: str, text: bytes, note: bytes = b"") -> None:
        self._keep_log(self.layout.replica_log(deployment, replica_id), text, note)
        self._remove_dir(replica_id)

    def secret(self, replica_id: str) -> str:
        """Return the password that a running replica was started with; empty when it has none."""
        path = self.layout.replica_dir(replica_id) / protocol.CONFIG_FILE
        try:
            config = ReplicaConfig.from_dict(json.loads(path.read_text()))
        except (OSError, ValueError):
            return ""
        return config.redis["password"] if config.redis else ""

    def _prepared(self, replica_id: str, revision: Revision, artifact: Artifact, secret: str) -> None:
        try:
            self._prepare(replica_id, revision, artifact, secret)
        except OSError as error:
            what = f"replica {replica_id} of {revision.spec.name} could not be started"
            raise StartFailed(f"{what}: {error}", hint="is the disk full? are all blobs there?") from error

    def _prepare(self, replica_id: str, revision: Revision, artifact: Artifact, secret: str) -> None:
        directory = self.layout.replica_dir(replica_id)
        directory.mkdir(parents=True, exist_ok=True)
        if revision.spec.init:
            shutil.copyfile(self.layout.blob(revision.spec.init), directory / protocol.INIT_FILE)
        text = json.dumps(self._config(replica_id, revision, artifact, secret).to_dict())
        (directory / protocol.CONFIG_FILE).write_text(text)

    def _config(self, replica_id: str, revision: Revision, artifact: Artifact, secret: str) -> ReplicaConfig:
        spec, local = revision.spec, bool(artifact.app_dir)
        shared_dir = str(self.layout.shared) if local else protocol.CONTAINER_SHARED_DIR
        return ReplicaConfig(
            replica_id=replica_id,
            deployment=spec.name,
            version=spec.version,
            generation=revision.generation,
            app_dir=artifact.app_dir if local else protocol.CONTAINER_APP_DIR,
            shared_dir=shared_dir,
            target=spec.code.target,
            pickle=spec.code.pickle,
            is_class=spec.code.is_class,
            python=spec.python,
            init=spec.init is not None,
            route_prefix=spec.route_prefix,
            user_config=spec.user_config,
            config_revision=revision.config_number,
            max_concurrent_queries=spec.max_concurrent_queries,
            graceful_shutdown_wait_loop_s=spec.graceful_shutdown_wait_loop_s,
            graceful_shutdown_timeout_s=spec.graceful_shutdown_timeout_s,
            debug=self.debug,
            redis=self._redis(replica_id, shared_dir, secret),
        )

    def _redis(self, replica_id: str, shared_dir: str, secret: str) -> dict[str, str]:
        """How a replica reaches Redis: by the shared Unix socket where there is one, else as the servers do."""
        if self.layout.redis_socket.exists():
            where = {"socket": f"{shared_dir}/{protocol.REDIS_SOCKET_FILE}"}
        else:
            url = urlsplit(self.redis_url)
            where = {"host": url.hostname or "127.0.0.1", "port": str(url.port or 6379)}
        names = {"config": keys.CONFIG + replica_id, "ack": keys.ACK + replica_id, "acked": keys.ACKED_CHANNEL}
        return {**where, **names, "username": user_of(replica_id), "password": secret}

    def _spec(self, replica_id: str, revision: Revision, artifact: Artifact, lease: Lease) -> ReplicaSpec:
        spec = revision.spec
        threads = str(max(1, int(spec.num_cpus)))
        return ReplicaSpec(
            id=replica_id,
            deployment=spec.name,
            generation=revision.generation,
            version=spec.version,
            number=revision.number,
            artifact=artifact,
            directory=self.layout.replica_dir(replica_id),
            shared=self.layout.shared,
            log_file=self.layout.replica_log(spec.name, replica_id),
            env={"OMP_NUM_THREADS": threads, **spec.env},
            cpus=spec.num_cpus,
            memory=spec.memory,
            gpus=lease.gpus,
            gpu_shares={uuid: lease.share(uuid) for uuid in lease.gpus},
            mps=find_pipes(os.environ) if lease.gpus else None,
        )

    def forget_logs(self, deployment: str) -> None:
        """Remove the logs of a deployment that is gone: the next one of its name begins with none."""
        shutil.rmtree(self.layout.replica_logs(deployment), ignore_errors=True)

    def _remove_dir(self, replica_id: str) -> None:
        shutil.rmtree(self.layout.replica_dir(replica_id), ignore_errors=True)

    def _keep_log(self, path: Path, text: bytes, note: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        own = path.exists()  # local processes write theirs themselves
        with path.open("ab") as file:
            file.write(note if own else text + note)
        logs = sorted(path.parent.glob("*.log"), key=lambda p: p.stat().st_mtime)
        for old in logs[:-LOGS_KEPT]:
            if not self.layout.replica_dir(old.stem).exists():
                old.unlink(missing_ok=True)


def stop_grace(revision: Revision) -> float:
    """Seconds that a replica of this revision may take to drain before it is killed."""
    spec = revision.spec
    return spec.graceful_shutdown_wait_loop_s + spec.graceful_shutdown_timeout_s + STOP_MARGIN_S


def cause(replica_id: str, number: int, exited: Exited | None) -> Failure:
    """Return why a replica that was not told to stop is gone, as far as its end tells.

    Args:
        replica_id: the replica.
        number: the revision that it was started for.
        exited: its end; None: the engine does not know it any more.
    """
    if exited is None:
        return Failure(number, "replica_gone", f"replica {replica_id} is gone: removed from outside")
    if exited.oom:
        held = f"it may have {show_mib(exited.limit // MIB)}" if exited.limit else "the host has no more"
        hint = "raise `memory`, or use less" if exited.limit else "reserve `memory`, so that fewer share the host's"
        message = f"replica {replica_id} was killed: out of memory ({held})"
        return Failure(number, "out_of_memory", message, hint=hint)
    status = "" if exited.exit_code is None else f" with status {exited.exit_code}"
    hint = "see the end of its log above"
    return Failure(number, "replica_died", f"replica {replica_id} died{status}", hint=hint)
