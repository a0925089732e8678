"""One script for many callers at once: those that come while an earlier batch is under way share the next one.

A lone caller waits for nobody. Of a busy gateway's time, most of what it spends on Redis is by the round trip.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoScriptError, ResponseError

from fngw_state.cancellable import cancel
from fngw_state.writable import translated

__all__ = ["Batched"]

MOST = 64

Waiting = tuple[Sequence[str], "asyncio.Future[Any]"]


class Batched:
    """A script without keys of its own.

    Args:
        redis: a client from ``store.connect``.
        text: Lua. It may be run twice for one call, when the connection is lost before the answer.

    Example:
        >>> double = Batched(redis, "return ARGV[1] * 2")
        >>> await asyncio.gather(double(["1"]), double(["2"]))
        [2, 4]
    """

    def __init__(self, redis: Redis, text: str) -> None:
        self._redis: Any = redis
        self._text = text
        self._sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        self._waiting: list[Waiting] = []
        self._task: asyncio.Task[None] | None = None

    async def __call__(self, args: Sequence[str]) -> Any:
        """Run it.

        Raises:
            RedisError, OSError: what the client raises; then it may or may not have run.
        """
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((args, answer))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work(), name="batched script")
        return await answer

    async def close(self) -> None:
        """Give up what is under way."""
        if self._task is not None:
            await cancel(self._task)
        for _, future in self._waiting:
            future.cancel()

    async def _work(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
            try:
                answers = await self._run([args for args, _ in batch])
            except BaseException as error:
                self._fail(batch, error)
                if not isinstance(error, Exception):
                    raise
            else:
                for (_, future), answer in zip(batch, answers, strict=True):
                    _settle(future, answer)

    def _fail(self, batch: list[Waiting], error: BaseException) -> None:
        for _, future in batch:
            if isinstance(error, Exception):
                _settle(future, error)
            else:
                future.cancel()

    async def _run(self, calls: list[Sequence[str]]) -> list[Any]:
        answers = await self._send(calls)
        if not any(isinstance(answer, NoScriptError) for answer in answers):
            return answers
        await self._redis.script_load(self._text)  # Redis was started anew
        again = [n for n, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        for n, answer in zip(again, await self._send([calls[n] for n in again]), strict=True):
            answers[n] = answer
        return answers

    async def _send(self, calls: list[Sequence[str]]) -> list[Any]:
        async with self._redis.pipeline(transaction=False) as pipe:
            for args in calls:
                pipe.evalsha(self._sha, 0, *args)
            return list(await pipe.execute(raise_on_error=False))


def _settle(future: asyncio.Future[Any], answer: Any) -> None:
    if future.done():  # its caller has left
        return
    if isinstance(answer, ResponseError):
        future.set_exception(translated(answer))
    elif isinstance(answer, Exception):
        future.set_exception(answer)
    else:
        future.set_result(answer)
