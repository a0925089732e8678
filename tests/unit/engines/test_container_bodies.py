"""What containers look like, as the JSON that the engine gets."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from fngw_controller.engines._container import (
    Host,
    choose_user,
    create_body,
    environment,
    instance,
    labels,
    network_body,
    timestamp,
    translate,
    whole_seconds,
)
from fngw_controller.engines.base import ReplicaSpec
from fngw_state.records import Artifact

HOST = Host("ab12", "65532:65532")
SPEC = ReplicaSpec(
    id="r1",
    deployment="Model",
    generation=3,
    version="v2",
    number=5,
    artifact=Artifact(image="sha256:1234", ref="fngw/model:5"),
    directory=Path("/run/f/r/r1"),
    shared=Path("/run/f/shared"),
    log_file=Path("/data/logs/r1.log"),
    env={"MODE": "fast"},
    cpus=2,
    memory=1 << 30,
    gpus=("GPU-1", "GPU-2"),
)


def test_the_whole_body() -> None:
    assert create_body(SPEC, HOST) == {
        "Image": "sha256:1234",
        "User": "65532:65532",
        "Env": ["HOME=/tmp", "MODE=fast", "FNGW_REPLICA_DIR=/run/fngw/replica"],
        "Labels": {
            "org.fngw.installation": "ab12",
            "org.fngw.replica": "r1",
            "org.fngw.deployment": "Model",
            "org.fngw.generation": "3",
            "org.fngw.version": "v2",
            "org.fngw.number": "5",
            "org.fngw.gpus": "GPU-1,GPU-2",
        },
        "HostConfig": {
            "CpuShares": 2048,
            "PidsLimit": 4096,
            "ShmSize": 1 << 30,
            "Memory": 1 << 30,
            "MemorySwap": 1 << 30,
            "DeviceRequests": [
                {
                    "Driver": "nvidia",
                    "DeviceIDs": ["GPU-1", "GPU-2"],
                    "Capabilities": [["gpu", "compute", "utility"]],
                }
            ],
            "NetworkMode": "fngw-ab12",
            "ReadonlyRootfs": True,
            "Tmpfs": {"/tmp": "rw,exec,nosuid,nodev,size=1g,mode=1777"},
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "Mounts": [
                {"Type": "bind", "Source": "/run/f/r/r1", "Target": "/run/fngw/replica", "ReadOnly": False},
                {"Type": "bind", "Source": "/run/f/shared", "Target": "/run/fngw/shared", "ReadOnly": True},
            ],
            "RestartPolicy": {"Name": "no"},
            "Init": True,
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}},
        },
    }


def test_the_network_lets_replicas_out_but_not_at_each_other() -> None:
    body = network_body(HOST)
    assert body["Name"] == "fngw-ab12"
    assert body["Options"] == {"com.docker.network.bridge.enable_icc": "false"}
    assert "Internal" not in body


def test_devices_by_their_cdi_names_where_the_engine_has_no_hook() -> None:
    config = create_body(SPEC, HOST, "cdi")["HostConfig"]
    assert config["DeviceRequests"] == [
        {"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=GPU-1", "nvidia.com/gpu=GPU-2"]}
    ]
    assert "DeviceRequests" not in create_body(dataclasses.replace(SPEC, gpus=()), HOST, "cdi")["HostConfig"]


def test_without_a_limit_no_memory_and_without_gpus_no_devices() -> None:
    spec = dataclasses.replace(SPEC, memory=None, gpus=())
    host = create_body(spec, HOST)["HostConfig"]
    assert not {"Memory", "MemorySwap", "DeviceRequests"} & host.keys()
    assert "NVIDIA_VISIBLE_DEVICES=void" in environment(spec)


@pytest.mark.parametrize(("cpus", "shares"), [(0, 2), (0.001, 2), (0.5, 512), (1, 1024), (10_000, 262144)])
def test_cpus_are_a_weight_within_what_the_engine_takes(cpus: float, shares: int) -> None:
    assert create_body(dataclasses.replace(SPEC, cpus=cpus), HOST)["HostConfig"]["CpuShares"] == shares


def test_users_cannot_show_themselves_gpus_nor_move_the_replica() -> None:
    env = {"NVIDIA_VISIBLE_DEVICES": "all", "CUDA_MPS_PIPE_DIRECTORY": "/x", "FNGW_REPLICA_DIR": "/y"}
    found = environment(dataclasses.replace(SPEC, env=env))
    assert found == ["HOME=/tmp", "FNGW_REPLICA_DIR=/run/fngw/replica"]


def test_a_users_own_pythonpath_does_not_hide_the_runtime() -> None:
    found = environment(dataclasses.replace(SPEC, env={"PYTHONPATH": "/srv/fngw/app/lib", "HOME": "/x"}))
    assert "PYTHONPATH=/srv/fngw/app/lib:/opt/fngw/runtime" in found
    assert "HOME=/x" in found


@pytest.mark.parametrize(
    ("uid", "security", "user"),
    [
        (0, [], "65532:65532"),
        (1000, ["name=seccomp,profile=default"], "1000:100"),
        (1000, ["name=seccomp,profile=default", "name=rootless"], "0:0"),
    ],
)
def test_replicas_run_as_who_may_write_to_their_directory(uid: int, security: list[str], user: str) -> None:
    assert choose_user(uid, 100, security) == user


def test_a_remapped_engine_is_asked_not_to() -> None:
    host = dataclasses.replace(HOST, userns_host=True)
    assert create_body(SPEC, host)["HostConfig"]["UsernsMode"] == "host"


def test_paths_are_translated_by_the_longest_prefix() -> None:
    paths = {Path("/data"): Path("/srv/fngw"), Path("/data/run"): Path("/run/fngw-host")}
    assert translate(Path("/data/run/r/1"), paths) == Path("/run/fngw-host/r/1")
    assert translate(Path("/data/logs"), paths) == Path("/srv/fngw/logs")
    assert translate(Path("/database"), paths) == Path("/database")
    mounts = create_body(SPEC, dataclasses.replace(HOST, paths={Path("/run/f"): Path("/h")}))["HostConfig"][
        "Mounts"
    ]
    assert [mount["Source"] for mount in mounts] == ["/h/r/r1", "/h/shared"]


def inspected(status: str, **state: object) -> dict[str, object]:
    started = "2024-05-01T10:00:00.123456789Z"
    return {
        "Created": "2024-05-01T09:59:59Z",
        "Config": {"Labels": labels(SPEC, "ab12")},
        "HostConfig": {"Memory": SPEC.memory},
        "State": {"Status": status, "Running": False, "Pid": 0, "ExitCode": 0, "StartedAt": started, **state},
    }


def test_a_container_is_read_back() -> None:
    found = instance(inspected("running", Running=True, Pid=42))
    assert (found.id, found.deployment, found.generation, found.number) == ("r1", "Model", 3, 5)
    assert (found.version, found.gpus, found.pid, found.exit_code) == ("v2", ("GPU-1", "GPU-2"), 42, None)
    assert found.started_at == pytest.approx(1714557600.123456)


def test_one_that_never_ran_has_no_exit_code() -> None:
    never = "0001-01-01T00:00:00Z"
    found = instance(inspected("created", StartedAt=never))
    assert (found.running, found.exit_code, found.started_at) == (False, None, 1714557599)
    assert instance(inspected("exited", ExitCode=137)).exit_code == 137


def test_one_that_was_killed_for_memory_is_told_apart() -> None:
    dead = instance(
        inspected("exited", OOMKilled=True)
    )  # 0: a child was killed, and the main process left in peace
    assert (dead.oom, dead.limit, dead.exit_code) == (True, 1 << 30, 0)
    assert not instance(inspected("exited", ExitCode=137)).oom
    assert not instance(inspected("running", Running=True, Pid=42, OOMKilled=True)).oom
    assert instance({**inspected("exited"), "HostConfig": {"Memory": 0}}).limit is None


def test_times_and_timeouts() -> None:
    assert timestamp("1970-01-01T00:00:01.5Z") == 1.5
    assert timestamp("1970-01-01T01:00:01.123456789+01:00") == pytest.approx(1.123456)
    assert [whole_seconds(s) for s in (-1, 0, 0.2, 2, 2.1)] == [0, 0, 1, 2, 3]
