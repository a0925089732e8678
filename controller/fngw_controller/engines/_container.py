"""What one replica looks like as a Docker container: pure functions from a spec to the engine's JSON and back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

from fngw import protocol
from fngw_controller.engines import _mps
from fngw_controller.engines.base import Instance, ReplicaSpec

LABEL_INSTALLATION = "org.fngw.installation"
LABEL_REPLICA = "org.fngw.replica"
LABEL_DEPLOYMENT = "org.fngw.deployment"
LABEL_GENERATION = "org.fngw.generation"
LABEL_VERSION = "org.fngw.version"
LABEL_NUMBER = "org.fngw.number"
LABEL_GPUS = "org.fngw.gpus"

#: What gives containers their GPUs: NVIDIA's hook; or, where an engine has none, the devices that files in
#: /etc/cdi or /var/run/cdi describe (https://github.com/cncf-tags/container-device-interface).
NVIDIA, CDI = "nvidia", "cdi"
GPU_DRIVERS = (NVIDIA, CDI)

#: The user in containers when the controller is root: `nonroot` of the distroless images, of no meaning elsewhere.
NONROOT = 65532

#: /tmp and /dev/shm live in memory and count towards the container's limit (measured), so a cap of their own
#: only stops one replica without a limit from filling the host.
TMP_SIZE = "1g"
SHM_BYTES = 1 << 30
PIDS_LIMIT = 4096
#: The engine refuses shares outside of these.
CPU_SHARES_MIN, CPU_SHARES_MAX = 2, 262144


@dataclass(frozen=True)
class Host:
    """What of the engine and the controller's place decides how containers are made.

    Args:
        installation: namespaces containers and the network.
        user: ``uid:gid`` that replicas run as.
        userns_host: leave the engine's user namespace, in which ``user`` would be another one on the host.
        paths: directories as the controller sees them → as the engine's host does.
    """

    installation: str
    user: str
    userns_host: bool = False
    paths: Mapping[Path, Path] = field(default_factory=dict)

    @property
    def network(self) -> str:
        return f"fngw-{self.installation}"


def choose_user(uid: int, gid: int, security_options: Sequence[str]) -> str:
    """Return the ``uid:gid`` of replicas: this user's own, so that it can connect to their sockets.

    In a rootless engine 0 *is* the user who runs it; any other id would be one of its subordinate ones, which
    may not write to the replica's directory.
    """
    if any("name=rootless" in option for option in security_options):
        return "0:0"
    return f"{NONROOT}:{NONROOT}" if uid == 0 else f"{uid}:{gid}"


def container_name(spec: ReplicaSpec) -> str:
    return f"fngw-{spec.deployment}-{spec.id}"


def translate(path: Path, paths: Mapping[Path, Path]) -> Path:
    """Return ``path`` as the engine's host sees it; the longest prefix in ``paths`` decides."""
    for inside in sorted(paths, key=lambda p: len(p.parts), reverse=True):
        if path.is_relative_to(inside):
            return paths[inside] / path.relative_to(inside)
    return path


def labels(spec: ReplicaSpec, installation: str) -> dict[str, str]:
    found = {
        LABEL_INSTALLATION: installation,
        LABEL_REPLICA: spec.id,
        LABEL_DEPLOYMENT: spec.deployment,
        LABEL_GENERATION: str(spec.generation),
        LABEL_NUMBER: str(spec.number),
        LABEL_GPUS: ",".join(spec.gpus),
    }
    return found if spec.version is None else {**found, LABEL_VERSION: spec.version}


def environment(spec: ReplicaSpec) -> list[str]:
    """Return the container's variables. The user's own PYTHONPATH comes before the runtime's folder."""
    env = {"HOME": "/tmp", **spec.user_env}
    if "PYTHONPATH" in env:
        env["PYTHONPATH"] += ":" + protocol.CONTAINER_RUNTIME_DIR
    env[protocol.REPLICA_DIR_VARIABLE] = protocol.CONTAINER_REPLICA_DIR
    if not spec.gpus:
        env["NVIDIA_VISIBLE_DEVICES"] = "void"  # images may say `all`, and a runtime that is the default obeys
    env |= _mps.variables(spec)
    return [f"{k}={v}" for k, v in env.items()]


def create_body(spec: ReplicaSpec, host: Host, gpu_driver: str = NVIDIA) -> dict[str, Any]:
    """Return the body of ``POST /containers/create``.

    Args:
        spec: the replica.
        host: where it is to run.
        gpu_driver: what gives it its GPUs: one of ``GPU_DRIVERS``.
    """
    return {
        "Image": spec.artifact.image,
        "User": host.user,
        "Env": environment(spec),
        "Labels": labels(spec, host.installation),
        "HostConfig": {
            **_resources(spec, gpu_driver),
            **_confinement(host),
            **_mps_access(spec),
            "Mounts": _mounts(spec, host),
            # Others than `no` would start containers again behind the controller's back.
            "RestartPolicy": {"Name": "no"},
            # A PID 1 that passes SIGTERM on and reaps.
            "Init": True,
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}},
        },
    }


