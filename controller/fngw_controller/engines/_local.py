"""Linux processes that need not be this one's children: who they are, when they end, how to signal them.

A process id alone names nothing, because numbers are used again; together with the start time and the boot it does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

#: Where the kernel has no pidfd (before 5.3, or a sandbox without it), the process table is looked at this often.
POLL_S = 0.2


@dataclass(frozen=True)
class Identity:
    """One process, for ever. ``started`` is in clock ticks since the boot (proc(5), field 22 of ``stat``)."""

    pid: int
    started: int
    boot: str


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _stat(pid: int) -> tuple[str, int] | None:
    """Return a process' state letter and start time; None when there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()  # the name before it may hold anything
    return fields[0], int(fields[19])


def identify(pid: int) -> Identity | None:
    """Return who has this process id now, be it a zombie; None when nobody has."""
    stat = _stat(pid)
    return Identity(pid, stat[1], boot_id()) if stat else None


def alive(process: Identity) -> bool:
    """Tell whether it still runs. A zombie does not."""
    stat = _stat(process.pid)
    return stat is not None and stat[0] not in "ZX" and Identity(process.pid, stat[1], boot_id()) == process


async def ended(process: Identity) -> None:
    """Return once the process has ended, be it unreaped."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    except (OSError, AttributeError):
        await _poll(process)
        return
    try:
        if identify(process.pid) == process:  # asked after opening: from here on the descriptor is surely its own
            await _readable(descriptor)
    finally:
        os.close(descriptor)


async def _readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    end = asyncio.Event()
    loop.add_reader(descriptor, end.set)
    try:
        await end.wait()
    finally:
        loop.remove_reader(descriptor)


async def _poll(process: Identity) -> None:
    while alive(process):  # noqa: ASYNC110 (nothing tells; that is what this is for)
        await asyncio.sleep(POLL_S)


def reap(pid: int) -> int | None:
    """Take an ended child's exit code, a signal as 128 + its number; None for another one's child."""
    try:
        result = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        return None
    if result is None:
        return None
    return result.si_status if result.si_code == os.CLD_EXITED else 128 + result.si_status


def signal_process(process: Identity, number: signal.Signals) -> None:
    """Signal it alone; nothing happens when it has ended."""
    if alive(process):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)


def signal_group(process: Identity, number: signal.Signals) -> None:
    """Signal it and its children, also those that outlived it. It has to be the leader of its group.

    A group keeps its number from being used again, so that either it is still this one, or there is none; unless
    a later process has the number, which is looked at first.
    """
    current = identify(process.pid)
    if (current is None and process.boot == boot_id()) or current == process:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)


def now() -> float:
    """Unix seconds."""
    return time.time()
