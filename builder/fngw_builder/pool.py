"""As many builders as there is work for: one always, more while all are busy, up to a limit.

Each is a process of its own with a stock RQ worker in it, forked from this one, which has imported what a build
needs. A builder that takes a job says so; then another is forked, so that a short build need not wait for a long
one. Those beyond the first end when they have been idle for a while.
"""

from __future__ import annotations

import ctypes
import logging
import os
import select
import signal
import time
from collections.abc import Callable
from contextlib import suppress

log = logging.getLogger(__name__)

#: Between a builder's unexpected end and the next one, so that one that always fails does not fill the log.
RESTART_S = 0.5
#: All that a pipe can hold (pipe(7)), so that no line is read in two parts.
PIPE_SIZE = 1 << 16
PR_SET_PDEATHSIG = 1  # prctl(2)
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)

#: Tells the pool whether a builder is busy.
Tell = Callable[[bool], None]
#: One builder's life: whether it stays when idle, and how to tell that it is busy.
Run = Callable[[bool, Tell], None]


class Pool:
    """The builders of this machine.

    Args:
        run: one builder's life, in a process of its own.
        limit: how many there may be at once.
    """

    def __init__(self, run: Run, limit: int) -> None:
        self._run = run
        self._limit = limit
        self._busy: dict[int, bool] = {}  # by process id
        self._first = 0
        self._stopping = False
        self._pid = os.getpid()
        self._reading, self._writing = os.pipe()

    def work(self) -> None:
        """Keep builders until SIGTERM or SIGINT, then stop them and return."""
        os.set_blocking(self._writing, False)  # a signal's handler must never wait
        for number in SIGNALS:
            signal.signal(number, self._on_signal)
        self._grow()
        while self._busy:  # there is always one until it is told to stop
            self._hear()
            self._reap()
            self._grow()

    def _grow(self) -> None:
        if self._stopping:
            return
        if self._first not in self._busy:
            self._first = self._fork(stay=True)
        if all(self._busy.values()) and len(self._busy) < self._limit:
            self._fork(stay=False)

    def _fork(self, stay: bool) -> int:
        pid = os.fork()
        if pid == 0:
            self._live(stay)
        self._busy[pid] = False
        if self._stopping:  # the signal came before this builder was known
            self._terminate(pid)
        return pid

    def _live(self, stay: bool) -> None:
        """A builder's process, to its end."""
        code = 1
        try:
            for number in SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            _end_with(self._pid)
            os.set_blocking(self._writing, True)
            self._run(stay, lambda busy: self._write(f"{os.getpid()} {busy:d}\n"))
            code = 0
        except SystemExit:  # RQ's cold shutdown
            code = 0
        except BaseException:
            log.exception("a builder ended")
        finally:
            logging.shutdown()
            os._exit(code)

    def _write(self, line: str) -> None:
        os.write(self._writing, line.encode())  # atomic, as it is short (PIPE_BUF)

    def _hear(self) -> None:
        """Wait until a builder tells something, or a signal comes."""
        select.select([self._reading], [], [])
        for line in os.read(self._reading, PIPE_SIZE).decode().splitlines():
            pid, _, busy = line.partition(" ")
            if busy and int(pid) in self._busy:
                self._busy[int(pid)] = busy == "1"

    def _reap(self) -> None:
        for pid in list(self._busy):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if not ended:
                continue
            del self._busy[pid]
            if status and not self._stopping:
                log.warning("builder %d ended (wait status %d); starting another", pid, status)
                time.sleep(RESTART_S)

    def _on_signal(self, number: int, frame: object) -> None:
        if number != signal.SIGCHLD:
            self._stopping = True
            for pid in self._busy:
                self._terminate(pid)
        with suppress(BlockingIOError):  # a full pipe wakes as well
            self._write("\n")

    def _terminate(self, pid: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)


def _end_with(parent: int) -> None:
    """Have the kernel send this process SIGTERM when ``parent`` dies, however it does."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        raise SystemExit("the pool died before this builder began")
