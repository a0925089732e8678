"""What a build tells while it goes on: lines for its log, and how far each step is."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from fngw_state.records import BuildProgress

#: Between two tellings of how far a step is; people read no faster, and each costs a round trip to Redis.
EVERY_S = 0.2


class Report(Protocol):
    """Takes what a build tells."""

    def say(self, text: str) -> None:
        """Add a line to the build's log, or several."""

    def progress(self, step: str, done: int | None = None, total: int | None = None, unit: str = "") -> None:
        """Tell how far a step is.

        Args:
            step: ``solve``, ``download``, ``link``, ``install``, ``compile``, ``layer``, ``load`` or ``push``.
            done, total: how much of how much, in ``unit``; None when it is not known.
            unit: ``bytes``, ``files`` or ``packages``.
        """


class Throttled:
    """A ``Report`` that passes a step's beginning and end on at once, and what is between a few times a second.

    Args:
        say: takes lines.
        tell: takes progress.
        now: seconds from any start, ever growing.
    """

    def __init__(
        self,
        say: Callable[[str], None],
        tell: Callable[[BuildProgress], None],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.say = say
        self._tell = tell
        self._now = now
        self._told: dict[str, tuple[BuildProgress, float]] = {}  # what and when, by step: some go side by side

    def progress(self, step: str, done: int | None = None, total: int | None = None, unit: str = "") -> None:
        progress, now = BuildProgress(step, done, total, unit), self._now()
        before, at = self._told.get(step, (None, 0.0))
        edge = before is None or (total is not None and done == total)
        if progress != before and (edge or now - at >= EVERY_S):
            self._told[step] = (progress, now)
            self._tell(progress)


class Quiet:
    """A ``Report`` of what goes on beside something else: its lines are passed on, its progress is not.

    Args:
        report: gets the lines.
    """

    def __init__(self, report: Report) -> None:
        self.say = report.say

    def progress(self, step: str, done: int | None = None, total: int | None = None, unit: str = "") -> None:
        """Keep it."""
