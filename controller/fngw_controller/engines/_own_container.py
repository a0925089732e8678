"""Where the directories of a controller that runs in a container lie on the engine's host.

Replicas get their directories as bind mounts, whose sources the engine looks up on its host. A controller in a
container of that same engine knows them by other names. It asks the engine how its own container is mounted: that
holds for named volumes, for host directories, and for one inside the other, whatever the project is called, and
cannot be told wrong, as names in settings can.

Which container it is, the kernel tells: engines mount ``/etc/hostname`` from the container's own folder. The host
name itself is only by default the container's id.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import aiodocker
from aiodocker.exceptions import DockerError

from fngw_controller.engines._container import translate
from fngw_controller.engines._docker_client import connect, engine_errors
from fngw_controller.engines.base import EngineError

MOUNTINFO = Path("/proc/self/mountinfo")
# Field 4 is the source within its file system, field 5 where it is mounted: proc_pid_mountinfo(5).
_OWN_FOLDER = re.compile(r"^(?:\S+ ){3}\S*/containers/([0-9a-f]{64})/hostname /etc/hostname ", re.MULTILINE)


async def find_host_paths(directories: Iterable[Path], mountinfo: Path = MOUNTINFO) -> dict[Path, Path]:
    """Return where directories lie on the engine's host: as seen from in here → there.

    Args:
        directories: absolute paths; each must lie on a mount, if this is a container.
        mountinfo: the kernel's list of this process's mounts.

    Returns:
        Nothing, when this process is not in a container, or in one of another engine: they are the same there.

    Raises:
        EngineUnavailable: the engine does not answer.
        EngineError: ``directory_not_mounted``: a directory lies in this container alone.
    """
    container = own_id(mountinfo.read_text()) if mountinfo.exists() else None
    if container is None:
        return {}
    docker, _ = await connect(None)
    try:
        found = await _inspect(docker, container)
    finally:
        await docker.close()
    return {} if found is None else host_paths(found, directories)


async def _inspect(docker: aiodocker.Docker, container: str) -> Mapping[str, Any] | None:
    with engine_errors():
        try:
            found: Mapping[str, Any] = await (await docker.containers.get(container)).show()
        except DockerError as error:
            if error.status == 404:  # an engine inside this container
                return None
            raise
    return found


def own_id(mountinfo: str) -> str | None:
    """Return the id of the container that has these mounts; None when it is none of Docker's."""
    match = _OWN_FOLDER.search(mountinfo)
    return match and match[1]


def host_paths(inspected: Mapping[str, Any], directories: Iterable[Path]) -> dict[Path, Path]:
    """Return where directories of an inspected container lie on the host.

    Raises:
        EngineError: ``directory_not_mounted``.
    """
    mounts = [m for m in inspected["Mounts"] if m.get("Source")]  # a tmpfs has none
    sources = {Path(m["Destination"]): Path(m["Source"]) for m in mounts}
    return {directory: _on_host(directory, sources) for directory in directories}


def _on_host(directory: Path, sources: Mapping[Path, Path]) -> Path:
    if not any(directory.is_relative_to(mounted) for mounted in sources):
        raise EngineError(
            f"the directory {directory} lies in this container alone: the engine cannot give it to replicas",
            code="directory_not_mounted",
            hint="mount a volume or a directory of the host there, as compose.yaml does for FNGW_DATA_DIR and "
            "FNGW_RUN_DIR",
        )
    return translate(directory, sources)
