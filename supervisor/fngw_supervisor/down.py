"""``fngw down``: stops the fngw of a data directory and waits until all of it is gone."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from fngw.errors import FngwError
from fngw_supervisor.lock import LOCK_FILE, Running, holders, is_free
from fngw_supervisor.say import Say

#: More than all grace times of an ordered stop together.
DEADLINE_S = 150.0
_POLL_S = 0.05


def down(data: Path, say: Say, deadline_s: float = DEADLINE_S) -> bool:
    """Stop what runs on a data directory; tell whether anything did.

    Args:
        data: the data directory.
        say: told what happens.
        deadline_s: seconds to wait for the end.

    Raises:
        FngwError: ``still_running`` after the deadline, or ``not_allowed``.
    """
    path = data / LOCK_FILE
    if is_free(path):
        say("down", f"no fngw is running on {data}")
        return False
    running, held = Running.read(path), holders(path)
    supervised = running is not None and running.pid in held
    targets = [running.pid] if running is not None and supervised else held
    if not targets:
        raise FngwError(
            f"the fngw on {data} belongs to another user", code="not_allowed", hint="stop it as that user"
        )
    say("down", f"stopping fngw on {data}: process {', '.join(map(str, targets))}")
    for pid in targets:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    _wait(path, deadline_s)
    say("down", "stopped")
    return True


def _wait(path: Path, deadline_s: float) -> None:
    deadline = time.monotonic() + deadline_s
    while not is_free(path):
        if time.monotonic() > deadline:
            pids = ", ".join(map(str, holders(path)))
            raise FngwError(
                f"fngw on {path.parent} is still stopping after {deadline_s:g} s: processes {pids}",
                code="still_running",
                hint="run `fngw down` again to stop it at once, or see the logs in " + str(path.parent / "logs"),
            )
        time.sleep(_POLL_S)
