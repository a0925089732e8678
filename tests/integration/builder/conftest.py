"""A real Redis, real builder processes, and images that are gone afterwards."""

from __future__ import annotations

import contextlib
import io
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import docker
import pytest
from redis import Redis
from redis.exceptions import RedisError
from rq import Worker
from rq.serializers import JSONSerializer

from fngw.spec import digest_of
from fngw_state import builds, keys
from fngw_state.layout import Layout
from fngw_state.records import BuildRequest, BuildResult

DEADLINE_S = 80.0


def waited_for(what: str, condition: Callable[[], Any], deadline_s: float = DEADLINE_S) -> Any:
    """Return the first value of ``condition`` that is true."""
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError(f"not within {deadline_s} s: {what}")


@pytest.fixture
def wait_for() -> Callable[..., Any]:
    return waited_for


class RedisServer:
    """A Redis on a Unix socket of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "redis.sock"
        self.url = f"unix://{self.socket}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        options = {"port": "0", "unixsocket": self.socket, "dir": self.folder, "appendonly": "yes"}
        command = ["redis-server", *(str(x) for k, v in options.items() for x in (f"--{k}", v))]
        self.process = subprocess.Popen([*command, "--save", ""], stdout=subprocess.DEVNULL)
        waited_for("Redis", self._answers)

    def _answers(self) -> bool:
        try:
            with builds.connect(self.url) as connection:
                return bool(connection.ping())
        except (RedisError, OSError):
            return False

    def stop(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()
        self.socket.unlink(missing_ok=True)


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    folder = Path(tempfile.mkdtemp(prefix="fngw-"))
    server = RedisServer(folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)


@pytest.fixture
def connection(redis_server: RedisServer) -> Iterator[Redis]:
    with builds.connect(redis_server.url) as connection:
        yield connection


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(data=tmp_path / "data", run=tmp_path / "run")
    made.create()
    return made


class Builder:
    """One builder process."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.process = process
        self.log = log

    def ready(self, connection: Redis) -> bool:
        """Whether one of its workers waits for work; from then on it also handles signals."""
        mine = self.workers()
        workers = Worker.all(connection, serializer=JSONSerializer)
        return any(w.pid in mine and w.get_state() == "idle" for w in workers)

    def workers(self) -> list[int]:
        """The processes that take builds from the queue."""
        return children(self.process.pid)

    def horses(self) -> list[int]:
        """The processes that its workers forked for builds."""
        return [horse for worker in self.workers() for horse in children(worker)]

    def kill(self) -> None:
        """Like a crash of the machine: the builder and its builds end at once."""
        for pid in [self.process.pid, *self.horses(), *self.workers()]:
            with contextlib.suppress(ProcessLookupError):  # a build may end in this moment
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


def children(pid: int) -> list[int]:
    """The processes that ``pid`` has forked."""
    try:
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


@pytest.fixture
def start_builder(
    redis_server: RedisServer, connection: Redis, layout: Layout, tmp_path: Path
) -> Iterator[Callable[..., Builder]]:
    """Starts builders; ends what is left of them."""
    started: list[Builder] = []

    def start(**variables: str) -> Builder:
        log = tmp_path / f"builder-{len(started)}.log"
        environment = {
            **os.environ,
            "FNGW_REDIS_URL": redis_server.url,
            "FNGW_DATA_DIR": str(layout.data),
            "FNGW_RUN_DIR": str(layout.run),
            **variables,
        }
        with log.open("w") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "fngw_builder"], env=environment, stdout=out, stderr=out, text=True
            )
        started.append(builder := Builder(process, log))
        waited_for("the builder's start", lambda: builder.ready(connection))
        return builder

    yield start
    for builder in reversed(started):
        if builder.process.poll() is None:
            builder.kill()
        print(f"{builder.log.name}:", builder.log.read_text())  # shown when the test failed


class Told:
    """A ``Report`` that keeps what it was told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.steps: dict[str, tuple[int | None, int | None, str]] = {}

    def say(self, line: str) -> None:
        self.lines.append(line)

    def progress(self, step: str, done: int | None = None, total: int | None = None, unit: str = "") -> None:
        self.steps[step] = (done, total, unit)


@pytest.fixture
def report() -> Told:
    return Told()


class Client:
    """Asks for builds as the controller does."""

    def __init__(self, connection: Redis, layout: Layout) -> None:
        self.connection = connection
        self.layout = layout

    def bundle(self, files: Mapping[str, str | bytes]) -> str:
        """Store sources as the SDK would; return the bundle's digest."""
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            for name, content in sorted(files.items()):
                data, info = content.encode() if isinstance(content, str) else content, tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        digest = digest_of(out.getvalue())
        path = self.layout.blob(digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(out.getvalue())
        return digest

    def stalled(self, digest: str) -> Path:
        """Replace a bundle by a pipe, so that its build hangs until somebody writes; return where it was kept."""
        path = self.layout.blob(digest)
        kept = path.with_suffix(".kept")
        path.rename(kept)
        os.mkfifo(path)
        return kept

    def ask(self, request: BuildRequest) -> str:
        """Queue a build afresh; return its key."""
        key = builds.request_key(request)
        self.connection.delete(keys.BUILD + key)
        builds.enqueue(self.connection, request)
        return key

    def result(self, key: str, deadline_s: float = DEADLINE_S) -> BuildResult:
        text: Any = waited_for(f"build {key}", lambda: self.connection.get(keys.BUILD + key), deadline_s)
        return BuildResult.from_json(text)

    def build(self, request: BuildRequest, deadline_s: float = DEADLINE_S) -> BuildResult:
        return self.result(self.ask(request), deadline_s)

    def log(self, key: str) -> list[str]:
        lines: Any = self.connection.lrange(keys.BUILD_LOG + key, 0, -1)
        return [line.decode() for line in lines]

    def building(self, key: str) -> bool:
        return bool(self.connection.exists(keys.BUILD_BEAT + key))


@pytest.fixture
def client(connection: Redis, layout: Layout) -> Client:
    return Client(connection, layout)


@pytest.fixture(scope="module")
def engine() -> Iterator[docker.DockerClient]:
    client = docker.from_env()
    yield client
    client.close()


@pytest.fixture(scope="module")
def base(engine: docker.DockerClient) -> Iterator[str]:
    """A base image's name with ``{python}`` in it, for 3.11 only. Images made on it carry its label, by which they
    are removed afterwards. It stands on fngw/runtime:py3.11; is that missing, run: make images PYTHON=3.11"""
    word = secrets.token_hex(4)
    recipe = f"FROM fngw/runtime:py3.11\nLABEL org.fngw.test={word}\n"
    engine.images.build(fileobj=io.BytesIO(recipe.encode()), tag=f"fngw-test-{word}/runtime:py3.11", rm=True)
    yield f"fngw-test-{word}/runtime:py{{python}}"
    for image in engine.images.list(filters={"label": f"org.fngw.test={word}"}):
        engine.images.remove(image.id, force=True)
