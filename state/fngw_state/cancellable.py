"""Redis connections that do not lose a cancellation.

redis-py sends each command within ``asyncio.wait_for``, which before Python 3.12 swallows a cancellation that comes
in the moment in which the sending ends (bpo-37658). Whoever loops over commands was then never stopped: one stop of
a busy controller in ten hung.
"""

from __future__ import annotations

import asyncio
from typing import Any

from redis.asyncio import Redis

__all__ = ["cancel", "make_cancellable"]


class _Cancellable:
    """To be mixed into a connection class of redis-py."""

    async def send_packed_command(self, *args: Any, **kwargs: Any) -> None:
        task = asyncio.current_task()
        before = task.cancelling() if task else 0
        await super().send_packed_command(*args, **kwargs)  # type: ignore[misc]
        if task and task.cancelling() > before:
            await self.disconnect(nowait=True)  # type: ignore[attr-defined]  # nobody will read the answer
            raise asyncio.CancelledError


def make_cancellable(redis: Redis) -> Redis:
    """Return the client; its connections, none of which may be open yet, pass every cancellation on."""
    pool = redis.connection_pool
    pool.connection_class = type("CancellableConnection", (_Cancellable, pool.connection_class), {})
    return redis


async def cancel(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks and return once all have ended. They are told again as long as they live: while Redis is away,
    redis-py connects within ``asyncio.wait_for``, too."""
    while alive := {task for task in tasks if not task.done()}:
        for task in alive:
            task.cancel()
        await asyncio.wait(alive, timeout=0.5)
