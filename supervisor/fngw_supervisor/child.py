"""One child process, in a session of its own, that cannot outlive this process.

The kernel sends the child SIGTERM when the thread that forked it dies (PR_SET_PDEATHSIG, prctl(2)): also when this
process is killed by SIGKILL. Children are therefore started from the main thread alone.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

_PR_SET_PDEATHSIG = 1
# Loaded here, not in the child: between fork and exec as little as possible may happen.
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def _die_with(parent: int) -> Callable[[], None]:
    """Return what the child does before exec: ask for the signal, then see whether the parent is still there."""

    def before_exec() -> None:
        if _libc is not None:
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before the signal was asked for
            os._exit(1)

    return before_exec


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
            preexec_fn=_die_with(os.getpid()),
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
