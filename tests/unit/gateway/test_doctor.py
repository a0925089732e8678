"""What the doctor makes of what was found."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from fngw.checkup import OK, PROBLEM, WARNING, Check
from fngw_gateway.doctor import Disk, Facts, RedisFacts, checks
from fngw_state.resources import Capacity, Device

GIB = 1 << 30
INFO = {"redis_version": "7.0.15", "used_memory": 12 << 20, "aof_enabled": 1, "maxmemory": 0}
INFO |= {"maxmemory_policy": "noeviction", "aof_last_write_status": "ok", "aof_last_bgrewrite_status": "ok"}
DOCKER = {"name": "docker", "version": "27.1", "detail": "Docker 27.1"}
PROCESS = {"name": "process", "version": "6.1", "detail": "local processes, without isolation"}
SURVEY: dict[str, Any] = {
    "cache": {"packages": 2 * GIB, "uv": GIB, "bytecode": 0, "repodata": 1 << 20},
    "cache_limit": 20 * GIB,
    "stored": {"sources": 1 << 20, "environments": 0, "locks": 1 << 10},
    "locks": 2,
    "docker": {
        "version": "27.1",
        "nvidia": False,
        "images": {"functions": 3, "environments": 1},
        "disk": {"path": "/var/lib/docker", "free": 50 * GIB, "total": 100 * GIB},
    },
    "base": None,
}
REDIS = RedisFacts(
    INFO,
    leader="host-1-ab",
    engine=DOCKER,
    capacity=Capacity(no_gpus="no driver"),
    builders=(1, 0, 0),
    dispatchers=1,
)
FACTS = Facts("3.11", Disk("/data", 50 * GIB, 100 * GIB), 65536, REDIS, survey=SURVEY)


def found(facts: Facts, name: str) -> Check:
    return next(check for check in checks(facts) if check.name == name)


def with_redis(**changes: Any) -> Facts:
    return dataclasses.replace(FACTS, redis=dataclasses.replace(REDIS, **changes))


def with_survey(**changes: Any) -> Facts:
    return dataclasses.replace(FACTS, survey={**SURVEY, **changes})


def test_all_is_well() -> None:
    names = [check.name for check in checks(FACTS)]
    assert names == [
        *(
            "redis",
            "redis_data",
            "redis_memory",
            "controller",
            "gateways",
            "engine",
            "builder",
            "dispatchers",
            "gpus",
        ),
        *("disk", "engine_disk", "base", "caches", "stored", "images", "files"),
    ]
    assert {check.state for check in checks(FACTS)} == {OK}
    assert not any(check.hint for check in checks(FACTS))
    assert found(FACTS, "caches").message == (
        "the builder's caches: 3.0 GiB of 20.0 GiB "
        "(conda packages 2.0 GiB, wheels 1.0 GiB, byte-code 0 KiB, channels' indexes 1.0 MiB)"
    )
    assert found(FACTS, "gpus").message == "no GPUs: no driver"


@pytest.mark.parametrize(
    ("info", "name", "state", "said"),
    [
        ({"redis_version": "6.2.1"}, "redis", PROBLEM, "Redis 6.2.1"),
        ({"valkey_version": "8.0.1"}, "redis", OK, "Valkey 8.0.1"),
        ({"aof_enabled": 0}, "redis_data", WARNING, "no append-only file"),
        ({"aof_last_write_status": "err"}, "redis_data", PROBLEM, "aof_last_write_status"),
        ({"aof_enabled": 0, "rdb_last_bgsave_status": "err"}, "redis_data", PROBLEM, "rdb_last_bgsave_status"),
        ({"maxmemory_policy": "allkeys-lru"}, "redis_memory", WARNING, "allkeys-lru"),
        ({"maxmemory_policy": "allkeys-lru", "maxmemory": GIB}, "redis_memory", PROBLEM, "allkeys-lru"),
        ({"maxmemory": 13 << 20}, "redis_memory", WARNING, "12.0 MiB of its 13.0 MiB"),
        ({"maxmemory": GIB}, "redis_memory", OK, "at most 1.0 GiB"),
    ],
)
def test_redis(info: dict[str, Any], name: str, state: str, said: str) -> None:
    check = found(with_redis(info={**INFO, **info}), name)
    assert check.state == state
    assert said in check.message
    assert bool(check.hint) == (state != OK)


def test_a_redis_that_is_away_leaves_little_to_say() -> None:
    facts = Facts("3.11", FACTS.disk, 65536, redis_error="connection refused")
    assert [(c.name, c.state) for c in checks(facts)] == [("redis", PROBLEM), ("disk", OK), ("files", OK)]
    assert "connection refused" in found(facts, "redis").message


@pytest.mark.parametrize(
    ("changes", "name", "state"),
    [
        ({"leader": None}, "controller", PROBLEM),
        ({"engine": None}, "engine", PROBLEM),
        ({"gateways": (2, 1)}, "gateways", WARNING),
        ({"builders": (0, 0, 3)}, "builder", PROBLEM),
        ({"dispatchers": 0}, "dispatchers", PROBLEM),
        ({"ahead_s": -60.0}, "clock", WARNING),
        ({"engine": PROCESS}, "engine", WARNING),
        ({"capacity": Capacity(devices=(Device("GPU-0", "H200", 143771, fault="Xid 79"),))}, "gpus", PROBLEM),
        ({"capacity": Capacity(devices=(Device("GPU-0", "H200", 143771),))}, "gpus", WARNING),
    ],
)
def test_the_parts(changes: dict[str, Any], name: str, state: str) -> None:
    check = found(with_redis(**changes), name)
    assert (check.state, bool(check.hint)) == (state, True)


def test_gpus_that_can_be_used() -> None:
    capacity = Capacity(devices=(Device("GPU-0", "H200", 143771),))
    there = dataclasses.replace(with_redis(capacity=capacity), survey={**SURVEY, "docker": {"nvidia": True}})
    assert found(there, "gpus") == Check("gpus", OK, "H200 (140.4 GiB)")


def test_why_replicas_are_local_processes() -> None:
    facts = dataclasses.replace(
        with_redis(engine=PROCESS), survey={**SURVEY, "docker": {"problem": "no such file or directory"}}
    )
    check = found(facts, "engine")
    assert "without isolation; no Docker engine answers: no such file or directory" in check.message
    assert found(with_redis(engine=PROCESS), "engine").hint == "for containers: fngw up --engine docker"


def test_docker_counts_only_where_it_is_used() -> None:
    names = {check.name for check in checks(with_redis(engine=PROCESS))}
    assert "stored" in names
    assert not names & {"engine_disk", "images"}


def test_an_engine_that_went_away_since() -> None:
    assert found(with_survey(docker={"problem": "connection refused"}), "engine").state == PROBLEM


def test_a_builder_that_does_not_answer() -> None:
    facts = dataclasses.replace(FACTS, survey=None, survey_error="no builder answered within 20 s")
    check = found(facts, "builder")
    assert check.state == WARNING
    assert "but no builder answered within 20 s" in check.message


@pytest.mark.parametrize(("free", "state"), [(50 * GIB, OK), (GIB, WARNING), (1 << 20, PROBLEM)])
def test_disks(free: int, state: str) -> None:
    disk = Disk("/data", free, 100 * GIB)
    assert found(dataclasses.replace(FACTS, disk=disk), "disk").state == state
    docker = {**SURVEY["docker"], "disk": dataclasses.asdict(disk)}
    assert found(with_survey(docker=docker), "engine_disk").state == state


def test_what_the_client_could_not_build() -> None:
    check = found(
        with_survey(base={"problem": "no base image for Python 3.9", "hint": "make images PYTHON=3.9"}), "base"
    )
    assert check == Check("base", PROBLEM, "no base image for Python 3.9", "make images PYTHON=3.9")


def test_caches_that_are_almost_full_and_few_files() -> None:
    assert found(with_survey(cache_limit=3 * GIB), "caches").hint
    assert found(dataclasses.replace(FACTS, files=1024), "files").state == WARNING
