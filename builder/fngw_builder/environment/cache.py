"""The caches that environments are built from, kept below a size: what was not used for longest goes first.

``<data>/cache`` holds ``packages`` (conda's, unpacked), ``uv`` (wheels, unpacked, and pages of indexes),
``bytecode`` (of packages) and ``repodata``; ``stage`` and ``locks`` are builds under way. Every build holds a claim
and notes what it uses; what was used since the oldest claim stays. What goes is renamed first, so that nobody sees
it half removed.

Neighbour: `claims`.
"""

from __future__ import annotations

import glob
import json
import logging
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fngw_builder.environment import claims, wheel_files

log = logging.getLogger(__name__)

LOCKS, STAGE, TRASH = "locks", "stage", "trash"
KINDS = ("packages", "uv", "bytecode", "repodata")


@dataclass(frozen=True)
class Entry:
    """Something that can be removed by itself.

    Args:
        path: a folder or a file.
        kind: of `KINDS`.
        size: in bytes, as it occupies the disk.
        used: when it was last used, in seconds since the epoch.
        noted: whether builds note its use. What they do not is not removed while one is under way.
        partial: whether it is a download under way, or what a killed one left.
    """

    path: Path
    kind: str
    size: int
    used: float
    noted: bool = True
    partial: bool = False


class Cache:
    """The caches, and the builds under way, of one data directory.

    Args:
        folder: ``<data>/cache``; made when needed.
        limit: bytes that `trim` leaves.

    Example:
        >>> cache = Cache(data / "cache", 20 << 30)
        >>> with cache.alone("5f0c…"), cache.stage() as folder:
        ...     materialise(lock, target, folder, …)
        >>> cache.trim()
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder = folder
        self._limit = limit

    # Builds under way.

    @contextmanager
    def alone(self, key: str) -> Iterator[None]:
        """Do the block when nobody else does one for the same key."""
        with self._live(claims.claimed(self._locks, key)):
            yield

    @contextmanager
    def slot(self, count: int) -> Iterator[None]:
        """Do the block when fewer than ``count`` others are in one."""
        with self._live(claims.one_of(self._locks, "slot", count)):
            yield

    @contextmanager
    def stage(self) -> Iterator[Path]:
        """Make an empty folder on the caches' disk for the block; its parent is this build's own, too.

        It may be renamed away. Folders that killed builds left are removed first.
        """
        self._sweep()
        name = secrets.token_hex(8)
        with claims.claimed(self._folder / STAGE, name):
            own = self._folder / STAGE / name
            try:
                (own / "env").mkdir(parents=True)
                yield own / "env"
            finally:
                remove(own)

    # Size.

    def sizes(self) -> dict[str, int]:
        """Return the bytes on disk of each kind."""
        sizes = dict.fromkeys(KINDS, 0)
        for entry in self._entries():
            sizes[entry.kind] += entry.size
        return sizes

    def trim(self) -> int:
        """Remove what was not used for longest until the rest is within the limit, and return how many bytes went.

        What builds under way use stays, even above the limit.
        """
        return self._evict(self._limit)

    def prune(self) -> int:
        """Remove everything but what builds under way use, and return how many bytes went."""
        self._sweep()
        return self._evict(0)

    def _evict(self, limit: int) -> int:
        with claims.guard(self._locks, alone=True):
            live = self._oldest_claim()
            victims = choose(list(self._entries()), limit, live)
            for victim in victims:
                self._discard(victim.path)
            self._forget_wheels()
            if limit == 0 and live is None:
                for kind in KINDS:
                    self._discard(self._folder / kind)
        remove(self._folder / TRASH)
        return sum(victim.size for victim in victims)

    def _discard(self, path: Path) -> None:
        trash = self._folder / TRASH
        trash.mkdir(parents=True, exist_ok=True)
        # Beside an unpacked conda package lies a file of that name, which says what it is.
        for old in (path, path.with_name(path.name + ".lock")):
            if os.path.lexists(old):
                old.rename(trash / secrets.token_hex(8))

    def _forget_wheels(self) -> None:
        """Remove uv's notes of wheels that went; they would do no harm, but add up."""
        for notes in self._folder.glob("uv/wheels-v*"):
            for folder, _, names in os.walk(notes):
                for link in (Path(folder, name) for name in names):
                    if link.is_symlink() and not link.exists():
                        for note in link.parent.glob(f"{glob.escape(link.name)}*"):
                            note.unlink(missing_ok=True)

    # What is there.

    def _entries(self) -> Iterator[Entry]:
        measured = _Measured(self._folder / "sizes.json")
        uv = self._folder / "uv"
        for path in self._folder.glob("packages/*/"):
            yield _entry(path, "packages", measured(path), partial=path.name.startswith("."))
        for path in self._folder.glob("bytecode/*/"):
            yield _entry(path, "bytecode", measured(path), partial=path.name.startswith("."))
        for path in uv.glob("archive-v*/*/"):
            yield _entry(path, "uv", measured(path))
        for path in uv.glob(".tmp*"):
            yield _entry(path, "uv", size_of(path), partial=True)
        for path in [*uv.glob("simple-v*/**/*"), *self._folder.glob("repodata/**/*")]:
            if path.is_file():
                yield _entry(path, path.relative_to(self._folder).parts[0], size_of(path), noted=False)
        measured.save()

    def _oldest_claim(self) -> float | None:
        held = [*claims.held_since(self._locks).values(), *claims.held_since(self._folder / STAGE).values()]
        return min(held, default=None)

    def _sweep(self) -> None:
        """Remove what killed builds left of their stages."""
        folder = self._folder / STAGE
        for own in [path for path in folder.glob("*") if path.is_dir()]:
            with claims.if_free(folder, own.name) as abandoned:
                if abandoned:
                    remove(own)

    @contextmanager
    def _live(self, claim: Any) -> Iterator[None]:
        with claim:
            # Whoever removes things now has not seen this claim: let them finish.
            with claims.guard(self._locks, alone=False):
                pass
            yield

    @property
    def _locks(self) -> Path:
        return self._folder / LOCKS


