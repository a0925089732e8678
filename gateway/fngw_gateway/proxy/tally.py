"""What one gateway process counts of the requests for one deployment: plain numbers, 0.5 µs per request.

A ``Row`` is the same as a list, which adds up member by member: over processes, and over their lives.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from operator import add

__all__ = ["BOUNDS", "CLIENT_LEFT", "CODES", "ROW_LENGTH", "Row", "Tally", "add_rows", "without_gauges"]

#: Upper bounds of a request's duration, in seconds; the last bucket has none.
BOUNDS = (0.005, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0, 60.0)
#: How requests ended, by the first digit of their status; 499 (as nginx has it) when the client left without one.
CODES = ("499", "1xx", "2xx", "3xx", "4xx", "5xx")
CLIENT_LEFT = 0

#: Requests by ``CODES``, by duration (``BOUNDS`` and beyond), the sum of durations, in flight, queued.
Row = list[float]
GAUGES = 2
ROW_LENGTH = len(CODES) + len(BOUNDS) + 1 + 1 + GAUGES


class Tally:
    """Counts of one deployment.

    Example:
        >>> tally = Tally()
        >>> tally.under_way += 1
        >>> tally.end(200, 0.003)
    """

    __slots__ = ("_buckets", "_codes", "_seconds", "under_way")

    def __init__(self) -> None:
        self.under_way = 0
        self._codes = [0] * len(CODES)
        self._buckets = [0] * (len(BOUNDS) + 1)
        self._seconds = 0.0

    def end(self, status: int, seconds: float) -> None:
        """A request has ended: with what status (or ``CLIENT_LEFT``), and how long after it came."""
        self.under_way -= 1
        self._codes[status // 100] += 1
        self._buckets[bisect_left(BOUNDS, seconds)] += 1
        self._seconds += seconds

    def end_tunnel(self, status: int) -> None:
        """A WebSocket has ended, or was refused. How long it lived says nothing of how fast it was answered."""
        self.under_way -= 1
        self._codes[status // 100] += 1

    def refuse(self, status: int) -> None:
        """A request was refused at once."""
        self._codes[status // 100] += 1

    @property
    def used(self) -> bool:
        """Whether there was any request."""
        return self.under_way > 0 or any(self._codes)

    def row(self, queued: int) -> Row:
        """Return all numbers.

        Args:
            queued: how many of those under way wait for a replica.
        """
        return [*self._codes, *self._buckets, self._seconds, self.under_way - queued, queued]


def add_rows(tables: Iterable[dict[str, Row]]) -> dict[str, Row]:
    """Return the sums, by deployment."""
    total: dict[str, Row] = {}
    for table in tables:
        for name, row in table.items():
            total[name] = list(map(add, total[name], row)) if name in total else row
    return total


def without_gauges(table: dict[str, Row]) -> dict[str, Row]:
    """Return what remains of a process that is gone: its requests are no longer in flight, nor queued."""
    return {name: [*row[:-GAUGES], *[0] * GAUGES] for name, row in table.items()}
