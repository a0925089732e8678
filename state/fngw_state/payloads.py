"""Bodies too large for Redis: files by content, below ``<data>/payloads``.

A file is written and synced before a record names it, so a record never names a missing one. Records count their
references in Redis; a file that none names goes after a while. Whoever writes one says so in Redis first
(``pin``), and holds the shared lock while looking whether it is there already; whoever removes one holds the
exclusive lock while asking Redis and unlinking. So none is removed under somebody who has just found it.

Files that Redis knows nothing of, as it was emptied or lost its newest writes, are found by a sweep. It tells Redis
of them, as of files that nobody names any more, and removes none itself: there is one way to go.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from fngw_state.layout import hex_of

__all__ = ["Payloads", "digest_of"]

_DRAFT = ".new-"


def digest_of(body: bytes) -> str:
    """Return the name of a body: ``"sha256:<64 hex digits>"``."""
    return "sha256:" + hashlib.sha256(body).hexdigest()


class Payloads:
    """The files below one folder. All of this blocks: call it in a thread.

    Args:
        root: the folder; made when needed.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def path(self, digest: str) -> Path:
        text = hex_of(digest)
        return self._root / text[:2] / text

    def write(self, digest: str, body: bytes) -> None:
        """Have ``body`` on disk, for good."""
        path = self.path(digest)
        with self._locked(fcntl.LOCK_SH):
            if not path.exists():
                path.parent.mkdir(exist_ok=True)
                _write_synced(path, body)

    def read(self, digest: str) -> bytes:
        """Return a body.

        Raises:
            FileNotFoundError: nobody named it for long.
        """
        return self.path(digest).read_bytes()

    def remove(self, digest: str, unwanted: Callable[[], bool]) -> bool:
        """Remove a file if ``unwanted`` says so while nobody can begin to want it; return whether it did."""
        with self._locked(fcntl.LOCK_EX):
            if not unwanted():
                return False
            self.path(digest).unlink(missing_ok=True)
            return True

    def digests(self) -> Iterator[str]:
        """Yield the names of all files."""
        for files in self.files():
            yield from files

    def files(self) -> Iterator[dict[str, int]]:
        """Yield the names and bytes of all files, one folder of them at a time: there may be a million."""
        for folder in sorted(self._root.glob("??")):
            with os.scandir(folder) as entries:
                found = [entry for entry in entries if len(entry.name) == 64]
            yield {f"sha256:{entry.name}": size for entry in found if (size := _size(entry)) is not None}

    def clear_drafts(self) -> int:
        """Remove what a process that died left half-written; return how many files. Nobody writes meanwhile."""
        with self._locked(fcntl.LOCK_EX):
            drafts = list(self._root.glob(f"??/{_DRAFT}*"))
            for draft in drafts:
                draft.unlink()
        return len(drafts)

    @contextlib.contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        self._root.mkdir(parents=True, exist_ok=True)
        lock = os.open(self._root / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, how)
            yield
        finally:
            os.close(lock)


def _size(entry: os.DirEntry[str]) -> int | None:
    try:
        return entry.stat().st_size
    except FileNotFoundError:  # removed meanwhile
        return None


def _write_synced(path: Path, body: bytes) -> None:
    """Write a file so that it is either whole or absent, even after a power cut."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=_DRAFT, delete=False) as file:
        try:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).rename(path)
        except BaseException:
            Path(file.name).unlink()
            raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
