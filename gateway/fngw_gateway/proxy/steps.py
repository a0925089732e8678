"""Running a request without a task, for as long as it waits for nothing but the answer of a replica.

A task begins in the turn of the event loop after the one that made it, and goes on in the turn after the one in
which what it waited for came. Most requests wait once. They are begun here where they were read, and go on where
their answer was read: two turns, a task and a future less. Whatever waits for anything else goes on in a task, the
very coroutine, from where it was; so does what asks for that (``in_task``), as ``asyncio.timeout`` and what is
built on it want one.

While many are under way, they begin and go on in the loop's next turn all the same: what is written to a replica in
one go wakes it once.
"""

from __future__ import annotations

import asyncio
import logging
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any

__all__ = ["Steps", "current", "in_task", "pause", "tasked"]

log = logging.getLogger(__name__)

#: What a coroutine yields that waits for `Steps.set_result`.
_PAUSE = object()
_NOTHING = object()
#: So many requests of this process at most go on at once.
FEW = 16

_current: Steps | None = None
_under_way = 0


def current() -> Steps | None:
    """Return what runs the coroutine that asks; None: a task does."""
    return _current


@types.coroutine
def pause() -> Generator[object, None, None]:
    """Wait until somebody calls ``set_result`` of what is ``current``."""
    yield _PAUSE


@types.coroutine
def in_task() -> Generator[None, None, None]:
    """Go on in a task."""
    if _current is not None:
        yield


async def tasked(awaitable: Awaitable[None]) -> None:
    """Await something in a task: what is not the proxy's relies on one."""
    await in_task()
    await awaitable


class Steps:
    """Runs one coroutine. Towards what it waits for it is a future, and a task towards who wants to stop it.

    Args:
        coroutine: not begun yet; it does not raise.
        loop: the event loop, which is running.
        ended: told when it has ended.
    """

    __slots__ = ("_coroutine", "_ended", "_loop", "task")

    def __init__(
        self, coroutine: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop, ended: Callable[[Steps], None]
    ) -> None:
        self._coroutine: Coroutine[Any, Any, None] | None = coroutine
        self._loop = loop
        self._ended = ended
        self.task: asyncio.Task[None] | None = None  # once it has become one
        global _under_way
        _under_way += 1

    def go_on(self) -> None:
        """Begin, or go on: at once, or if many are under way, soon."""
        if _under_way <= FEW:
            self.go()
        else:
            self._loop.call_soon(self.go)

    def go(self, error: BaseException | None = None) -> None:
        """Go on, with an error if there is one, until it waits again."""
        global _current
        coroutine, before = self._coroutine, _current
        if coroutine is None or self.task is not None:
            return
        _current = self
        try:
            waits_for = coroutine.send(None) if error is None else coroutine.throw(error)
        except (StopIteration, asyncio.CancelledError):
            self._end()
        except Exception:
            log.exception("a request failed")
            self._end()
        else:
            if waits_for is not _PAUSE:
                self.task = self._loop.create_task(_Rest(coroutine, waits_for))
                self.task.add_done_callback(self._end)
        finally:
            _current = before

    def _end(self, task: object = None) -> None:
        global _under_way
        _under_way -= 1
        self._coroutine = None
        self._ended(self)

    # What a future has.

    def done(self) -> bool:
        """Whether it is too late to go on."""
        return self._coroutine is None

    def set_result(self, result: None) -> None:
        """What it waited for has come."""
        self.go_on()

    # What a task has.

    def cancel(self, msg: object = None) -> None:
        """Have CancelledError raised where it waits."""
        if self.task is not None:
            self.task.cancel(msg)
        else:
            self._loop.call_soon(self._cancel)

    def _cancel(self) -> None:
        if self.task is not None:
            self.task.cancel()
        else:
            self.go(asyncio.CancelledError())

    def uncancel(self) -> None:
        """It has heard."""
        if self.task is not None:
            self.task.uncancel()


class _Rest(Coroutine[Any, Any, None]):
    """A coroutine that was begun elsewhere, for a task: first comes what it waits for already."""

    def __init__(self, coroutine: Coroutine[Any, Any, None], waits_for: object) -> None:
        self._coroutine = coroutine
        self._waits_for = waits_for

    def send(self, value: Any) -> Any:
        waits_for, self._waits_for = self._waits_for, _NOTHING
        return self._coroutine.send(value) if waits_for is _NOTHING else waits_for

    def throw(self, *error: Any) -> Any:
        self._waits_for = _NOTHING
        return self._coroutine.throw(*error)

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, None]:
        raise NotImplementedError("it is for a task alone")
