"""What only the Docker engine promises: confinement, its network, out-of-memory, an engine that goes away."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import docker
import pytest

from fngw import protocol
from fngw_controller.engines import choose
from fngw_controller.engines._container import NONROOT
from fngw_controller.engines.base import EngineUnavailable, ReplicaSpec, StartFailed
from fngw_controller.engines.docker import DockerEngine
from fngw_state.records import Artifact

from .cdi_engine import CdiEngine
from .engine_rigs import (
    NO_SUCH_GPU,
    DockerRig,
    eventually,
    next_event,
    read_until,
    seen,
)

pytestmark = pytest.mark.docker


async def say(rig: DockerRig, engine: DockerEngine, spec: ReplicaSpec, order: str, wanted: bytes) -> bytes:
    """Give an order and return the log by the time it holds the answer."""
    rig.order(spec, order)
    return await read_until(engine.logs(spec.id, tail=None, since=None, follow=True), wanted)


async def test_containers_are_confined(docker_rig: DockerRig) -> None:
    spec = docker_rig.spec("Model", memory=256 << 20, cpus=1.5)
    await docker_rig.engine().start(spec)
    container = docker_rig.container(spec.id)
    host = container.attrs["HostConfig"]
    assert container.name == f"fngw-Model-{spec.id}"
    assert host["RestartPolicy"]["Name"] == "no"
    assert host["Init"] is host["ReadonlyRootfs"] is True
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert (host["Memory"], host["MemorySwap"]) == (256 << 20, 256 << 20)
    assert (host["CpuShares"], host["PidsLimit"]) == (1536, 4096)
    assert host["NetworkMode"] == f"fngw-{docker_rig.installation}"
    assert not host["Privileged"]
    mounts = {mount["Destination"]: mount["RW"] for mount in container.attrs["Mounts"]}
    assert mounts == {protocol.CONTAINER_REPLICA_DIR: True, protocol.CONTAINER_SHARED_DIR: False}


async def test_a_replica_sees_its_own_variables_and_user(docker_rig: DockerRig) -> None:
    env = {"MODEL": "large", "NVIDIA_VISIBLE_DEVICES": "all", "CUDA_MPS_PIPE_DIRECTORY": "/tmp/x"}
    spec = docker_rig.spec(env=env)
    await docker_rig.engine().start(spec)
    found = await seen(spec)
    assert found["env"]["MODEL"] == "large"
    assert found["env"]["NVIDIA_VISIBLE_DEVICES"] == "void"
    assert "CUDA_MPS_PIPE_DIRECTORY" not in found["env"]
    assert found["env"]["FNGW_REPLICA_DIR"] == protocol.CONTAINER_REPLICA_DIR
    assert found["env"]["HOME"] == "/tmp"
    assert found["env"]["PYTHONPATH"].endswith(":" + protocol.CONTAINER_RUNTIME_DIR)
    assert found["uid"] == (os.getuid() or NONROOT)


async def test_the_directory_is_the_replicas_alone(docker_rig: DockerRig) -> None:
    spec = docker_rig.spec()
    (spec.directory / protocol.CONFIG_FILE).write_text("{}")
    await docker_rig.engine().start(spec)
    await seen(spec)
    assert stat.S_IMODE(spec.directory.stat().st_mode) == 0o700
    uid = os.getuid() or NONROOT
    assert [spec.directory.stat().st_uid, (spec.directory / protocol.CONFIG_FILE).stat().st_uid] == [uid, uid]


async def test_replicas_do_not_reach_each_other(docker_rig: DockerRig) -> None:
    engine = docker_rig.engine()
    server, client = docker_rig.spec(), docker_rig.spec()
    await engine.start(server)
    await engine.start(client)
    await say(docker_rig, engine, server, "listen 8080", b"listening")
    networks = docker_rig.container(server.id).attrs["NetworkSettings"]["Networks"]
    address = networks[f"fngw-{docker_rig.installation}"]["IPAddress"]
    answer = await say(docker_rig, engine, client, f"connect {address} 8080", b"connected\n")
    assert b"not connected" in answer


async def test_out_of_memory_is_told(docker_rig: DockerRig) -> None:
    engine = docker_rig.engine()
    spec = docker_rig.spec(memory=48 << 20)
    await engine.start(spec)
    async with contextlib.aclosing(engine.events()) as events:
        assert await next_event(events) is None
        docker_rig.order(spec, "hog 200")
        exited = await next_event(events)
    assert exited is not None and exited.oom
    assert exited.limit == spec.memory
    (dead,) = await docker_rig.engine().list()
    assert dead.oom and dead.ended(exited.at) == exited


async def test_a_deaf_replica_is_killed_when_its_time_is_up(docker_rig: DockerRig) -> None:
    engine = docker_rig.engine()
    spec = docker_rig.spec()
    await engine.start(spec)
    await say(docker_rig, engine, spec, "deaf", b"deaf")
    await engine.stop(spec.id, 1)
    assert docker_rig.traces(spec.id) == []


async def test_an_image_that_is_gone_is_said_so(docker_rig: DockerRig) -> None:
    spec = docker_rig.spec(artifact=Artifact(image="sha256:" + "0" * 64, ref="fngw/Model:1"))
    with pytest.raises(StartFailed, match="fngw/Model:1 is gone") as caught:
        await docker_rig.engine().start(spec)
    assert caught.value.code == "image_missing"


@pytest.fixture
async def cdi(tmp_path: Path) -> AsyncIterator[tuple[CdiEngine, str]]:
    proxy = CdiEngine(engine_address(), {f"nvidia.com/gpu={NO_SUCH_GPU}"})
    async with proxy.serve(tmp_path / "cdi.sock") as url:
        yield proxy, url


async def test_where_there_is_no_hook_gpus_are_asked_for_by_their_cdi_names(
    cdi: tuple[CdiEngine, str], docker_rig: DockerRig
) -> None:
    proxy, url = cdi
    engine = docker_rig.engine(url=url)
    for _ in range(2):
        instance = await engine.start(docker_rig.spec(gpus=(NO_SUCH_GPU,)))
        assert instance.running and instance.gpus == (NO_SUCH_GPU,)
    assert [request["Driver"] for request in proxy.asked] == ["nvidia", "cdi", "cdi"]  # learnt at the first
    assert proxy.asked[1] == {"Driver": "cdi", "DeviceIDs": [f"nvidia.com/gpu={NO_SUCH_GPU}"]}
    unknown = docker_rig.spec(gpus=("GPU-unheard-of",))
    with pytest.raises(StartFailed) as caught:
        await engine.start(unknown)
    assert caught.value.code == "gpu_runtime_missing" and "nvidia-ctk cdi generate" in caught.value.hint
    assert docker_rig.traces(unknown.id) == []


async def test_a_gpu_that_cannot_be_given_is_said_so(docker_rig: DockerRig) -> None:
    with pytest.raises(StartFailed) as caught:
        await docker_rig.engine().start(docker_rig.spec(gpus=(NO_SUCH_GPU,)))
    # Where NVIDIA's runtime is installed, it is the one that refuses: it knows no such device.
    assert caught.value.code == "gpu_runtime_missing" or NO_SUCH_GPU in caught.value.message


async def test_what_a_dead_controller_left_half_made_is_made_anew(docker_rig: DockerRig) -> None:
    engine = docker_rig.engine()
    spec = docker_rig.spec()
    await engine.start(spec)
    labels = docker_rig.container(spec.id).labels
    await engine.stop(spec.id, 0)
    name = f"fngw-{spec.deployment}-{spec.id}"
    docker_rig.client.containers.create(spec.artifact.image, name=name, labels=labels)
    assert [(i.running, i.exit_code) for i in await engine.list()] == [(False, None)]
    assert (await engine.start(spec)).running


async def test_a_cancelled_start_leaves_nothing(docker_rig: DockerRig) -> None:
    engine = docker_rig.engine()
    spec = docker_rig.spec()
    starting = asyncio.create_task(engine.start(spec))
    await eventually(lambda: docker_rig.traces(spec.id), "its container")
    starting.cancel()
    await asyncio.wait({starting})
    assert starting.cancelled()
    assert docker_rig.traces(spec.id) == []


async def test_cleanup_removes_the_network_unless_it_is_used(docker_rig: DockerRig) -> None:
    engine = docker_rig.engine()
    spec = docker_rig.spec()
    await engine.start(spec)
    network = f"fngw-{docker_rig.installation}"
    await engine.cleanup()
    assert docker_rig.client.networks.list(names=[network])
    await engine.stop(spec.id, 0)
    await engine.cleanup()
    assert not docker_rig.client.networks.list(names=[network])


# -- an engine that goes away -----------------------------------------------------------------------------


class Wire:
    """A Unix socket that leads to the engine, and can be cut."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def mend(self) -> None:
        self._server = await asyncio.start_unix_server(self._carry, self.path)

    async def cut(self) -> None:
        assert self._server is not None
        self._server.close()
        self.path.unlink(missing_ok=True)
        for writer in list(self._open):
            writer.transport.abort()
        await self._server.wait_closed()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await _open_engine()
        self._open |= {writer, far_writer}
        with contextlib.suppress(ConnectionError):
            await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
        for end in (writer, far_writer):
            self._open.discard(end)
            end.close()


