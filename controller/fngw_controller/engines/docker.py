"""Replicas as containers of a Docker engine: the effects. What a container looks like is in ``_container``.

All state is the engine's: every call asks it, by label, so that a controller that comes back finds its replicas.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiodocker
import aiohttp
from aiodocker.containers import DockerContainer
from aiodocker.exceptions import DockerError

from fngw_controller.engines import _container, _docker_client
from fngw_controller.engines._container import LABEL_DEPLOYMENT, LABEL_INSTALLATION, LABEL_REPLICA, Host
from fngw_controller.engines._docker_client import (
    demultiplex,
    engine_errors,
    lacks_gpu_driver,
    start_failed,
    stream,
)
from fngw_controller.engines.base import (
    EngineError,
    EngineInfo,
    Exited,
    Instance,
    Instances,
    ReplicaNotRunning,
    ReplicaSpec,
    StartFailed,
)
from fngw_state.records import Artifact

log = logging.getLogger(__name__)

#: Seconds between tries to subscribe to an engine that is away: the first, and the longest.
RETRY_FIRST_S, RETRY_MOST_S = 0.1, 5.0
#: What the engine may take on top of a replica's own time to end.
STOP_MARGIN_S = 60.0


@dataclass(frozen=True)
class _Connection:
    docker: aiodocker.Docker
    host: Host
    info: Mapping[str, Any]


class DockerEngine:
    """Runs replicas in Docker, hardened: see ``_container.create_body``.

    Args:
        installation: a short id of the data dir; containers of other installations are never touched.
        host_paths: directories as this process sees them → as the engine's host does, for a controller that
            runs in a container itself.
        url: the engine's address; None for DOCKER_HOST, the current Docker context, or the usual sockets.
    """

    name = "docker"

    def __init__(
        self, installation: str, *, host_paths: Mapping[Path, Path] | None = None, url: str | None = None
    ) -> None:
        self._installation = installation
        self._host_paths = dict(host_paths or {})
        self._url = url
        self._connection: _Connection | None = None
        self._connecting = asyncio.Lock()
        self._networking = asyncio.Lock()
        self._gpu_drivers = list(_container.GPU_DRIVERS)  # the one that worked last, first

    async def check(self) -> EngineInfo:
        info = (await self._connect()).info
        with engine_errors():
            version = str((await (await self._docker()).version())["Version"])
        detail = f"Docker {version} on {info['OperatingSystem']}, {info['NCPU']} CPUs; replicas are containers"
        return EngineInfo(self.name, version, detail, memory=info.get("MemTotal") or None)

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection:
            await connection.docker.close()

    async def cleanup(self) -> None:
        connection = await self._connect()
        with engine_errors():
            try:
                await (await connection.docker.networks.get(connection.host.network)).delete()
            except DockerError as error:
                # 403, on newer engines 409: containers are still attached.
                if error.status not in (403, 404, 409):
                    raise

    # -- replicas ---------------------------------------------------------------------------------------------

    async def start(self, spec: ReplicaSpec) -> Instance:
        connection = await self._connect()
        found = await self._find(spec.id)
        if found is not None:
            if found["State"] != "created":
                with engine_errors():
                    return _container.instance(await found.show())
            await self._remove(found)  # half made by a controller that died right then
        await asyncio.to_thread(_hand_over, spec, connection.host.user)
        try:
            with engine_errors():
                return await self._run(connection, spec)
        except BaseException:
            await self._discard(spec.id)
            raise

    async def _run(self, connection: _Connection, spec: ReplicaSpec) -> Instance:
        """Make a container and start it; one with GPUs by the first driver that the engine has."""
        lacking: DockerError | None = None
        for driver in tuple(self._gpu_drivers):
            try:
                instance = await self._run_with(connection, spec, driver)
            except DockerError as error:
                if not lacks_gpu_driver(error):
                    raise start_failed(error, spec) from error
                lacking = lacking or error
                await self._discard(spec.id)
            else:
                if spec.gpus:
                    self._gpu_drivers.remove(driver)
                    self._gpu_drivers.insert(0, driver)
                return instance
        assert lacking is not None
        raise start_failed(lacking, spec) from lacking

    async def _run_with(self, connection: _Connection, spec: ReplicaSpec, gpu_driver: str) -> Instance:
        body = _container.create_body(spec, connection.host, gpu_driver)
        await self._ensure_network(connection)
        container = await connection.docker.containers.create(body, name=_container.container_name(spec))
        await container.start()
        return _container.instance(await container.show())

    async def _ensure_network(self, connection: _Connection) -> None:
        """Asked before every start, in 2 ms: people run ``docker network prune``."""
        networks = connection.docker.networks
        async with self._networking:
            try:
                await networks.get(connection.host.network)
            except DockerError as error:
                if error.status != 404:
                    raise
                await networks.create(_container.network_body(connection.host))

    async def _discard(self, id: str) -> None:
        """Remove what a failed start left: it is found by label, as a name may be someone else's."""
        try:
            found = await self._find(id)
            if found is not None:
                await self._remove(found)
        except EngineError as error:
            log.warning("replica %s did not start, and what is left of it could not be removed: %s", id, error)

    async def stop(self, id: str, timeout_s: float) -> None:
        container = await self._find(id)
        if container is None:
            return
        limit = aiohttp.ClientTimeout(total=timeout_s + STOP_MARGIN_S)
        try:
            if container["State"] == "paused":  # a frozen process takes no SIGTERM
                await container.unpause()
            await container.stop(t=_container.whole_seconds(timeout_s), timeout=limit)
        except (DockerError, TimeoutError) as error:
            if not (isinstance(error, DockerError) and error.status == 404):
                log.warning("replica %s is removed by force, as it did not stop: %s", id, error)
        await self._remove(container)

    async def _remove(self, container: DockerContainer) -> None:
        with engine_errors():
            try:
                await container.delete(force=True, v=True)
            except DockerError as error:
                if error.status not in (404, 409):  # 409: its removal is under way already
                    raise

    async def list(self) -> Instances:
        found = await self._list({LABEL_INSTALLATION: self._installation})
        instances = await asyncio.gather(*[self._inspect(container) for container in found])
        return [instance for instance in instances if instance is not None]

    async def _inspect(self, container: DockerContainer) -> Instance | None:
        with engine_errors():
            try:
                return _container.instance(await container.show())
            except DockerError as error:
                if error.status == 404:  # removed since it was listed
                    return None
                raise

    async def _find(self, id: str) -> DockerContainer | None:
        found = await self._list({LABEL_INSTALLATION: self._installation, LABEL_REPLICA: id})
        return found[0] if found else None

    async def _list(self, labels: Mapping[str, str]) -> Sequence[DockerContainer]:
        filters = {"label": [f"{k}={v}" for k, v in labels.items()]}
        docker = await self._docker()
        with engine_errors():
            containers: Sequence[DockerContainer] = await docker.containers.list(all=True, filters=filters)
        return containers

    # -- what replicas say and do -----------------------------------------------------------------------------

    async def events(self) -> AsyncIterator[Exited | None]:
        since, delay = "", RETRY_FIRST_S
        while True:
            try:
                docker = await self._docker()
                since = since or await self._now()
                async for event in self._subscribe(docker, since):
                    delay = RETRY_FIRST_S
                    if event is None:
                        yield None
                        continue
                    yield await self._exited(docker, event)
                    since = _right_after(event)
                reason = "the Docker engine ended the event stream"
            except EngineError as error:
                reason = error.message
            level = logging.WARNING if delay == RETRY_FIRST_S else logging.DEBUG  # once per absence
            log.log(level, "no events from the Docker engine until it answers again: %s", reason)
            await asyncio.sleep(delay)
            delay = min(delay * 2, RETRY_MOST_S)

    async def _subscribe(self, docker: aiodocker.Docker, since: str) -> AsyncIterator[dict[str, Any] | None]:
        """Yield None once connected, then the death of each container since then and since ``since``."""
        label = f"{LABEL_INSTALLATION}={self._installation}"
        filters = {"type": ["container"], "event": ["die"], "label": [label]}
        params = {"since": since, "filters": json.dumps(filters)}
        with engine_errors():
            async with stream(docker, "events", params) as content:
                yield None
                async for line in content:
                    yield json.loads(line)

    async def _now(self) -> str:
        """The engine's clock, which need not agree with this machine's."""
        docker = await self._docker()
        with engine_errors():
            return f"{_container.timestamp((await docker.system.info())['SystemTime']):.6f}"

    async def _exited(self, docker: aiodocker.Docker, event: Mapping[str, Any]) -> Exited:
        attributes, at = event["Actor"]["Attributes"], event["timeNano"] / 1e9
        code = int(attributes["exitCode"])
        dead = await self._inspect(docker.containers.container(event["Actor"]["ID"]))
        if dead is None:
            return Exited(attributes[LABEL_REPLICA], attributes[LABEL_DEPLOYMENT], code, oom=False, at=at)
        return dataclasses.replace(dead.ended(at), exit_code=code)

    async def logs(self, id: str, *, tail: int | None, since: float | None, follow: bool) -> AsyncIterator[bytes]:
        container = await self._find(id)
        if container is None:
            return
        params: dict[str, Any] = {"stdout": True, "stderr": True, "follow": follow}
        params["tail"] = "all" if tail is None else str(tail)
        if since is not None:
            params["since"] = f"{since:.6f}"
        with engine_errors():
            try:
                async with stream(await self._docker(), f"containers/{container.id}/logs", params) as content:
                    async for chunk in demultiplex(content):
                        yield chunk
            except DockerError as error:
                if error.status not in (404, 409):  # 409: its removal is under way
                    raise

    async def pause(self, id: str) -> None:
        container = await self._living(id)
        if container["State"] == "running":
            with engine_errors():
                await container.pause()

    async def unpause(self, id: str) -> None:
        container = await self._living(id)
        if container["State"] == "paused":
            with engine_errors():
                await container.unpause()

    async def _living(self, id: str) -> DockerContainer:
        container = await self._find(id)
        if container is None or container["State"] not in ("running", "paused"):
            raise ReplicaNotRunning(f"replica {id} does not run")
        return container

    async def has(self, artifact: Artifact) -> bool:
        docker = await self._docker()
        if not artifact.image:
            return False
        with engine_errors():
            try:
                await docker.images.inspect(artifact.image)
            except DockerError as error:
                if error.status == 404:
                    return False
                raise
        return True

    async def discard(self, image: str) -> bool:
        docker = await self._docker()
        with engine_errors():
            try:
                await docker.images.delete(image)
            except DockerError as error:
                if error.status not in (404, 409):  # 409: a container was made from it
                    raise
                return bool(error.status == 404)
        return True

    # -- the connection ---------------------------------------------------------------------------------------

    async def _docker(self) -> aiodocker.Docker:
        return (await self._connect()).docker

    async def _connect(self) -> _Connection:
        async with self._connecting:
            if self._connection is None:
                docker, info = await _docker_client.connect(self._url)
                self._connection = _Connection(docker, self._describe_host(info), info)
            return self._connection

    def _describe_host(self, info: Mapping[str, Any]) -> Host:
        security = info.get("SecurityOptions") or []
        return Host(
            installation=self._installation,
            user=_container.choose_user(os.getuid(), os.getgid(), security),
            userns_host=any("name=userns" in option for option in security),
            paths=self._host_paths,
        )


def _right_after(event: Mapping[str, Any]) -> str:
    """The moment after an event, in the engine's notation: ``since`` includes its own moment."""
    return "%d.%09d" % divmod(event["timeNano"] + 1, 10**9)


def _hand_over(spec: ReplicaSpec, user: str) -> None:
    """Give the replica's directory to its user, and keep everyone else but root out."""
    uid, gid = map(int, user.split(":"))
    try:
        spec.directory.chmod(0o700)
        if os.getuid() == 0 and uid != 0:
            for path in (spec.directory, *spec.directory.iterdir()):
                os.chown(path, uid, gid, follow_symlinks=False)
    except OSError as error:
        raise StartFailed(f"replica {spec.id} has no directory that its user may have: {error}") from error
