"""Claims on names, between processes and beyond their deaths: a file that its holder has locked.

A claim ends with its holder, however that ends: the kernel drops the lock. So what a claim's file stands for and
nobody holds was abandoned.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SUFFIX = ".claim"
#: Between two looks for a free slot.
POLL_S = 0.1


@contextmanager
def claimed(folder: Path, name: str) -> Iterator[None]:
    """Hold a name for the block; wait for whoever holds it.

    Args:
        folder: where the claims' files are; made when needed.
        name: a file's name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = _path(folder, name)
    file = None
    while file is None:
        file = _take(path, fcntl.LOCK_EX)
    try:
        yield
    finally:
        _drop(path, file)


@contextmanager
def if_free(folder: Path, name: str) -> Iterator[bool]:
    """Hold a name for the block if nobody else does; tell whether that is so."""
    folder.mkdir(parents=True, exist_ok=True)
    path = _path(folder, name)
    file = _take(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        yield file is not None
    finally:
        if file is not None:
            _drop(path, file)


@contextmanager
def one_of(folder: Path, name: str, count: int) -> Iterator[None]:
    """Hold one of ``count`` names for the block; wait while all are held."""
    while True:
        for number in range(count):
            with if_free(folder, f"{name}-{number}") as free:
                if free:
                    yield
                    return
        time.sleep(POLL_S)


def held_since(folder: Path) -> dict[str, float]:
    """Return the names that are held, and the times at which they were claimed, in seconds since the epoch."""
    held = {}
    for path in folder.glob(f"*{SUFFIX}"):
        since = _held_since(path)
        if since is not None:
            held[path.name.removesuffix(SUFFIX)] = since
    return held


@contextmanager
def guard(folder: Path, *, alone: bool) -> Iterator[None]:
    """Be one of many in the block, or alone. For moments only: it is never abandoned, so its file stays."""
    folder.mkdir(parents=True, exist_ok=True)
    file = os.open(folder / "guard", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield
    finally:
        os.close(file)


def _path(folder: Path, name: str) -> Path:
    if not name or "/" in name:
        raise ValueError(f"{name!r} is not a name for a claim")
    return folder / f"{name}{SUFFIX}"


def _take(path: Path, how: int) -> int | None:
    """Lock the file of a claim, and return it; None if somebody else has it, or its file was just removed."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(file, how)
        if _is(path, file):
            os.utime(file)
            return file
    except BlockingIOError:
        pass  # held: the answer is None
    except BaseException:
        os.close(file)
        raise
    os.close(file)
    return None


def _drop(path: Path, file: int) -> None:
    """Remove the file while it is locked: who waits for it finds another, or none, under its name."""
    path.unlink(missing_ok=True)
    os.close(file)


def _is(path: Path, file: int) -> bool:
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    return (found.st_dev, found.st_ino) == (os.fstat(file).st_dev, os.fstat(file).st_ino)


def _held_since(path: Path) -> float | None:
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.fstat(file).st_mtime
    finally:
        os.close(file)
    return None
