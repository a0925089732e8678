"""Whoever talks to Redis all the time can be stopped at any moment."""

from __future__ import annotations

import asyncio


async def test_no_cancellation_is_lost_between_commands(site):
    async def busy():
        while True:
            await site.store.last_number()

    for turns in range(200):
        task = asyncio.create_task(busy())
        for _ in range(turns % 25):  # so that it is hit at each of its steps
            await asyncio.sleep(0)
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=60)
        assert done and task.cancelled(), turns
