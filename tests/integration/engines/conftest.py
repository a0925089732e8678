"""Engines to test, each with an installation of its own. Nothing outlives the session, failures included."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import docker
import pytest

from fngw_controller.engines._container import LABEL_INSTALLATION

from .engine_rigs import DockerRig, FakeRig, ProcessRig, Rig

RUNTIME_IMAGE = "fngw/runtime:py3.11"


@pytest.fixture(scope="session")
def installation() -> str:
    return f"test{secrets.token_hex(4)}"


@pytest.fixture(scope="session")
def docker_client(installation: str) -> Iterator[docker.DockerClient]:
    """The engine, asked synchronously: what tests see and do behind the back of the one under test."""
    client = docker.from_env()
    try:
        yield client
        for kind in (installation, f"{installation}b"):
            label = {"label": f"{LABEL_INSTALLATION}={kind}"}
            for container in client.containers.list(all=True, filters=label, ignore_removed=True):
                container.remove(force=True)
            for network in client.networks.list(filters=label):
                network.remove()
    finally:
        client.close()


@pytest.fixture(scope="session")
def image(docker_client: docker.DockerClient) -> str:
    """The id of an image with a replica's interpreter."""
    try:
        return str(docker_client.images.get(RUNTIME_IMAGE).id)
    except docker.errors.ImageNotFound:
        pytest.fail(f"the image {RUNTIME_IMAGE} is missing: run `make images`")


@pytest.fixture
async def process_rig(installation: str, tmp_path: Path) -> AsyncIterator[ProcessRig]:
    rig = ProcessRig(installation, tmp_path)
    yield rig
    await rig.clear()


@pytest.fixture
async def docker_rig(
    installation: str, tmp_path: Path, docker_client: docker.DockerClient, image: str
) -> AsyncIterator[DockerRig]:
    # pytest's folders are for their owner alone, and the stand-in has to be read by the replicas' user.
    with contextlib.suppress(PermissionError):
        for folder in tmp_path.parents[:3]:
            folder.chmod(0o711)
    rig = DockerRig(installation, tmp_path, docker_client, image)
    yield rig
    await rig.clear()


@pytest.fixture(params=["fake", "process", pytest.param("docker", marks=pytest.mark.docker)])
def rig(request: pytest.FixtureRequest, installation: str, tmp_path: Path) -> Rig:
    """Each kind of engine in turn."""
    return _rig(request, installation, tmp_path)


@pytest.fixture(params=["fake", pytest.param("docker", marks=pytest.mark.docker)])
def imaging_rig(request: pytest.FixtureRequest, installation: str, tmp_path: Path) -> Rig:
    """Each kind of engine that has images in turn."""
    return _rig(request, installation, tmp_path)


def _rig(request: pytest.FixtureRequest, installation: str, tmp_path: Path) -> Rig:
    if request.param == "fake":
        return FakeRig(installation, tmp_path)
    found: Rig = request.getfixturevalue(f"{request.param}_rig")
    return found
