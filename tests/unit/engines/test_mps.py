"""What a replica is told of NVIDIA's MPS, on both engines."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from fngw_controller.engines import find_pipes
from fngw_controller.engines._container import Host, create_body
from fngw_controller.engines._local_env import environment
from fngw_controller.engines.base import ReplicaSpec
from fngw_state.records import Artifact

PIPES = Path("/tmp/nvidia-mps")
SPEC = ReplicaSpec(
    id="r1",
    deployment="Model",
    generation=3,
    version=None,
    number=5,
    artifact=Artifact(image="sha256:1234", python="/usr/bin/python3"),
    directory=Path("/run/f/r/r1"),
    shared=Path("/run/f/shared"),
    log_file=Path("/data/logs/r1.log"),
    env={},
    cpus=1,
    memory=None,
    gpus=("GPU-1",),
    gpu_shares={"GPU-1": (255, 20480)},
    mps=PIPES,
)
LIMITS = {
    "CUDA_MPS_PIPE_DIRECTORY": "/tmp/nvidia-mps",
    "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": "25",
    "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT": "GPU-1=20480M",
}


def local(spec: ReplicaSpec) -> dict[str, str]:
    return {k: v for k, v in environment(spec, {}, Path("/runtime")).items() if k.startswith("CUDA")}


def container(spec: ReplicaSpec) -> tuple[dict[str, str], dict[str, Any]]:
    body = create_body(spec, Host("ab12", "1000:1000"))
    env = dict(entry.split("=", 1) for entry in body["Env"])
    return {k: v for k, v in env.items() if k.startswith("CUDA")}, body["HostConfig"]


def test_a_share_is_told_of_the_daemon_and_its_limits() -> None:
    assert local(SPEC) == {"CUDA_VISIBLE_DEVICES": "GPU-1", **LIMITS}
    env, host = container(SPEC)
    assert env == LIMITS
    assert host["IpcMode"] == "host"
    assert {"Type": "bind", "Source": str(PIPES), "Target": str(PIPES), "ReadOnly": False} in host["Mounts"]


def test_the_smallest_share_has_one_percent() -> None:
    spec = dataclasses.replace(SPEC, gpu_shares={"GPU-1": (1, 80)})
    assert local(spec)["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"] == "1"


def test_without_a_daemon_or_with_whole_devices_nothing_is_told() -> None:
    whole = dataclasses.replace(SPEC, gpus=("GPU-1", "GPU-2"), gpu_shares={"GPU-1": (1000, 8), "GPU-2": (1000, 8)})
    assert local(whole) == {"CUDA_VISIBLE_DEVICES": "GPU-1,GPU-2"}
    for spec in (whole, dataclasses.replace(SPEC, mps=None)):
        env, host = container(spec)
        assert env == {} and "IpcMode" not in host and len(host["Mounts"]) == 2


def test_a_daemon_is_there_while_its_control_pipe_is(tmp_path: Path) -> None:
    environ = {"CUDA_MPS_PIPE_DIRECTORY": str(tmp_path)}
    assert find_pipes(environ) is None
    (tmp_path / "control").touch()
    assert find_pipes(environ) == tmp_path