def engine_address() -> str:
    return os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")


async def _open_engine() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host = urlsplit(engine_address())
    if host.scheme == "unix":
        return await asyncio.open_unix_connection(host.path)
    return await asyncio.open_connection(host.hostname, host.port)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    if not writer.is_closing():
        writer.write_eof()


@pytest.fixture
async def wire(tmp_path: Path) -> AsyncIterator[Wire]:
    wire = Wire(tmp_path / "engine.sock")
    await wire.mend()
    yield wire
    await wire.cut()


async def test_events_missed_while_the_engine_was_away_are_replayed(wire: Wire, docker_rig: DockerRig) -> None:
    engine = docker_rig.engine(url=f"unix://{wire.path}")  # the rig is cleared first, while the wire still leads
    heard, missed = docker_rig.spec(), docker_rig.spec()
    first, second = await engine.start(heard), await engine.start(missed)
    async with contextlib.aclosing(engine.events()) as events:
        assert await next_event(events) is None
        docker_rig.kill(first)
        exited = await next_event(events)
        assert exited is not None and exited.id == heard.id
        await wire.cut()
        docker_rig.kill(second)
        with pytest.raises(EngineUnavailable):
            await engine.list()
        await wire.mend()
        assert await next_event(events) is None
        exited = await next_event(events)
    assert exited is not None and exited.id == missed.id
    assert [i.running for i in await engine.list()] == [False, False]


async def test_an_engine_that_is_away_is_unavailable_with_a_hint(tmp_path: Path) -> None:
    engine = DockerEngine("x", url=f"unix://{tmp_path}/none.sock")
    with pytest.raises(EngineUnavailable) as caught:
        await engine.check()
    assert caught.value.code == "engine_unreachable"
    assert "--engine process" in caught.value.hint
    await engine.close()


# -- choosing ---------------------------------------------------------------------------------------------


async def test_auto_is_docker_where_an_engine_answers(
    docker_client: docker.DockerClient, installation: str, tmp_path: Path
) -> None:
    engine = await choose("auto", installation=installation, run_dir=tmp_path)
    assert engine.name == "docker"
    await engine.close()
