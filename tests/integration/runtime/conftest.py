"""Replicas that end with their test."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .redis_server import RedisServer
from .replica_process import ReplicaProcess
from .websocket_client import Socket


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a path short enough for Unix sockets."""
    path = Path(tempfile.mkdtemp(prefix="fngw-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def start(folder: Path) -> Iterator[Callable[..., ReplicaProcess]]:
    """Start a replica of a target; with ``ready=False`` do not wait for it."""
    replicas: list[ReplicaProcess] = []
    numbers = itertools.count(1)

    def start_one(target: str, *, ready: bool = True, **options: Any) -> ReplicaProcess:
        replica = ReplicaProcess(folder / f"r{next(numbers)}", target, **options)
        replicas.append(replica)
        if ready:
            answer = replica.ready()
            assert answer.status_code == 200, answer.text
        return replica

    yield start_one
    for replica in replicas:
        replica.close()


@pytest.fixture
def connect() -> Iterator[Callable[..., Socket]]:
    """Open WebSockets that are closed after the test."""
    sockets: list[Socket] = []

    def connect_one(replica: ReplicaProcess, path: str, *headers: str) -> Socket:
        sockets.append(Socket(replica, path, *headers))
        return sockets[-1]

    yield connect_one
    for socket in sockets:
        socket.connection.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.client.close()
    server.kill()
