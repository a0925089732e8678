"""Replicas that end with their test."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .replica_process import ReplicaProcess


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
