"""The edge to aiodocker: connecting, streaming, and its errors as fngw's.

The one module that knows aiodocker's exceptions, and the only private member of its that is used.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import aiodocker
import aiohttp
from aiodocker.exceptions import DockerContextError, DockerError

from fngw_controller.engines.base import EngineError, EngineUnavailable, ReplicaSpec, StartFailed

#: All that is asked for here exists since this version (Docker 20.10), so it is spoken wherever the engine still
#: does; Docker 29 asks for at least 1.44.
API_WANTED = (1, 41)
#: A start on a loaded machine takes tens of seconds; an engine that answers nothing for this long hangs.
TIMEOUT = aiohttp.ClientTimeout(total=120, sock_connect=10)
FOREVER = aiohttp.ClientTimeout(total=None, sock_connect=10)

#: aiodocker's own status for "no connection".
NO_CONNECTION = 900


async def connect(url: str | None) -> tuple[aiodocker.Docker, Mapping[str, Any]]:
    """Return a client that speaks a version the engine understands, and what the engine says of itself.

    Args:
        url: the engine's address; None for DOCKER_HOST, the Docker context, or the usual sockets.

    Raises:
        EngineUnavailable: with a hint on how to get one.
    """
    docker = _open(url)
    try:
        with engine_errors():
            docker.api_version = negotiate(await docker.version())
            return docker, await docker.system.info()
    except BaseException:
        await docker.close()
        raise


def _open(url: str | None) -> aiodocker.Docker:
    try:
        return aiodocker.Docker(url, timeout=TIMEOUT)
    except (AssertionError, ValueError, DockerContextError) as error:  # the first: it found no socket at all
        reason = str(error) or "there is no socket at the usual places"
        raise _unreachable(f"no Docker engine was found: {reason}") from error


def negotiate(version: Mapping[str, Any]) -> str:
    """Return the API version to speak, such as ``v1.41``, for what ``GET /version`` answered."""
    newest = _parse(version["ApiVersion"])
    oldest = _parse(version.get("MinAPIVersion", "1.12"))
    return "v%d.%d" % max(oldest, min(newest, API_WANTED))


def _parse(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    return int(major), int(minor)


@contextmanager
def engine_errors() -> Iterator[None]:
    """Raise what aiodocker and aiohttp raise as ``EngineError``."""
    try:
        yield
    except DockerError as error:
        raise translated(error) from error
    except (aiohttp.ClientError, TimeoutError) as error:
        raise _unreachable(f"the Docker engine stopped answering: {error or type(error).__name__}") from error


def translated(error: DockerError) -> EngineError:
    """Return aiodocker's error as one of fngw's."""
    if error.status != NO_CONNECTION:
        return EngineError(f"the Docker engine refused: {error.message}")
    cause = error.__context__
    if isinstance(cause, aiohttp.ClientConnectorError) and isinstance(cause.os_error, PermissionError):
        return EngineUnavailable(
            f"the Docker engine does not let this user in: {cause.os_error}",
            code="engine_permission",
            hint="add yourself to its group (sudo usermod -aG docker $USER, then log in again), "
            "or run with --engine process",
        )
    return _unreachable(error.message)


def _unreachable(message: str) -> EngineUnavailable:
    hint = "start the engine (sudo systemctl start docker), set DOCKER_HOST, or run with --engine process"
    return EngineUnavailable(message, hint=hint)


def lacks_gpu_driver(error: DockerError) -> bool:
    """Whether an engine refused to give a container its GPUs because it has not got what would do that."""
    return "could not select device driver" in error.message


def start_failed(error: DockerError, spec: ReplicaSpec) -> EngineError:
    """Return why a replica did not start, given what the engine answered to create or start."""
    if error.status == NO_CONNECTION:
        return translated(error)
    what = f"replica {spec.id} of {spec.deployment} could not be started"
    if lacks_gpu_driver(error) or "CDI device injection failed" in error.message:
        return StartFailed(
            f"{what}: the Docker engine cannot give containers a GPU",
            code="gpu_runtime_missing",
            hint="install the package nvidia-container-toolkit, run "
            "`sudo nvidia-ctk runtime configure --runtime=docker`, and restart the engine; or, if it uses CDI, run "
            "`sudo nvidia-ctk cdi generate --device-name-strategy=uuid --output=/etc/cdi/nvidia.yaml`",
            detail=error.message,
        )
    if error.status == 404 and "no such image" in error.message.lower():
        return StartFailed(
            f"{what}: its image {spec.artifact.ref or spec.artifact.image} is gone",
            code="image_missing",
            hint="deploy again: the image is built anew",
        )
    return StartFailed(f"{what}: {error.message}", hint="`fngw doctor` checks the engine")


@asynccontextmanager
async def stream(
    docker: aiodocker.Docker, path: str, params: Mapping[str, Any]
) -> AsyncIterator[aiohttp.StreamReader]:
    """Open an endless answer, and close its connection in the end.

    aiodocker's own events and logs run as tasks that cannot be started twice, tell not when they are connected,
    and decode as strict UTF-8: hence the one private call.
    """
    async with docker._query(path, params=params, timeout=FOREVER) as response:
        try:
            yield response.content
        finally:
            response.close()


async def demultiplex(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Yield the payloads of an engine's log stream, in which each has a header: stream, three zeros, length."""
    while True:
        try:
            _, size = struct.unpack(">BxxxL", await content.readexactly(8))
            chunk = await content.readexactly(size)
        except (asyncio.IncompleteReadError, aiohttp.ClientPayloadError):
            return  # the end; or the container was removed under way, which ends its log as well
        yield chunk
