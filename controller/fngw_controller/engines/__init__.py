"""The engines that run replicas: the only place that touches Docker or local processes.

``base``       the protocol and its values
``docker``     containers (``_container``: what they look like; ``_docker_client``: the edge to aiodocker)
``process``    local processes (``_local``: who they are; ``_local_env``; ``_log_file``)
``fake``       in memory, for tests
``find_pipes`` where NVIDIA's MPS is reached (``_mps``)
``choose``     picks one
``find_host_paths``  where directories lie on the Docker host (``_own_container``)
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from fngw_controller.engines._mps import find_pipes
from fngw_controller.engines.base import Engine, EngineUnavailable

__all__ = ["choose", "find_host_paths", "find_pipes"]

log = logging.getLogger(__name__)


async def choose(
    kind: Literal["auto", "docker", "process"],
    *,
    installation: str,
    run_dir: Path,
    host_paths: Mapping[Path, Path] | None = None,
) -> Engine:
    """Return an engine that answers.

    Args:
        kind: ``"auto"``: Docker where an engine answers, else local processes.
        installation: a short id of the data dir; replicas of other installations are never touched.
        run_dir: where the process engine keeps its state files.
        host_paths: directories as this process sees them → as the Docker host does, where these differ.

    Raises:
        EngineUnavailable: the one asked for does not answer; the hint says what to do.
    """
    if kind == "process":
        return await _processes(installation, run_dir, reason="")
    try:
        return await _docker(installation, host_paths)
    except EngineUnavailable as error:
        if kind == "docker":
            raise
        log.warning("no Docker engine, so replicas run as local processes: %s", error.message)
        return await _processes(installation, run_dir, reason=error.message)


async def find_host_paths(
    kind: Literal["auto", "docker", "process"], directories: Iterable[Path]
) -> Mapping[Path, Path]:
    """Return directories as this process sees them → as the Docker host does; nothing where these are the same.

    Args:
        kind: as for ``choose``.
        directories: absolute paths.

    Raises:
        EngineUnavailable: Docker was asked for and does not answer.
        EngineError: ``directory_not_mounted``: this is a container, and a directory lies in it alone.
    """
    if kind == "process":
        return {}
    from fngw_controller.engines import _own_container  # heavy, as is DockerEngine

    try:
        return await _own_container.find_host_paths(directories)
    except EngineUnavailable:
        if kind == "docker":
            raise
        return {}  # `choose` takes local processes then


async def _docker(installation: str, host_paths: Mapping[Path, Path] | None) -> Engine:
    from fngw_controller.engines.docker import DockerEngine  # 0.3 s of imports that processes do not need

    engine = DockerEngine(installation, host_paths=host_paths)
    try:
        await engine.check()
    except BaseException:
        await engine.close()
        raise
    return engine


async def _processes(installation: str, run_dir: Path, *, reason: str) -> Engine:
    from fngw_controller.engines.process import ProcessEngine

    engine = ProcessEngine(installation, run_dir / "processes", reason=reason)
    await engine.check()
    return engine
