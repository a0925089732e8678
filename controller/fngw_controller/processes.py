"""Which processes of this machine belong to which replica, and what memory they take: one look at /proc."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Process", "owner", "table"]

PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Process:
    """One process: who started it, the session that it is in, and its resident memory in bytes."""

    parent: int
    session: int
    memory: int


def table(proc: Path = Path("/proc")) -> dict[int, Process]:
    """Return the processes that there are now, by their ids.

    Args:
        proc: where the kernel tells of them.
    """
    found = {}
    for entry in os.scandir(proc):
        if entry.name.isdigit():
            try:
                text = Path(entry.path, "stat").read_text(errors="replace")
            except (FileNotFoundError, ProcessLookupError):  # ended since
                continue
            found[int(entry.name)] = _process(text)
    return found


def _process(stat: str) -> Process:
    """Read proc(5)'s ``stat``: the fields from the third on, after a name that may hold anything."""
    fields = stat.rpartition(")")[2].split()
    return Process(parent=int(fields[1]), session=int(fields[3]), memory=int(fields[21]) * PAGE)


def owner(pid: int, processes: Mapping[int, Process], mains: Mapping[int, str]) -> str | None:
    """Return the replica that a process belongs to; None for a stranger, or one that has ended.

    It does when a replica's main process is among its ancestors. One whose parent has ended has none of these left:
    in a container it was handed to the first process there, which is the main one; elsewhere its session tells.

    Args:
        pid: the process.
        processes: what ``table`` found.
        mains: replicas by their main processes.
    """
    process = processes.get(pid)
    if process is None:
        return None
    for ancestor in _line(pid, processes):
        if ancestor in mains:
            return mains[ancestor]
    return mains.get(process.session)


def _line(pid: int, processes: Mapping[int, Process]) -> list[int]:
    """A process and its ancestors. The table is not of one moment, so that it could even lead in a circle."""
    line: list[int] = []
    while pid in processes and pid not in line:
        line.append(pid)
        pid = processes[pid].parent
    return line
