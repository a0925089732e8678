"""One child process, in a session of its own, that cannot outlive this process.

The kernel sends the child SIGTERM when the thread that forked it dies (PR_SET_PDEATHSIG, prctl(2)): also when this
process is killed by SIGKILL. Children are therefore started from the main thread alone.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Protocol

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
# Loaded here, not in the child: between fork and exec as little as possible may happen.
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


class Child(Protocol):
    """A process that was started here, as ``asyncio.subprocess.Process`` is one."""

    @property
    def pid(self) -> int: ...

    async def wait(self) -> int:
        """Return its exit code, or less than 0 for a signal, once it has ended."""

    def terminate(self) -> None:
        """Send it SIGTERM."""


#: Starts a child, as ``spawn`` does.
Start = Callable[[Sequence[str], Mapping[str, str], Sequence[int], Path], Awaitable[Child]]


def die_with(parent: int) -> None:
    """In a child: ask for the signal, then see whether the parent is still there."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died before the signal was asked for
        os._exit(1)


@contextmanager
def adopting() -> Iterator[None]:
    """Meanwhile, be the parent of all descendants whose own parents end.

    Raises:
        OSError: this kernel cannot do that.
    """
    if _libc is None or _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(errno.ENOSYS, "this kernel gives orphans to nobody")
    try:
        yield
    finally:
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


async def spawn(
    argv: Sequence[str], env: Mapping[str, str], fds: Sequence[int], log: Path
) -> asyncio.subprocess.Process:
    """Start a child that leads its own session and process group and dies with this process.

    Args:
        argv: the program and its arguments.
        env: the whole environment.
        fds: file descriptors that it inherits under the same numbers.
        log: the file that its standard output and error are appended to.

    Raises:
        OSError: the program cannot be started, or the log cannot be written.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("children must be started from the main thread: their death signal follows it")
    with log.open("ab") as output:
        return await asyncio.create_subprocess_exec(
            *argv,
            env=dict(env),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=asyncio.subprocess.STDOUT,
            pass_fds=tuple(fds),
            start_new_session=True,
            preexec_fn=partial(die_with, os.getpid()),
        )


def kill_group(pid: int) -> None:
    """SIGKILL the process group that a child led, be the child itself still there or not."""
    with suppress(ProcessLookupError, PermissionError):  # nobody is left; macOS says EPERM of zombies
        os.killpg(pid, signal.SIGKILL)


def describe_exit(code: int) -> str:
    """Return an exit code in words.

    Example:
        >>> describe_exit(-9), describe_exit(3)
        ('was killed by SIGKILL', 'exited with code 3')
    """
    if code >= 0:
        return f"exited with code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
