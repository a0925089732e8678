"""``fngw up --detach``: starts ``fngw up`` in a session of its own and returns when it is healthy."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from fngw.errors import FngwError, from_problem
from fngw_state.layout import Layout
from fngw_supervisor import datadir, logs
from fngw_supervisor.lock import LOCK_FILE, Running, already_running, holders
from fngw_supervisor.say import Say

#: Until the gateway is healthy: twice what ``up`` itself calls slow.
READY_S = 120.0
_LOG_FILE = "up.log"
_LOG_LINES = 30
READY = b"ready\n"
_STOP_S = 30.0


def detach(layout: Layout, say: Say, argv: Sequence[str] | None = None, ready_s: float = READY_S) -> Running:
    """Start fngw in the background; return what runs.

    Args:
        layout: where; the output goes to ``<data>/logs/up.log``.
        say: told where it listens.
        argv: the command that runs it; the number of a file descriptor is added, for it to write ``READY`` to, or
            what is in the way, as a problem document.
        ready_s: seconds until it must be healthy.

    Raises:
        FngwError: ``already_running``; what else is in the way; or ``up_failed`` with the end of the log.
    """
    datadir.prepare(layout)
    path = layout.data / LOCK_FILE
    running = Running.read(path)
    if running and running.pid in holders(path):
        raise already_running(running, path)
    log = layout.logs / _LOG_FILE
    begin = logs.size(log)
    problem = _start(argv or (sys.executable, "-P", "-m", "fngw_supervisor", "up", "--ready-fd"), log, ready_s)
    if problem:
        detail = "\n".join(logs.tail(log, _LOG_LINES, since=begin))
        raise FngwError(f"fngw {problem}", code="up_failed", detail=detail, hint=f"its whole log: {log}")
    running = Running.read(path)
    if running is None:
        raise FngwError("fngw was stopped as soon as it had started", code="up_failed", hint=f"its log: {log}")
    say("ready", f"{running.url} (engine {running.engine}, process {running.pid}); `fngw down` stops it")
    say("log", str(log))
    return running


def _start(argv: Sequence[str], log: Path, ready_s: float) -> str:
    """Start the process and wait for its word; return what went wrong, or nothing."""
    heard, told = os.pipe()
    try:
        with log.open("ab") as output:
            process = subprocess.Popen(
                [*argv, str(told)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=(told,),
                start_new_session=True,
            )
        os.close(told)
        return _listen(heard, process, ready_s)
    finally:
        os.close(heard)


def _listen(heard: int, process: subprocess.Popen[bytes], ready_s: float) -> str:
    if not select.select([heard], [], [], ready_s)[0]:
        _stop(process)
        return f"was not healthy after {ready_s:g} s, and was stopped"
    word = os.read(heard, len(READY))
    if word == READY:
        process.returncode = 0  # it goes on without us: nobody will wait for it
        return ""
    with os.fdopen(os.dup(heard), "rb") as rest:
        problem = word + rest.read()
    code = process.wait()  # its end of the pipe is closed: it ended
    if problem:
        raise from_problem(json.loads(problem))
    return f"ended with code {code} instead of starting"


def _stop(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()  # its parts are told by the kernel
        process.wait()
