"""The soak's accounts: every request is right, explained by a fault, or held against fngw."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator

from soak_requests import Answer, Request, check

__all__ = ["Book"]

#: A death explains losses of requests that began so long after it: the gateway may not have heard of it yet.
NEWS_S = 1.0
#: Complaints that are kept as text; all are counted.
MOST_TOLD = 20


class Book:
    """What became of every request.

    ``done`` counts requests. ``complaints`` are failures that nothing explains.
    """

    def __init__(self) -> None:
        self.done = 0
        self.outcomes: dict[str, Counter[str]] = {}
        self.faults: Counter[str] = Counter()
        self.complaints: Counter[str] = Counter()
        self.told: list[str] = []
        self.closed = False
        self._deaths: list[float] = []
        self._marks: list[tuple[int, asyncio.Future[None]]] = []

    def death(self) -> None:
        """A replica of ``frail`` is about to be killed."""
        self._deaths.append(time.perf_counter())

    def fault(self, name: str) -> None:
        """A fault was caused."""
        self.faults[name] += 1

    def enter(self, request: Request, found: Answer, began: float) -> None:
        """Judge an answer.

        Args:
            request: what was asked.
            found: what came.
            began: when it was asked, on ``time.perf_counter``.

        Raises:
            Wrong: the answer is not to this request.
        """
        if check(request, found):
            if request.outcome == "right":
                self.count(request.kind, "right")
            else:
                self._complain(request, found, f"answered, where {request.outcome} was due")
        elif self._as_due(request, found):
            self.count(request.kind, "504, as due" if found.whole else "cut, as due")
        else:
            self._lost(request, found, began)

    def count(self, kind: str, outcome: str) -> None:
        """Enter a request whose end is clear."""
        self.done += 1
        self.outcomes.setdefault(kind, Counter())[outcome] += 1
        if self._marks:
            self._pass_marks(self.done)

    async def reached(self, count: int) -> None:
        """Wait until so many requests are done, or the book is closed."""
        if self.done < count and not self.closed:
            mark: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._marks.append((count, mark))
            await mark

    def close(self) -> None:
        """No more requests will come."""
        self.closed = True
        self._pass_marks(sys.maxsize)

    def _pass_marks(self, done: int) -> None:
        for count, mark in self._marks:
            if count <= done and not mark.done():
                mark.set_result(None)
        self._marks = [(count, mark) for count, mark in self._marks if count > done]

    def rows(self) -> Iterator[tuple[str, str, str]]:
        """Return kind, count and outcome, the most frequent kinds first."""
        for kind, counts in sorted(self.outcomes.items(), key=lambda item: -sum(item[1].values())):
            for outcome, count in counts.most_common():
                yield kind, f"{count}", outcome

    def _as_due(self, request: Request, found: Answer) -> bool:
        if found.status == 200 and not found.whole:
            return request.outcome in ("cut", "late")
        return request.outcome in ("504", "late") and found.status == 504 and _code(found) == "timeout"

    def _lost(self, request: Request, found: Answer, began: float) -> None:
        """No answer, or half of one: a death of the replica explains it, unless the gateway could have repeated."""
        died = request.deployment == "frail" and any(at > began - NEWS_S for at in reversed(self._deaths))
        begun = found.status == 200 and not found.whole
        if died and begun:
            self.count(request.kind, "cut by a death")
        elif died and not request.idempotent and found.status == 502 and _code(found) == "replica_lost":
            self.count(request.kind, "502 by a death")
        else:
            self._complain(request, found, "lost beside a death" if died else "lost without a death")

    def _complain(self, request: Request, found: Answer, why: str) -> None:
        what = f"{request.deployment}, {request.kind}: {why}: {found.status or 'nothing'} {_code(found)}"
        self.complain(what, f"{request.number} {what}: {found.body[:300]!r} ({len(found.body)} bytes)")
        self.count(request.kind, why)

    def complain(self, what: str, detail: str) -> None:
        """Keep what nothing explains."""
        self.complaints[what] += 1
        if len(self.told) < MOST_TOLD:
            self.told.append(detail)


def _code(found: Answer) -> str:
    if not found.whole or found.fields.get(b"content-type") != b"application/problem+json":
        return ""
    return str(json.loads(found.body).get("code", ""))
