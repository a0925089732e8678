"""Which engine runs the replicas, and whether it has what it needs."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass

from fngw.errors import FngwError
from fngw_supervisor.settings import EngineChoice

_TIMEOUT_S = 5
DEFAULT_HOST = "unix:///var/run/docker.sock"
DENIED = os.strerror(errno.EACCES)
#: What ``make images`` makes for one Python.
_IMAGES = ("fngw/base:py{python}", "fngw/runtime:py{python}")


@dataclass(frozen=True)
class Docker:
    """A Docker engine that answered: its version, and the names of the images that it has."""

    version: str
    images: frozenset[str]


@dataclass(frozen=True)
class Engine:
    """The engine that was chosen, and what a person should know of it, a line each."""

    name: str
    notes: tuple[str, ...]


def choose_engine(wanted: EngineChoice, ask: Callable[[], Docker | str]) -> Engine:
    """Return the engine to use.

    Args:
        wanted: what was asked for.
        ask: returns the Docker engine that answers, or why there is none (see ``ask_docker``).

    Raises:
        FngwError: ``engine_unavailable``: Docker was asked for and does not answer.
    """
    if wanted is EngineChoice.PROCESS:
        return Engine("process", (_no_isolation("as asked for"),))
    docker = ask()
    if isinstance(docker, Docker):
        return Engine("docker", (f"docker {docker.version}", *_missing_images(docker)))
    if wanted is EngineChoice.AUTO:
        return Engine("process", (_no_isolation(f"Docker does not answer: {docker}"),))
    raise FngwError(
        f"the Docker engine does not answer: {docker}",
        code="engine_unavailable",
        hint=f"{_first_aid(docker)}, or run without isolation: fngw up --engine process",
    )


def _first_aid(why: str) -> str:
    if DENIED in why:
        return "let this user use Docker (sudo usermod -aG docker $USER, then log in again), set DOCKER_HOST"
    return "start Docker, set DOCKER_HOST"


def _no_isolation(why: str) -> str:
    return f"process ({why}): replicas are local processes, without isolation"


def _missing_images(docker: Docker) -> tuple[str, ...]:
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    missing = [m for m in (i.format(python=python) for i in _IMAGES) if m not in docker.images]
    if not missing:
        return ()
    lack = f"missing: {' and '.join(missing)}: until then, Python {python} code cannot be deployed"
    return (f"{lack}\nget them with: make images PYTHON={python}",)


def ask_docker() -> Docker | str:
    """Ask the engine at ``DOCKER_HOST`` (or the default socket); return why not when it does not answer."""
    import docker  # heavy, and not needed for --engine process
    from docker.errors import DockerException

    try:
        client = docker.from_env(timeout=_TIMEOUT_S)
        try:
            version = client.version()["Version"]
            images = frozenset(tag for image in client.api.images() for tag in image["RepoTags"] or ())
            return Docker(version, images)
        finally:
            client.close()
    except (DockerException, OSError) as error:
        return f"{os.environ.get('DOCKER_HOST') or DEFAULT_HOST}: {_short(error)}"


def _short(error: BaseException) -> str:
    """Return the innermost reason: docker-py wraps it four times."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return str(getattr(error, "strerror", None) or error)
