"""The places that replicas of one deployment left empty, and why the last of them died."""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Iterable

from fngw_controller.plan import Retry, back_off
from fngw_state.records import Failure, Lost

__all__ = ["Losses"]

#: Deaths that are told in the status of a deployment.
KEPT = 5


class Losses:
    """What is remembered of replicas that did not start, or died."""

    def __init__(self) -> None:
        self._retries: list[tuple[int, Retry]] = []  # with the generation they belong to
        self._deaths: deque[Lost] = deque(maxlen=KEPT)

    @property
    def deaths(self) -> tuple[Lost, ...]:
        """The last that died by themselves."""
        return tuple(self._deaths)

    def died(self, replica_id: str, why: Failure) -> None:
        """Note a death."""
        self._deaths.append(Lost(replica_id, time.time(), why.code, why.message))

    def remember(self, deaths: Iterable[Lost]) -> None:
        """Take over what an earlier controller saw."""
        self._deaths.extend(deaths)

    def retries(self, generation: int) -> tuple[Retry, ...]:
        """The places of one generation that wait to be filled again."""
        return tuple(retry for g, retry in self._retries if g == generation)

    def schedule(self, generation: int, attempt: int, failure: Failure) -> None:
        """Fill a place again, in which so many tries have failed, after a back-off."""
        retry = Retry(attempt, time.time() + back_off(attempt), failure)
        self._retries.append((generation, retry))

    def explain(self, before: Failure, failure: Failure) -> None:
        """Put the reason, with all that was found out since, into the place that waits for its next try."""
        self._retries = [
            (g, dataclasses.replace(r, failure=failure) if r.failure is before else r) for g, r in self._retries
        ]

    def fill(self, generation: int, attempt: int) -> None:
        """A place in which so many tries have failed is being filled."""
        for entry in self._retries:
            if entry[0] == generation and entry[1].attempt == attempt:
                self._retries.remove(entry)
                return

    def forget_retries(self) -> None:
        """No place waits any more."""
        self._retries.clear()
