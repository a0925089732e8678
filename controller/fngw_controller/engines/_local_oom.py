"""Whether the kernel has just killed a process for want of memory.

It does not tell whom, but counts (``oom_kill`` in /proc/vmstat, since Linux 4.13). An end by SIGKILL, and a count
that has moved in the seconds before, go together.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

__all__ = ["OomKills", "count"]

#: What is older than this has nothing to do with an end that is seen now.
WINDOW_S = 10.0


def count(vmstat: Path = Path("/proc/vmstat")) -> int:
    """Return how many processes the kernel killed for want of memory; 0 where it does not tell."""
    try:
        found = re.search(r"^oom_kill (\d+)$", vmstat.read_text(), re.M)
    except OSError:
        return 0
    return int(found.group(1)) if found else 0


class OomKills:
    """Remembers the count.

    Args:
        read: returns it.
        clock: seconds.
    """

    def __init__(self, read: Callable[[], int] = count, clock: Callable[[], float] = time.monotonic) -> None:
        self._read = read
        self._clock = clock
        self._seen = [(clock(), read())]

    def look(self) -> None:
        """Take note of the count: to be called every few seconds."""
        now = self._clock()
        self._seen.append((now, self._read()))
        while len(self._seen) > 1 and self._seen[1][0] <= now - WINDOW_S:
            del self._seen[0]

    def just_now(self) -> bool:
        """Whether it has moved since the last look that was at least a few seconds ago."""
        return self._read() > self._seen[0][1]
