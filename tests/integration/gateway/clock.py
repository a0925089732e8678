"""Time as the gateway's front sees it: it stands still until the test moves it on, however slow the machine is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from fngw_gateway.front import Front

from .wire import eventually


class Timer:
    """What ``call_later`` returns."""

    def __init__(self, due: float, callback: Callable[[], None]) -> None:
        self.due, self.callback, self.cancelled = due, callback, False

    def cancel(self) -> None:
        self.cancelled = True


class Clock:
    """The time of all connections that are made to a gateway of this process from now on.

    ``read`` counts the bytes that they have taken in.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.read = 0
        self._timers: list[Timer] = []
        made, received = Front.connection_made, Front.data_received

        def connection_made(front: Front, transport: Any) -> None:
            front.loop = _Loop(front.loop, self)  # type: ignore[assignment]
            made(front, transport)

        def data_received(front: Front, data: bytes) -> None:
            received(front, data)
            self.read += len(data)

        monkeypatch.setattr(Front, "connection_made", connection_made)
        monkeypatch.setattr(Front, "data_received", data_received)

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        self._timers.append(Timer(self.now + delay, callback))
        return self._timers[-1]

    async def has_read(self, size: int) -> None:
        """Wait until so many bytes, of all connections together, have been taken in."""
        await eventually(lambda: self.read >= size)

    def advance(self, seconds: float) -> None:
        """Let time pass: what is due in it runs, in its order."""
        end = self.now + seconds
        while due := [timer for timer in self._timers if not timer.cancelled and timer.due <= end]:
            first = min(due, key=lambda timer: timer.due)
            self._timers.remove(first)
            self.now = first.due
            first.callback()
        self.now = end


class _Loop:
    """An event loop with another time."""

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Clock) -> None:
        self._loop, self._clock = loop, clock
        self.call_later = clock.call_later

    def time(self) -> float:
        return self._clock.now

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)
