"""Pure: the processes of one fngw, as data."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

from fngw_state.layout import Layout

#: -P: a user's own `redis.py` in the current directory must not shadow the real one.
INTERPRETER = (sys.executable, "-P", "-m")
#: Connections that each of several gateways accepts at once: of eight that come together, none gets all.
SHARED_ACCEPTS = 4


class Stage(IntEnum):
    """Who stops when; the lowest first.

    The dispatchers are told first: they send no more queued calls to replicas that are about to leave. Then the
    controller: it drains and stops all replicas, while the gateways still answer what is under way. Then nothing is
    left to route to. Redis is last, because everybody else still writes to it.
    """

    DISPATCHER = 1
    CONTROLLER = 2
    GATEWAY = 3
    BUILDER = 4
    REDIS = 5


@dataclass(frozen=True)
class Part:
    """One process to keep running.

    Args:
        name: unique; also the name of its log file.
        argv: the program and its arguments.
        log: where its output goes.
        stage: when it is stopped.
        env: what it finds in its environment besides this process's own.
        fds: file descriptors that it inherits under the same numbers.
        grace_s: seconds between SIGTERM and SIGKILL.
        finishes: whether even a hurried stop gives it a moment after SIGTERM, for the sake of its data.
        vital: whether its death before it was first ready is the end, instead of a reason to try again.
    """

    name: str
    argv: tuple[str, ...]
    log: Path
    stage: Stage
    env: Mapping[str, str] = field(default_factory=dict)
    fds: tuple[int, ...] = ()
    grace_s: float = 10.0
    finishes: bool = False
    vital: bool = False


@dataclass(frozen=True)
class Site:
    """What the parts need to know of the place where they run.

    ``tcp_fd`` and ``unix_fd`` are the listening sockets that all gateway workers share.
    """

    layout: Layout
    redis_url: str
    engine: str
    host: str
    port: int
    tcp_fd: int
    unix_fd: int
    workers: int
    dispatchers: int = 1
    log_level: str = "INFO"


def plan_parts(site: Site) -> tuple[Part, ...]:
    """Return the parts besides Redis, in the order in which they are started."""
    return (
        _python_part(site, "controller", "fngw_controller", Stage.CONTROLLER, grace_s=60.0),
        _python_part(site, "builder", "fngw_builder", Stage.BUILDER, grace_s=10.0),
        *(_gateway(site, name) for name in _numbered("gateway", site.workers)),
        *(
            _python_part(site, name, "fngw_dispatcher", Stage.DISPATCHER, grace_s=15.0)
            for name in _numbered("dispatcher", site.dispatchers)
        ),
    )


def _numbered(name: str, count: int) -> list[str]:
    return [name] if count == 1 else [f"{name}-{n}" for n in range(1, count + 1)]


def _gateway(site: Site, name: str) -> Part:
    return _python_part(
        site,
        name,
        "fngw_gateway",
        Stage.GATEWAY,
        grace_s=30.0,
        fds=(site.tcp_fd, site.unix_fd),
        env={
            "FNGW_HOST": site.host,
            "FNGW_PORT": str(site.port),
            "FNGW_FD": str(site.tcp_fd),
            "FNGW_UNIX_FD": str(site.unix_fd),
            **({"FNGW_ACCEPTS": str(SHARED_ACCEPTS)} if site.workers > 1 else {}),
        },
    )


def _python_part(
    site: Site,
    name: str,
    module: str,
    stage: Stage,
    *,
    grace_s: float,
    fds: tuple[int, ...] = (),
    env: Mapping[str, str] | None = None,
) -> Part:
    return Part(
        name=name,
        argv=(*INTERPRETER, module),
        log=site.layout.logs / f"{name}.log",
        stage=stage,
        env=shared_env(site) | dict(env or {}),
        fds=fds,
        grace_s=grace_s,
    )


def module_of(argv: Sequence[str]) -> str | None:
    """Return the Python module that a command runs; None when it is another kind of command.

    Example:
        >>> module_of((*INTERPRETER, "fngw_gateway")), module_of(("redis-server", "redis.conf"))
        ('fngw_gateway', None)
    """
    return argv[len(INTERPRETER)] if tuple(argv[: len(INTERPRETER)]) == INTERPRETER else None


def shared_env(site: Site) -> dict[str, str]:
    """Return the variables that all parts of one site share (``fngw_state.settings``)."""
    return {
        "FNGW_DATA_DIR": str(site.layout.data),
        "FNGW_RUN_DIR": str(site.layout.run),
        "FNGW_REDIS_URL": site.redis_url,
        "FNGW_ENGINE": site.engine,
        "FNGW_LOG_LEVEL": site.log_level,
        "PYTHONUNBUFFERED": "1",
    }
