"""Byte-compiling an environment that has no Python of its own: in a container of the image that it will lie on.

Sources go in and byte-code comes out as tars, so that the engine may be on another machine. The container has no
network, and nothing of the environment runs in it.
"""

from __future__ import annotations

import io
import logging
import os
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from docker.errors import APIError

from fngw_builder.environment import bytecode, bytecode_cache
from fngw_builder.images import translated
from fngw_builder.report import Report
from fngw_builder.tar_layer import Writer

log = logging.getLogger(__name__)

STAGE, MADE = "/tmp/stage", "/tmp/made"
ROLE = {"org.fngw.role": "compile"}
#: A container that a killed builder left; no compilation takes this long.
ABANDONED_AFTER_S = 3600
#: What one process weighs.
CPU_SHARES = 1024
JOBS = os.cpu_count() or 1
#: Of what the engine sends, at once.
CHUNK = 1 << 20


class ContainerCompiler:
    """A ``bytecode.Compiler``.

    Args:
        client: a connected low-level client of the engine.
        image: the id of the image whose Python compiles.
        interpreter: that Python's path in the image.
        report: gets the progress.
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
        with translated(), self._container() as container:
            with sources(stage) as tar:
                self._client.put_archive(container, "/", tar)
            self._run(container, prefix)
            stream, _ = self._client.get_archive(container, MADE, chunk_size=CHUNK)
            take(stream, stage)

    def _run(self, container: str, prefix: str) -> None:
        line = bytecode.command(self._interpreter, STAGE, prefix, JOBS, MADE)
        script = self._client.exec_create(container, line, environment=bytecode.VARIABLES)["Id"]
        _, said = self._client.exec_start(script, demux=True)
        while (ended := self._client.exec_inspect(script))["Running"]:  # its output may end a moment before it
            time.sleep(0.01)
        status = ended["ExitCode"]
        if status:
            detail = (said or b"").decode(errors="replace")
            raise bytecode.failure(detail or f"{self._interpreter} ended with the status {status}")

    @contextmanager
    def _container(self) -> Iterator[str]:
        """Run a container that waits."""
        self._remove_abandoned()
        container = self._client.create_container(
            self._image,
            entrypoint=[self._interpreter, "-S", "-c"],
            command=[f"import time; time.sleep({ABANDONED_AFTER_S})"],
            user="0:0",
            labels=ROLE,
            # By default, a container gets as much of a busy machine as one process does.
            host_config=self._client.create_host_config(
                network_mode="none", cpu_shares=JOBS * CPU_SHARES, auto_remove=True
            ),
        )["Id"]
        try:
            self._client.start(container)
            yield container
        finally:
            self._end(container)

    def _end(self, container: str) -> None:
        """Kill it; the engine removes it then. Removing it takes seconds, which nothing has to wait for."""
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


@contextmanager
def sources(stage: Path) -> Iterator[IO[bytes]]:
    """Open a tar of all that is to be compiled."""
    with tempfile.TemporaryFile() as file:
        layer = Writer(file)
        layer.directory(MADE.strip("/"))  # even if nothing can be compiled
        modules = bytecode_cache.modules(stage)
        done = bytecode_cache.compiled(stage, modules)
        for path in modules:
            if path not in done:
                with (stage / path).open("rb", buffering=0) as content:
                    size = os.fstat(content.fileno()).st_size
                    layer.regular(f"{STAGE}/{path}".strip("/"), 0o644, size, content)
        yield layer.finish().file


def take(stream: Iterator[bytes], stage: Path) -> None:
    """Write the byte-code of an engine's tar stream to where it belongs in ``stage``."""
    with tarfile.open(fileobj=_Readable(stream), mode="r|") as tar:
        for member in tar:
            if member.isfile() and member.name.endswith(".pyc"):
                content = tar.extractfile(member)
                assert content is not None  # it is a regular file
                path = stage / member.name.partition("/")[2]
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(content.read())


class _Readable(io.RawIOBase):
    """What `tarfile` wants of a stream, over the chunks that docker-py yields."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._left = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while not self._left:
            chunk = next(self._chunks, None)
            if chunk is None:
                return b""
            self._left = chunk
        taken, self._left = self._left[:size], self._left[size:]
        return taken