def choose(entries: Iterable[Entry], limit: int, live: float | None) -> list[Entry]:
    """Return what has to go: half-made leftovers, and what was not used for longest. Pure.

    Args:
        entries: all that there is.
        limit: bytes that may stay.
        live: since when the oldest build under way is; None: there is none.
    """

    def removable(entry: Entry) -> bool:
        return live is None or (entry.noted and entry.used < live)

    ordered = sorted(entries, key=lambda entry: (not entry.partial, entry.used, str(entry.path)))
    left = sum(entry.size for entry in ordered)
    victims = []
    for entry in filter(removable, ordered):
        if left > limit or entry.partial:
            victims.append(entry)
            left -= entry.size
    return victims


def use(cache: Path, paths: Iterable[Path]) -> None:
    """Note that entries are used now; those that are not there are ignored.

    Args:
        cache: the folder of the caches.
        paths: of entries.
    """
    with claims.guard(cache / LOCKS, alone=False):
        for path in paths:
            try:
                os.utime(path)
            except FileNotFoundError:
                continue


def size_of(path: Path) -> int:
    """Return the bytes that a file, or a folder with all in it, occupies on the disk."""
    try:
        total = path.lstat().st_blocks * 512
        if path.is_dir() and not path.is_symlink():
            with os.scandir(path) as entries:
                total += sum(_size_of(entry) for entry in entries)
    except FileNotFoundError:
        return 0  # it went meanwhile
    return total


def remove(path: Path) -> None:
    """Remove a folder with all in it, or a file; what cannot be removed is logged and left to the next attempt."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, onerror=_retried)
    else:
        path.unlink(missing_ok=True)
    if os.path.lexists(path):
        log.warning("%s could not be removed completely", path)


class _Measured:
    """The sizes of unpacked packages, kept in a file: they do not change, and a walk over all takes seconds.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._before = _read(path)
        self._now: dict[str, list[int]] = {}

    def __call__(self, folder: Path) -> int:
        key, inode = str(folder.relative_to(self._path.parent)), folder.lstat().st_ino
        known = self._before.get(key, [0, 0])
        self._now[key] = known if known[0] == inode else [inode, size_of(folder)]
        return self._now[key][1]

    def save(self) -> None:
        if self._now != self._before:
            wheel_files.replace(self._path, json.dumps(self._now).encode())


def _read(path: Path) -> dict[str, list[int]]:
    try:
        found: dict[str, list[int]] = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return found


def _entry(path: Path, kind: str, size: int, *, noted: bool = True, partial: bool = False) -> Entry:
    info = path.lstat()
    # The time of the last change cannot be set: unpacking gives files times of its own.
    return Entry(path, kind, size, max(info.st_mtime, info.st_ctime), noted, partial)


def _size_of(entry: os.DirEntry[str]) -> int:
    if entry.is_dir(follow_symlinks=False):
        return size_of(Path(entry.path))
    return entry.stat(follow_symlinks=False).st_blocks * 512


def _retried(function: Callable[[Any], object], path: str, error: Any) -> None:
    """Try again with a folder that may be written to: packages may hold some that may not."""
    try:
        Path(path).parent.chmod(0o700)
        if Path(path).is_dir() and not Path(path).is_symlink():
            Path(path).chmod(0o700)
            shutil.rmtree(path, ignore_errors=True)
        else:
            function(path)
    except OSError as again:
        log.debug("%s: %s", path, again)