def _resources(spec: ReplicaSpec, gpu_driver: str) -> dict[str, Any]:
    shares = min(CPU_SHARES_MAX, max(CPU_SHARES_MIN, round(1024 * spec.cpus)))
    found: dict[str, Any] = {"CpuShares": shares, "PidsLimit": PIDS_LIMIT, "ShmSize": SHM_BYTES}
    if spec.memory is not None:
        found |= {"Memory": spec.memory, "MemorySwap": spec.memory}
    if spec.gpus:
        found["DeviceRequests"] = [_device_request(spec.gpus, gpu_driver)]
    return found


def _device_request(gpus: Sequence[str], driver: str) -> dict[str, Any]:
    """By UUID: a count of 1 always gives device 0. The engine keeps no account, so that several may share one."""
    if driver == CDI:
        return {"Driver": CDI, "DeviceIDs": [f"nvidia.com/gpu={uuid}" for uuid in gpus]}
    return {"Driver": NVIDIA, "DeviceIDs": list(gpus), "Capabilities": [["gpu", "compute", "utility"]]}


def _confinement(host: Host) -> dict[str, Any]:
    found: dict[str, Any] = {
        "NetworkMode": host.network,
        "ReadonlyRootfs": True,
        # exec: compilers of kernels (Triton, numba, torch) write shared objects there and load them.
        "Tmpfs": {"/tmp": f"rw,exec,nosuid,nodev,size={TMP_SIZE},mode=1777"},
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
    }
    return {**found, "UsernsMode": "host"} if host.userns_host else found


def _mps_access(spec: ReplicaSpec) -> dict[str, Any]:
    """MPS clients share memory with the daemon: the one case in which a replica sees the host's."""
    return {"IpcMode": "host"} if _mps.variables(spec) else {}


def _mounts(spec: ReplicaSpec, host: Host) -> list[dict[str, Any]]:
    mounts = [
        _bind(translate(spec.directory, host.paths), protocol.CONTAINER_REPLICA_DIR),
        _bind(translate(spec.shared, host.paths), protocol.CONTAINER_SHARED_DIR, read_only=True),
    ]
    if _mps.variables(spec):
        mounts.append(_bind(translate(Path(str(spec.mps)), host.paths), str(spec.mps)))
    return mounts


def _bind(source: Path, target: str, *, read_only: bool = False) -> dict[str, Any]:
    # A mount, not `Binds`: those make an absent source, as a folder that belongs to root.
    return {"Type": "bind", "Source": str(source), "Target": str(PurePosixPath(target)), "ReadOnly": read_only}


def network_body(host: Host) -> dict[str, Any]:
    """Return the body of ``POST /networks/create``: replicas reach the world outside, but not each other."""
    return {
        "Name": host.network,
        "Driver": "bridge",
        "CheckDuplicate": True,  # older engines make a second one of the same name
        "Labels": {LABEL_INSTALLATION: host.installation},
        "Options": {"com.docker.network.bridge.enable_icc": "false"},
    }


def instance(inspected: Mapping[str, Any]) -> Instance:
    """Return the replica that an inspected container is."""
    found, state = inspected["Config"]["Labels"], inspected["State"]
    running, created = bool(state["Running"]), state["Status"] == "created"
    return Instance(
        id=found[LABEL_REPLICA],
        deployment=found[LABEL_DEPLOYMENT],
        generation=int(found[LABEL_GENERATION]),
        version=found.get(LABEL_VERSION),
        number=int(found[LABEL_NUMBER]),
        running=running,
        pid=state["Pid"] or None,
        gpus=tuple(gpu for gpu in found.get(LABEL_GPUS, "").split(",") if gpu),
        started_at=timestamp(inspected["Created"] if created else state["StartedAt"]),
        exit_code=None if running or created else int(state["ExitCode"]),
        # Not told by the exit status: it is 0 where a child was killed and the main process then left in peace.
        oom=bool(state.get("OOMKilled")) and not running,
        limit=inspected["HostConfig"].get("Memory") or None,
    )


def timestamp(text: str) -> float:
    """Return the engine's ``2024-01-01T00:00:00.123456789Z`` in Unix seconds."""
    return datetime.fromisoformat(text).timestamp()


def whole_seconds(seconds: float) -> int:
    """Return ``seconds`` as the engine wants them: whole, and never less than asked for."""
    return max(0, math.ceil(seconds))
