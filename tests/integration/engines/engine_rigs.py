"""What the engines' suite needs of each kind: engine objects, specs that run and that do not, and rough hands."""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import docker

from fngw import protocol
from fngw_controller.engines import _container
from fngw_controller.engines.base import Engine, Exited, Instance, ReplicaSpec, StartFailed
from fngw_controller.engines.docker import DockerEngine
from fngw_controller.engines.fake import FakeEngine, FakeWorld
from fngw_controller.engines.process import ProcessEngine
from fngw_state.records import Artifact

DEADLINE_S = 60.0
STANDIN = Path(__file__).with_name("standin_runtime.py")
NO_SUCH_GPU = "GPU-00000000-0000-0000-0000-000000000000"
ids = itertools.count(1)


async def eventually(condition: Callable[[], Any], what: str) -> Any:
    """Return the condition's value once it is true; it may be a coroutine function."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        value = condition()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {DEADLINE_S} s: {what}"
        await asyncio.sleep(0.02)


async def read_until(chunks: AsyncIterator[bytes], wanted: bytes) -> bytes:
    """Return what was read by the time it contains ``wanted``."""
    text = b""
    async with asyncio.timeout(DEADLINE_S), contextlib.aclosing(chunks):  # type: ignore[type-var]
        async for chunk in chunks:
            text += chunk
            if wanted in text:
                return text
    raise AssertionError(f"the log ended without {wanted!r}: {text!r}")


async def read_all(chunks: AsyncIterator[bytes]) -> bytes:
    async with asyncio.timeout(DEADLINE_S):
        return b"".join([chunk async for chunk in chunks])


async def next_event(events: AsyncIterator[Exited | None]) -> Exited | None:
    return await asyncio.wait_for(anext(events), DEADLINE_S)


class Rig(Protocol):
    """One kind of engine under test. Everything it makes is gone after ``clear``."""

    installation: str

    def engine(self, installation: str | None = None) -> Engine: ...
    @property
    def engines(self) -> Sequence[Engine]: ...
    def own_image(self) -> Artifact: ...
    def spec(self, deployment: str = "Greeter", **changes: Any) -> ReplicaSpec: ...
    def broken_spec(self) -> ReplicaSpec: ...
    def order(self, spec: ReplicaSpec, text: str) -> None: ...
    def kill(self, instance: Instance) -> None: ...
    def remove_by_hand(self, id: str) -> None: ...
    def frozen(self, instance: Instance) -> bool: ...
    def traces(self, id: str) -> list[str]: ...
    async def clear(self) -> None: ...


@dataclass
class Base:
    """What rigs have in common."""

    installation: str
    folder: Path
    artifact: Artifact
    engines: list[Engine] = field(default_factory=list)

    def spec(self, deployment: str = "Greeter", **changes: Any) -> ReplicaSpec:
        id = changes.pop("id", f"r{os.getpid():x}{next(ids)}")
        directory = self.folder / "r" / id
        (directory / "standin" / "fngw_runtime").mkdir(parents=True)
        (directory / "standin" / "fngw_runtime" / "__init__.py").touch()
        (directory / "standin" / "fngw_runtime" / "__main__.py").write_text(STANDIN.read_text())
        (self.folder / "shared").mkdir(exist_ok=True)
        env = {"PYTHONPATH": self.seen_from_inside(directory) + "/standin", **changes.pop("env", {})}
        values: dict[str, Any] = {
            "id": id,
            "deployment": deployment,
            "generation": 3,
            "version": "v1",
            "number": 7,
            "artifact": self.artifact,
            "directory": directory,
            "shared": self.folder / "shared",
            "log_file": self.folder / "logs" / f"{id}.log",
            "env": env,
            "cpus": 0.5,
            "memory": None,
        }
        return ReplicaSpec(**{**values, **changes})

    def own_image(self) -> Artifact:
        """An image that replicas run from, and that nobody else has."""
        raise NotImplementedError("only engines that have images")

    def seen_from_inside(self, directory: Path) -> str:
        return str(directory)

    def order(self, spec: ReplicaSpec, text: str) -> None:
        part = spec.directory / "order.part"
        part.write_text(text)
        part.chmod(0o644)
        part.replace(spec.directory / "order")

    async def clear(self) -> None:
        for engine in self.engines:
            for instance in await engine.list():
                await engine.stop(instance.id, 0)
            await engine.cleanup()
            await engine.close()


async def seen(spec: ReplicaSpec) -> Mapping[str, Any]:
    """Return what the stand-in saw at its start."""

    def read() -> Any:
        try:
            return json.loads((spec.directory / "seen.json").read_text())
        except (FileNotFoundError, ValueError):
            return None

    found: Mapping[str, Any] = await eventually(read, f"the start of {spec.id}")
    return found


class FakeRig(Base):
    def __init__(self, installation: str, folder: Path) -> None:
        super().__init__(installation, folder, Artifact(image="fake"))
        self.world = FakeWorld()
        self.broken = 0

    def engine(self, installation: str | None = None) -> Engine:
        engine = FakeEngine(installation or self.installation, world=self.world)
        self.engines.append(engine)
        run = self.world.run

        async def run_and_say_hello(installation: str, spec: ReplicaSpec) -> Any:
            replica = await run(installation, spec)
            self.world.say(spec.id, b"hello\n")
            self.world.say(spec.id, b"from stderr\n")
            return replica

        if len(self.engines) == 1:
            self.world.run = run_and_say_hello  # type: ignore[method-assign]
        return engine

    def own_image(self) -> Artifact:
        return Artifact(image="own", ref="fake/own:1")

    def broken_spec(self) -> ReplicaSpec:
        self.world.refuse("Broken", StartFailed("it is broken"))
        return self.spec("Broken")

    def order(self, spec: ReplicaSpec, text: str) -> None:
        order, _, argument = text.partition(" ")
        if order == "exit":
            self.world.die(spec.id, exit_code=int(argument))
        else:
            self.world.say(spec.id, argument.encode() + b"\n")

    def kill(self, instance: Instance) -> None:
        self.world.die(instance.id, exit_code=137)

    def remove_by_hand(self, id: str) -> None:
        self.world.remove(id)

    def frozen(self, instance: Instance) -> bool:
        return any(r.paused for (_, id), r in self.world.replicas.items() if id == instance.id)

    def traces(self, id: str) -> list[str]:
        return [found for _, found in self.world.replicas if found == id]


class ProcessRig(Base):
    def __init__(self, installation: str, folder: Path) -> None:
        super().__init__(installation, folder, Artifact(image="", python=sys.executable, app_dir=str(folder)))

    def engine(self, installation: str | None = None) -> Engine:
        engine = ProcessEngine(installation or self.installation, self.folder / "processes")
        self.engines.append(engine)
        return engine

    def broken_spec(self) -> ReplicaSpec:
        python = self.folder / "no-python"
        python.write_text("an executable in no known format")
        python.chmod(0o755)
        return self.spec(artifact=Artifact(image="", python=str(python), app_dir=str(self.folder)))

    def kill(self, instance: Instance) -> None:
        assert instance.pid
        os.kill(instance.pid, signal.SIGKILL)

    def remove_by_hand(self, id: str) -> None:
        path = self.folder / "processes" / self.installation / f"{id}.json"
        os.kill(json.loads(path.read_text())["process"]["pid"], signal.SIGKILL)
        path.unlink()

    def frozen(self, instance: Instance) -> bool:
        return Path(f"/proc/{instance.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"

    def traces(self, id: str) -> list[str]:
        files = [str(path) for path in self.folder.glob(f"processes/*/{id}*")]
        return files + [line for line in _environments() if f"/{id}" in line]


def _environments() -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            found += [v for v in path.read_bytes().decode(errors="replace").split("\0") if "FNGW_REPLICA_DIR" in v]
    return found


class DockerRig(Base):
    def __init__(self, installation: str, folder: Path, client: docker.DockerClient, image: str) -> None:
        super().__init__(installation, folder, Artifact(image=image))
        self.client = client
        self.own: list[str] = []

    def engine(self, installation: str | None = None, url: str | None = None) -> Engine:
        engine = DockerEngine(installation or self.installation, url=url)
        self.engines.append(engine)
        return engine

    def seen_from_inside(self, directory: Path) -> str:
        return protocol.CONTAINER_REPLICA_DIR

    def own_image(self) -> Artifact:
        tag = f"fngw-test/{self.installation}:{next(ids)}"
        recipe = f"FROM {self.artifact.image}\nLABEL org.fngw.test={tag}\n"
        image, _ = self.client.images.build(fileobj=io.BytesIO(recipe.encode()), tag=tag, rm=True)
        self.own.append(tag)
        return Artifact(image=str(image.id), ref=tag)

    async def clear(self) -> None:
        await super().clear()
        for tag in self.own:
            with contextlib.suppress(docker.errors.ImageNotFound):
                self.client.images.remove(tag)

    def broken_spec(self) -> ReplicaSpec:
        # A missing program would not do: it is the init that looks for it, in a container that has started.
        return self.spec(gpus=(NO_SUCH_GPU,))

    def kill(self, instance: Instance) -> None:
        self.container(instance.id).kill()

    def remove_by_hand(self, id: str) -> None:
        self.container(id).remove(force=True)

    def frozen(self, instance: Instance) -> bool:
        return bool(self.container(instance.id).status == "paused")

    def traces(self, id: str) -> list[str]:
        return [container.name for container in self._containers(id)]

    def container(self, id: str) -> Any:
        (found,) = self._containers(id)
        return found

    def _containers(self, id: str) -> Any:
        filters = {"label": f"{_container.LABEL_REPLICA}={id}"}
        return self.client.containers.list(all=True, filters=filters, ignore_removed=True)
