"""Counts of all gateway processes of one run directory, as one: whichever is asked answers for all.

Each process has a slot: ``<run>/metrics/<n>.json``, written once a second when something has changed, and
``<n>.lock``, locked for as long as it lives (the kernel lets go of it, however the process ends). A process that
starts takes the first slot that nobody holds, and counts on from what is in it. So counters do not go back when a
process dies, and there are never more slots than there were processes at a time.
"""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import json
import logging
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from fngw_gateway.proxy.tally import ROW_LENGTH, Row, add_rows, without_gauges

__all__ = ["WRITE_EVERY_S", "Metrics"]

log = logging.getLogger(__name__)

WRITE_EVERY_S = 1.0
#: Writing may take this part of the time, however many deployments there are.
MOST_EFFORT = 0.02

Rows = dict[str, Row]


class Counts(Protocol):
    """What a process counts (the data plane)."""

    def counted(self) -> frozenset[str]:
        """The names whose counts are kept: those of the deployments that there are."""

    def rows(self) -> Rows:
        """The counts of this process so far."""


class Metrics:
    """The slot of one gateway process, and the sum of all.

    Args:
        directory: of the slots.
        counts: this process' own.

    Example:
        >>> metrics = Metrics(layout.metrics, plane)
        >>> metrics.start()
        >>> rows = await metrics.total()
    """

    def __init__(self, directory: Path, counts: Counts) -> None:
        self._directory = directory
        self._counts = counts
        self._before: Rows = {}  # what the slot had when it was taken
        self._written: Rows = {}
        self._slot: Path | None = None
        self._lock: int | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Take a slot, and keep it current. Where none can be had, this process counts for itself alone."""
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._slot, self._lock = _take(self._directory)
            found = _read(self._slot)
        except OSError as error:
            log.warning("metrics are of this process alone: %s", error)
            return
        self._before = without_gauges(found)
        if self._before != found:
            self._write(self._before)
        self._task = asyncio.create_task(self._keep_current())

    async def stop(self) -> None:
        """Write for the last time, and let go of the slot."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._write(without_gauges(self._rows()))
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def total(self) -> Rows:
        """Return the sums over all processes: of this one as they are now, of others a second old at most."""
        own = self._rows()
        others = await asyncio.to_thread(self._others)
        return _only(self._counts.counted(), add_rows([own, *others]))

    def _others(self) -> list[Rows]:
        found = []
        for path in self._directory.glob("*.json"):
            if path != self._slot:
                rows = _read(path)
                found.append(rows if _held(path) else without_gauges(rows))
        return found

    def _rows(self) -> Rows:
        return add_rows([self._counts.rows(), self._before])

    async def _keep_current(self) -> None:
        pause = WRITE_EVERY_S
        while True:
            await asyncio.sleep(pause)
            begin = time.perf_counter()
            rows = self._rows()
            if rows != self._written:
                self._before = _only(self._counts.counted(), self._before)
                self._write(rows)
            pause = max(WRITE_EVERY_S, (time.perf_counter() - begin) / MOST_EFFORT)

    def _write(self, rows: Rows) -> None:
        assert self._slot is not None
        draft = self._slot.with_suffix(".new")
        try:
            draft.write_text(json.dumps(rows))
            draft.replace(self._slot)
        except OSError as error:
            log.warning("metrics cannot be written for the other gateways: %s", error)
        self._written = rows


def _only(names: frozenset[str], rows: Rows) -> Rows:
    return {name: row for name, row in rows.items() if name in names}


def _take(directory: Path) -> tuple[Path, int]:
    """Return the first slot that nobody holds, and its lock, to be kept open."""
    for number in itertools.count():
        slot = directory / f"{number}.json"
        lock = os.open(_lock_of(slot), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
        else:
            return slot, lock
    raise AssertionError("there is always another number")


def _held(slot: Path) -> bool:
    """Whether a process holds this slot."""
    with _lock_of(slot).open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _lock_of(slot: Path) -> Path:
    return slot.with_suffix(".lock")


def _read(slot: Path) -> Rows:
    """Return what was written to a slot; nothing when nothing was, or by a gateway that counts otherwise."""
    with suppress(FileNotFoundError):
        rows: Rows = json.loads(slot.read_text())
        if all(len(row) == ROW_LENGTH for row in rows.values()):
            return rows
    return {}
