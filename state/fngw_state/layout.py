"""Where things lie on disk. One data directory survives restarts; one run directory holds sockets.

::

    <data>/blobs/sha256/ab/abcd…     bundles and constructor arguments, by content
    <data>/logs/<part>.log           the parts of `fngw up`
    <data>/logs/replicas/<deployment>/<replica>.log
    <data>/code/<digest>/            unpacked bundles, for local processes
    <data>/envs/<key>/               what they depend on, likewise
    <data>/locks/                    what dependencies were solved to, by content
    <data>/cache/                    downloaded packages; may be emptied at any time
    <data>/payloads/                 bodies of queued calls and their results, by content
    <data>/redis/                    the embedded Redis' append-only file
    <run>/shared/                    gateway.sock, redis.sock: mounted into every replica, read-only
    <run>/r/<replica>/               replica.json, init.pkl, http.sock: mounted into that replica
    <run>/metrics/                   counts of the gateway processes
    <run>/controller.sock            the controller's log endpoint

The run directory is short, because a Unix socket's path may have 107 bytes (``sun_path``, unix(7)).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from fngw import protocol


@dataclass(frozen=True)
class Layout:
    """Paths below one data directory and its run directory."""

    data: Path
    run: Path

    @property
    def blobs(self) -> Path:
        return self.data / "blobs"

    def blob(self, digest: str) -> Path:
        """The file of a blob named ``"sha256:<64 hex digits>"``."""
        text = hex_of(digest)
        return self.blobs / "sha256" / text[:2] / text

    @property
    def logs(self) -> Path:
        return self.data / "logs"

    def replica_logs(self, deployment: str) -> Path:
        return self.logs / "replicas" / deployment

    def replica_log(self, deployment: str, replica_id: str) -> Path:
        return self.replica_logs(deployment) / f"{replica_id}.log"

    @property
    def code(self) -> Path:
        return self.data / "code"

    @property
    def envs(self) -> Path:
        return self.data / "envs"

    @property
    def locks(self) -> Path:
        return self.data / "locks"

    def lock(self, digest: str) -> Path:
        """The file of a lock named ``"sha256:<64 hex digits>"``."""
        return self.locks / f"{hex_of(digest)}.json"

    @property
    def cache(self) -> Path:
        return self.data / "cache"

    @property
    def payloads(self) -> Path:
        return self.data / "payloads"

    @property
    def redis(self) -> Path:
        return self.data / "redis"

    @property
    def shared(self) -> Path:
        return self.run / "shared"

    @property
    def gateway_socket(self) -> Path:
        return self.shared / protocol.GATEWAY_SOCKET_FILE

    @property
    def redis_socket(self) -> Path:
        return self.shared / protocol.REDIS_SOCKET_FILE

    @property
    def controller_socket(self) -> Path:
        return self.run / "controller.sock"

    @property
    def metrics(self) -> Path:
        return self.run / "metrics"

    @property
    def replicas(self) -> Path:
        return self.run / "r"

    def replica_dir(self, replica_id: str) -> Path:
        return self.replicas / replica_id

    def replica_socket(self, replica_id: str) -> Path:
        return self.replica_dir(replica_id) / protocol.SOCKET_FILE

    def create(self) -> None:
        """Make the directories. The run directory is passable, not readable, for replicas of another user."""
        for path in (self.data, self.blobs, self.logs, self.code):
            path.mkdir(parents=True, exist_ok=True)
        for path in (self.run, self.shared, self.replicas):
            path.mkdir(parents=True, exist_ok=True)
            path.chmod(0o711)

    def remove_run(self) -> None:
        """Remove what is ours of the run directory, and the directory if it is empty then.

        Replicas that are still there keep theirs.
        """
        sockets = (self.gateway_socket, self.redis_socket, self.controller_socket)
        for path in (*sockets, *self.metrics.glob("*")):
            path.unlink(missing_ok=True)
        for folder, _, _ in os.walk(self.run, topdown=False):
            with contextlib.suppress(OSError):  # not empty
                Path(folder).rmdir()


def hex_of(digest: str) -> str:
    """Return the hex digits of ``"sha256:<64 hex digits>"``.

    Raises:
        ValueError: it is no such thing.
    """
    algorithm, _, text = digest.partition(":")
    if algorithm != "sha256" or len(text) != 64 or set(text) - set("0123456789abcdef"):
        raise ValueError(f"{digest!r} is not a digest such as 'sha256:<64 hex digits>'")
    return text


def default_run_dir(data_dir: Path) -> Path:
    """Return a short run directory that belongs to ``data_dir``: the same one each time."""
    base = Path("/run") if os.access("/run", os.W_OK) else Path(os.environ.get("XDG_RUNTIME_DIR") or "/tmp")
    name = hashlib.sha256(str(data_dir.resolve()).encode()).hexdigest()[:10]
    return base / f"fngw-{os.getuid()}" / name
