"""A Redis client that tells a Redis which takes no writes from one that finds a mistake in them.

With its disk full, Redis goes on answering reads and refuses all writes, until there is space again. So whoever
waits for a lost Redis waits for that, too: the error is a kind of lost connection.
"""

from __future__ import annotations

from typing import Any

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, ResponseError

__all__ = ["Client", "WritesRefused"]

#: What Redis calls it when its append-only file cannot be written.
_UNWRITABLE = "MISCONF "


class WritesRefused(RedisConnectionError):
    """Redis takes no writes: its disk (or its memory) is full. The text is its own."""


def translated(error: ResponseError) -> Exception:
    """Return what an error answer means.

    Example:
        >>> translated(ResponseError("MISCONF Errors writing to the AOF file: No space left on device"))
        WritesRefused('MISCONF Errors writing to the AOF file: No space left on device')
    """
    refused = isinstance(error, OutOfMemoryError) or _UNWRITABLE in str(error)
    return WritesRefused(str(error)) if refused else error


class Client(Redis):
    """A client that raises ``WritesRefused``."""

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send one command."""
        try:
            return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        except ResponseError as error:
            raise translated(error) from None

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> _Commands:
        """Return several commands in one."""
        return _Commands(self.connection_pool, self.response_callbacks, transaction, shard_hint)


class _Commands(Pipeline):
    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        try:
            return list(await super().execute(raise_on_error))
        except ResponseError as error:
            raise translated(error) from None
