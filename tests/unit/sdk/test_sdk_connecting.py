"""The limit on connecting: a cancellation that comes with the connection is not lost, and leaves nothing open."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fngw import transport


class Opened:
    """A connection that tells whether it was closed."""

    closed = False

    def close(self) -> None:
        self.closed = True


async def opening(gate: asyncio.Event, opened: Any) -> Any:
    await gate.wait()
    return opened


@pytest.mark.parametrize("between", range(4))
async def test_a_cancellation_that_comes_with_the_connection(between: int) -> None:
    gate, opened = asyncio.Event(), Opened()
    waiting = asyncio.create_task(transport._within(60, opening(gate, opened)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    gate.set()
    for _ in range(between):
        await asyncio.sleep(0)
    cancelled = waiting.cancel()
    await asyncio.wait({waiting})
    assert waiting.cancelled() == cancelled
    await asyncio.sleep(0)
    assert opened.closed == cancelled, "an unused one is closed"


async def test_one_that_comes_too_late() -> None:
    async def stubborn() -> Any:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return opened

    opened = Opened()
    assert await transport._within(0.001, stubborn()) is None
    for _ in range(3):
        await asyncio.sleep(0)
    assert opened.closed


async def test_one_that_fails() -> None:
    async def refused() -> Any:
        raise ConnectionRefusedError

    with pytest.raises(ConnectionRefusedError):
        await transport._within(60, refused())
