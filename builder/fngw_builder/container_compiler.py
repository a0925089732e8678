"""Byte-compiling an environment that has no Python of its own: in a container of the image that it will lie on.

Sources go in and byte-code comes out over the container's standard streams, so that the engine may be on another
machine. There, they lie in memory: files made and removed on the engine's disk would slow down those that it makes
next. The container has no network, nothing of the environment runs in it, and it ends with its streams. Neighbour:
`container_script` is what it runs.
"""

from __future__ import annotations

import io
import logging
import os
import socket
import struct
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from docker.errors import APIError
from docker.types import LogConfig

from fngw_builder import container_script
from fngw_builder.environment import bytecode, bytecode_cache
from fngw_builder.images import translated
from fngw_builder.report import Report

STAGE, MADE = "/tmp/stage", "/tmp/made"
ROLE = {"org.fngw.role": "compile"}
#: A container that a killed builder left before it was started; no compilation takes this long.
ABANDONED_AFTER_S = 3600
#: What one process weighs.
CPU_SHARES = 1024
JOBS = os.cpu_count() or 1
#: Of what an engine sends of a container's streams: which one, and how many bytes follow.
FRAME = struct.Struct("!BxxxL")
OUTPUT = 1
#: Of its errors.
KEPT_LINES = 100

log = logging.getLogger(__name__)


class ContainerCompiler:
    """A ``bytecode.Compiler``.

    Args:
        client: a connected low-level client of the engine.
        image: the id of the image whose Python compiles.
        interpreter: that Python's path in the image.
        report: gets the progress of the step ``compile``, in files.
    """

    def __init__(self, client: Any, image: str, interpreter: str, report: Report) -> None:
        self._client = client
        self._image = image
        self._interpreter = interpreter
        self._report = report

    def compile(self, stage: Path, prefix: str) -> None:
        """See ``bytecode.Compiler``.

        Raises:
            BuildFailed: ``compile_failed``; what the engine says.
        """
        self._report.progress("compile")
        modules = waiting(stage)
        with translated(), self._container(prefix) as connection:
            with suppress(ConnectionError):  # it ended early: it says why
                for path in modules:
                    connection.sendall(container_script.entry(path, (stage / path).read_bytes()))
                connection.sendall(container_script.END)
            with connection.makefile("rb") as frames:
                streams = _Streams(frames, self._report)
                try:
                    take(container_script.read(io.BufferedReader(streams)), stage, modules)
                except EOFError as error:
                    self._client.ping()  # or the engine is what ended
                    said = "\n".join(streams.said)
                    raise bytecode.failure(said or "its container was killed, most often for memory") from error

    @contextmanager
    def _container(self, prefix: str) -> Iterator[socket.socket]:
        """Run a container, and yield the connection to its streams."""
        self._remove_abandoned()
        compile = bytecode.command(self._interpreter, STAGE, prefix, JOBS, MADE)
        script = Path(container_script.__file__).read_text("utf-8")
        container = self._client.create_container(
            self._image,
            entrypoint=[self._interpreter, "-S", "-c", script, STAGE, MADE],
            command=compile,
            user="0:0",
            environment=bytecode.VARIABLES,
            labels=ROLE,
            stdin_open=True,  # as it is not detached, it ends for the container when the connection does
            host_config=self._client.create_host_config(
                network_mode="none",
                # By default, a container gets as much of a busy machine as one process does.
                cpu_shares=JOBS * CPU_SHARES,
                tmpfs={"/tmp": ""},
                log_config=LogConfig(type="none"),  # byte-code is not for a log
                auto_remove=True,
            ),
        )["Id"]
        try:
            streams = dict.fromkeys(("stdin", "stdout", "stderr", "stream"), 1)
            attached = self._client.attach_socket(container, params=streams)
            with closing(attached), closing(getattr(attached, "_sock", attached)) as connection:
                self._client.start(container)
                yield connection
        except BaseException:
            self._end(container)
            raise

    def _end(self, container: str) -> None:
        try:
            self._client.kill(container)
        except APIError as error:
            log.info("the container does not run any more: %s", error)
            with suppress(APIError):  # it is gone, or about to go
                self._client.remove_container(container, force=True, v=True)

    def _remove_abandoned(self) -> None:
        filters = {"label": [f"{k}={v}" for k, v in ROLE.items()]}
        for container in self._client.containers(all=True, filters=filters):
            if time.time() - container["Created"] > ABANDONED_AFTER_S:
                self._client.remove_container(container["Id"], force=True)


class _Streams(io.RawIOBase):
    """A container's standard output, of the frames that its engine sends; ``said`` is the last of its errors.

    Args:
        frames: the connection.
        report: told of the lines of progress that are among the errors.
    """

    def __init__(self, frames: IO[bytes], report: Report) -> None:
        self.said = deque[str](maxlen=KEPT_LINES)
        self._frames = frames
        self._report = report
        self._left = 0  # of the frame that is read
        self._line = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._left:
            header = self._frames.read(FRAME.size)
            if len(header) < FRAME.size:
                return 0
            stream, size = FRAME.unpack(header)
            if stream == OUTPUT:
                self._left = size
            else:
                self._hear(self._frames.read(size))
        view = memoryview(buffer)[: self._left]
        count: int = self._frames.readinto(view)  # type: ignore[attr-defined]  # IO[bytes] lacks it
        self._left -= count
        return count

    def _hear(self, errors: bytes) -> None:
        *lines, self._line = (self._line + errors).split(b"\n")
        for line in (line.decode(errors="replace") for line in lines):
            if not bytecode.relay(line, self._report):
                self.said.append(line)


def waiting(stage: Path) -> list[str]:
    """Return the paths of all that is to be compiled, relative to the stage."""
    modules = bytecode_cache.modules(stage)
    done = bytecode_cache.compiled(stage, modules)
    return [path for path in modules if path not in done]


def take(made: Iterator[tuple[str, bytes]], stage: Path, modules: Iterable[str]) -> None:
    """Write byte-code beside its modules in ``stage``; anything else that a container may send is left out."""
    folders = {path.rpartition("/")[0] for path in modules}
    for path, content in made:
        folder = path.rpartition("/")[0].rpartition("/")[0]
        if bytecode.is_bytecode(path) and folder in folders:
            (stage / path).parent.mkdir(exist_ok=True)
            (stage / path).write_bytes(content)
