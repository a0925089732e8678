"""What `fngw doctor` makes of what the gateway has found. Pure; ``api.doctor`` gathers the facts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from fngw.checkup import OK, PROBLEM, WARNING, Check
from fngw.progress import size_text
from fngw_state.resources import Capacity, show_mib

__all__ = ["Disk", "Facts", "RedisFacts", "checks"]

GIB = 1 << 30
#: The oldest Redis whose scripts and ACLs do what fngw needs.
OLDEST_REDIS = 7
#: Free space below which deploys and the append-only file are about to fail, or soon might.
FULL, LOW = GIB // 2, 5 * GIB
#: Shares of `maxmemory` and of the caches' limit that are worth a word.
NEARLY = 0.9
#: What is in the caches, by the builder's names for it.
CACHED = {"packages": "conda packages", "uv": "wheels", "bytecode": "byte-code", "repodata": "channels' indexes"}
#: Two per request: the client's connection and the replica's.
FEW_FILES = 4096
#: Seconds between two clocks that confuse ages and expiries.
SKEW_S = 5.0


@dataclass(frozen=True)
class Disk:
    """A disk, by a folder on it; bytes."""

    path: str
    free: int
    total: int


@dataclass(frozen=True)
class RedisFacts:
    """What Redis, and those who meet in it, tell.

    Args:
        info: its INFO.
        ahead_s: how much its clock is ahead of the gateway's.
        leader: the controller that leads, or None.
        engine: what runs replicas (``name``, ``version``, ``detail``), or None.
        capacity: what the machine has, or None.
        behind: how many gateway processes there are, and how many of them route by an old table.
        builders: how many are idle and busy, and how many builds wait.
        dispatchers: how many send calls that wait.
    """

    info: Mapping[str, Any]
    ahead_s: float = 0.0
    leader: str | None = None
    engine: Mapping[str, str] | None = None
    capacity: Capacity | None = None
    gateways: tuple[int, int] = (1, 0)
    builders: tuple[int, int, int] = (0, 0, 0)
    dispatchers: int = 0


@dataclass(frozen=True)
class Facts:
    """What the gateway has found.

    Args:
        python: the ``"X.Y"`` of who asks.
        disk: that of the data directory.
        files: how many files this process may have open.
        redis: None when it does not answer; ``redis_error`` says why.
        survey: what a builder sees (see ``fngw_builder.upkeep.survey``); None when none has answered.
        survey_error: why not.
    """

    python: str
    disk: Disk
    files: int
    redis: RedisFacts | None = None
    redis_error: str = ""
    survey: Mapping[str, Any] | None = field(default=None)
    survey_error: str = ""


def checks(facts: Facts) -> list[Check]:
    """Return what there is to say, in the order in which things depend on each other."""
    return list(_checks(facts))


def _checks(facts: Facts) -> Iterator[Check]:
    redis, survey = facts.redis, facts.survey
    if redis is None:
        hint = "what runs goes on; nothing can be changed until it answers: see its log"
        yield Check("redis", PROBLEM, f"Redis does not answer: {facts.redis_error}", hint)
    else:
        yield from _redis(redis)
        yield _controller(redis)
        yield _gateways(*redis.gateways)
        yield _engine(redis.engine, (survey or {}).get("docker", {}))
        yield _builder(facts, *redis.builders)
        yield _dispatchers(redis.dispatchers)
        yield _gpus(redis, (survey or {}).get("docker", {}))
    yield _disk("disk", "the data directory", facts.disk)
    if survey is not None:
        yield from _surveyed(facts, survey)
    yield _files(facts.files)


# -- Redis ------------------------------------------------------------------------------------------------


def _redis(redis: RedisFacts) -> Iterator[Check]:
    info = redis.info
    version = str(info.get("redis_version", ""))
    name = f"Valkey {info['valkey_version']}" if info.get("valkey_version") else f"Redis {version}"
    old = int(version.partition(".")[0] or 0) < OLDEST_REDIS
    used = f"{size_text(int(info.get('used_memory', 0)))} of memory"
    hint = f"version {OLDEST_REDIS} or newer is needed" if old else ""
    yield Check("redis", PROBLEM if old else OK, f"{name} answers; {used}", hint)
    yield _redis_data(info)
    yield _redis_memory(info)
    if abs(redis.ahead_s) > SKEW_S:
        text = f"Redis' clock is {abs(redis.ahead_s):.0f} s {'ahead of' if redis.ahead_s > 0 else 'behind'} ours"
        yield Check("clock", WARNING, text, "let all machines take their time from NTP")


def _redis_data(info: Mapping[str, Any]) -> Check:
    """Whether what Redis is told survives it."""
    failing = [k for k in ("aof_last_write_status", "aof_last_bgrewrite_status") if info.get(k, "ok") != "ok"]
    if not info.get("aof_enabled"):
        if info.get("rdb_last_bgsave_status", "ok") != "ok":
            failing.append("rdb_last_bgsave_status")
        hint = "set `appendonly yes`: what was told since its last snapshot is lost when it restarts"
        lost = Check("redis_data", WARNING, "Redis keeps no append-only file", hint)
    else:
        lost = Check("redis_data", OK, "what Redis is told is kept in an append-only file")
    if failing:
        hint = "is its disk full? its log says more; nothing new is kept until it can write again"
        return Check("redis_data", PROBLEM, f"Redis cannot write to its disk: {', '.join(failing)}", hint)
    return lost


def _redis_memory(info: Mapping[str, Any]) -> Check:
    limit, policy = int(info.get("maxmemory", 0)), str(info.get("maxmemory_policy", "noeviction"))
    used = int(info.get("used_memory", 0))
    if policy != "noeviction":
        hint = "set `maxmemory-policy noeviction`: a full Redis must refuse, not forget deployments"
        return Check("redis_memory", PROBLEM if limit else WARNING, f"Redis' maxmemory-policy is {policy}", hint)
    if limit and used > NEARLY * limit:
        text = f"Redis uses {size_text(used)} of its {size_text(limit)}"
        return Check("redis_memory", WARNING, text, "raise `maxmemory`: when it is full, changes are refused")
    bound = f"at most {size_text(limit)}" if limit else "no limit"
    return Check("redis_memory", OK, f"Redis forgets nothing (noeviction, {bound})")


# -- the parts --------------------------------------------------------------------------------------------


def _controller(redis: RedisFacts) -> Check:
    if redis.leader is None:
        hint = "what runs serves on, but nothing is started or replaced: see the controller's log"
        return Check("controller", PROBLEM, "no controller leads", hint)
    return Check("controller", OK, f"controller {redis.leader} leads")


def _gateways(count: int, behind: int) -> Check:
    shown = f"{count} gateway process{'' if count == 1 else 'es'}"
    if behind:
        hint = "deploys wait for them; those that stay behind lost Redis: see their log"
        return Check("gateways", WARNING, f"{behind} of {shown} route by an old table", hint)
    return Check("gateways", OK, f"{shown}, all routing by the newest table")


def _engine(engine: Mapping[str, str] | None, docker: Mapping[str, Any]) -> Check:
    if engine is None:
        return Check("engine", PROBLEM, "no controller has told yet what runs replicas", "see the controller's log")
    if engine["name"] == "process":
        why = f"no Docker engine answers: {docker['problem']}" if docker.get("problem") else ""
        hint = "for containers: start Docker, then fngw again" if why else "for containers: fngw up --engine docker"
        return Check("engine", WARNING, "; ".join(filter(None, (engine["detail"], why))), hint)
    if docker.get("problem"):
        hint = "`docker info` must answer where fngw runs; DOCKER_HOST says where the engine listens"
        return Check("engine", PROBLEM, f"the Docker engine does not answer: {docker['problem']}", hint)
    return Check("engine", OK, engine["detail"])


def _builder(facts: Facts, idle: int, busy: int, waiting: int) -> Check:
    if not idle and not busy:
        text = f"no builder is known to Redis; {waiting} builds wait" if waiting else "no builder is known to Redis"
        return Check("builder", PROBLEM, text, "nothing can be built: see the builder's log")
    shown = f"{idle} idle and {busy} busy builders, {waiting} builds waiting"
    if facts.survey is None:
        hint = "all may be busy with long builds; if not, see the builder's log"
        return Check("builder", WARNING, f"{shown}, but {facts.survey_error}", hint)
    return Check("builder", OK, shown)


def _dispatchers(count: int) -> Check:
    if not count:
        hint = "calls that can wait are taken in, but none is carried out: see the dispatcher's log"
        return Check("dispatchers", PROBLEM, "no dispatcher of calls is known to Redis", hint)
    return Check("dispatchers", OK, f"{count} dispatcher{'' if count == 1 else 's'} of calls")


def _gpus(redis: RedisFacts, docker: Mapping[str, Any]) -> Check:
    capacity = redis.capacity or Capacity()
    if not capacity.devices:
        return Check("gpus", OK, f"no GPUs: {capacity.no_gpus}" if capacity.no_gpus else "no GPUs")
    bad = [f"{d.uuid}: {d.fault}" for d in capacity.devices if d.fault]
    shown = ", ".join(
        f"{device.model or device.uuid} ({show_mib(device.memory_mib)})" for device in capacity.devices
    )
    if bad:
        return Check(
            "gpus", PROBLEM, f"not used: {'; '.join(bad)}", "replicas keep away from these: see nvidia-smi"
        )
    if (redis.engine or {}).get("name") == "docker" and docker.get("nvidia") is False:
        hint = "containers may start without them: install the NVIDIA container toolkit on the engine's host"
        return Check("gpus", WARNING, f"{shown}; the engine does not tell of NVIDIA's runtime", hint)
    return Check("gpus", OK, shown)


# -- space ------------------------------------------------------------------------------------------------


def _disk(name: str, what: str, disk: Disk) -> Check:
    text = f"{size_text(disk.free)} of {size_text(disk.total)} free for {what} ({disk.path})"
    if disk.free >= LOW:
        return Check(name, OK, text)
    hint = "free some: `fngw prune` empties the builder's caches"
    return Check(name, PROBLEM if disk.free < FULL else WARNING, text, hint)


def _surveyed(facts: Facts, survey: Mapping[str, Any]) -> Iterator[Check]:
    used = facts.redis is not None and (facts.redis.engine or {}).get("name") == "docker"
    docker = survey["docker"] if used else {}
    if docker.get("disk"):
        yield _disk("engine_disk", "the Docker engine", Disk(**docker["disk"]))
    base = survey["base"]
    if base:
        yield Check("base", PROBLEM, base["problem"], base["hint"])
    else:
        yield Check("base", OK, f"functions for Python {facts.python} can be built")
    yield _caches(survey["cache"], survey["cache_limit"])
    stored, locks = survey["stored"], survey["locks"]
    shown = [f"sources {size_text(stored['sources'])}", f"environments {size_text(stored['environments'])}"]
    shown.append(f"{locks} lock{'' if locks == 1 else 's'} ({size_text(stored['locks'])})")
    yield Check("stored", OK, ", ".join(shown))
    if docker.get("images"):
        images = docker["images"]
        text = f"images: {images['functions']} of functions, {images['environments']} of environments"
        yield Check("images", OK, text)


def _caches(sizes: Mapping[str, int], limit: int) -> Check:
    total = sum(sizes.values())
    shown = ", ".join(f"{CACHED.get(kind, kind)} {size_text(size)}" for kind, size in sizes.items())
    text = f"the builder's caches: {size_text(total)} of {size_text(limit)} ({shown})"
    return Check("caches", OK, text, "`fngw prune` empties them" if total > NEARLY * limit else "")


def _files(limit: int) -> Check:
    text = f"a gateway may have {limit} files open"
    if limit < FEW_FILES:
        hint = "each request takes two: raise it with `ulimit -n`, or LimitNOFILE= of its service"
        return Check("files", WARNING, text, hint)
    return Check("files", OK, text)
