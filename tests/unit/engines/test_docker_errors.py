"""How the engine's answers become errors that say what to do."""

from __future__ import annotations

import dataclasses
import errno
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiodocker.exceptions import DockerError

from fngw_controller.engines._docker_client import NO_CONNECTION, engine_errors, negotiate, start_failed, translated
from fngw_controller.engines.base import EngineError, EngineUnavailable, ReplicaSpec, StartFailed
from fngw_state.records import Artifact

NOWHERE = Path("/nowhere")
SPEC = ReplicaSpec(
    id="r1",
    deployment="Model",
    generation=1,
    version=None,
    number=1,
    artifact=Artifact(image="sha256:1234"),
    directory=NOWHERE,
    shared=NOWHERE,
    log_file=NOWHERE,
    env={},
    cpus=1,
    memory=None,
)


@pytest.mark.parametrize(
    ("newest", "oldest", "spoken"),
    [("1.41", "1.12", "v1.41"), ("1.52", "1.44", "v1.44"), ("1.47", "1.24", "v1.41"), ("1.40", "1.12", "v1.40")],
)
def test_the_api_version_is_one_that_the_engine_speaks(newest: str, oldest: str, spoken: str) -> None:
    assert negotiate({"ApiVersion": newest, "MinAPIVersion": oldest}) == spoken


def no_connection(cause: OSError) -> DockerError:
    """What aiodocker raises, the way it does."""
    key: Any = SimpleNamespace(host="localhost", port=None, ssl=True, is_ssl=False)
    try:
        try:
            raise aiohttp.ClientConnectorError(key, cause)
        except aiohttp.ClientConnectionError:
            raise DockerError(NO_CONNECTION, "Cannot connect to Docker Engine")  # noqa: B904 (as aiodocker does)
    except DockerError as error:
        return error


def test_a_closed_door_is_told_from_nobody_at_home() -> None:
    closed = translated(no_connection(PermissionError(errno.EACCES, "Permission denied")))
    assert isinstance(closed, EngineUnavailable)
    assert (
        closed.code == "engine_permission" and "docker $USER" in closed.hint and "--engine process" in closed.hint
    )
    away = translated(no_connection(ConnectionRefusedError(errno.ECONNREFUSED, "refused")))
    assert isinstance(away, EngineUnavailable)
    assert away.code == "engine_unreachable" and "systemctl start docker" in away.hint


def test_a_refusal_is_not_an_absence() -> None:
    refused = translated(DockerError(409, "conflict"))
    assert type(refused) is EngineError and "conflict" in refused.message


@pytest.mark.parametrize("error", [TimeoutError(), aiohttp.ClientPayloadError("cut")])
def test_silence_is_an_absence(error: Exception) -> None:
    with pytest.raises(EngineUnavailable, match="stopped answering"), engine_errors():
        raise error


def test_a_device_that_no_cdi_file_describes_names_the_command() -> None:
    message = "CDI device injection failed: unresolvable CDI devices nvidia.com/gpu=GPU-1"
    error = start_failed(DockerError(500, message), dataclasses.replace(SPEC, gpus=("GPU-1",)))
    assert error.code == "gpu_runtime_missing" and "nvidia-ctk cdi generate" in error.hint


def test_a_missing_gpu_runtime_names_the_package() -> None:
    message = 'could not select device driver "nvidia" with capabilities: [[gpu compute utility]]'
    error = start_failed(DockerError(500, message), dataclasses.replace(SPEC, gpus=("GPU-1",)))
    assert isinstance(error, StartFailed)
    assert (
        error.code == "gpu_runtime_missing" and "nvidia-container-toolkit" in error.hint and error.detail == message
    )


def test_other_reasons_for_a_failed_start() -> None:
    gone = start_failed(DockerError(404, "No such image: sha256:1234"), SPEC)
    assert gone.code == "image_missing" and "sha256:1234" in gone.message
    other = start_failed(DockerError(400, "Minimum memory limit allowed is 6MB"), SPEC)
    assert other.code == "start_failed" and "6MB" in other.message and "r1 of Model" in other.message
    assert isinstance(start_failed(no_connection(ConnectionRefusedError()), SPEC), EngineUnavailable)
