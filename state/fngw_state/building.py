"""Asking for a build and following it to its end, from a loop.

The request goes to the RQ queue, the answer comes as a record in Redis. A builder that dies in the middle stops
its beat; then the request is queued again: builds are idempotent.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator

from fngw_state import builds
from fngw_state.records import BuildProgress, BuildRequest, BuildResult
from fngw_state.store import Store

log = logging.getLogger(__name__)

#: A line of a build's log, how far it is, or how it ended.
News = str | BuildProgress | BuildResult

#: Between looks at a build: a share of what it has taken so far, within bounds. One of code alone takes a blink.
POLL_SHARE, POLL_S, SLOW_POLL_S = 0.02, 0.004, 0.2
#: Between looks at whether anybody still works on it.
LIVENESS_POLL_S = 2.0


class Building:
    """The builds that this process waits for.

    Args:
        store: where results appear.
        redis_url: for RQ's own, synchronous client.
    """

    def __init__(self, store: Store, redis_url: str) -> None:
        self._store = store
        self._queue = builds.connect(redis_url)
        self._followed: Counter[str] = Counter()  # by request key

    async def follow(self, request: BuildRequest) -> AsyncGenerator[News, None]:
        """Ask for a build, unless it is under way; yield its log's lines, how far it is, and last its result.

        The builder is asked even when it has answered before: it alone knows whether the base is still the same.
        Close it (``contextlib.aclosing``) when it is left before its end.
        """
        key = builds.request_key(request)
        self._followed[key] += 1
        try:
            if self._followed[key] == 1:
                await self._store.forget_build(key)
            await asyncio.to_thread(builds.ensure, self._queue, request)
            async for news in self._news(request, key):
                yield news
        finally:
            self._followed[key] -= 1
            if not self._followed[key]:
                del self._followed[key]

    async def cancel(self, request: BuildRequest) -> None:
        """Stop a build, unless this process still follows it. Another process that does asks for it again."""
        key = builds.request_key(request)
        if key not in self._followed:
            await asyncio.to_thread(builds.cancel, self._queue, key)

    async def _news(self, request: BuildRequest, key: str) -> AsyncGenerator[News, None]:
        now = asyncio.get_running_loop().time
        seen, began = 0, now()
        looked = began
        known: list[BuildProgress] = []
        while True:
            result, lines, steps = await self._store.build_news(key, seen)
            seen += len(lines)
            for line in lines:
                yield line
            for step in steps:
                if step not in known:
                    yield step
            known = steps
            if result and not _is_cancelled(result):
                yield result
                return
            if result or now() - looked > LIVENESS_POLL_S:
                looked = now()
                if result:  # by somebody who did not know that it is wanted here, too
                    await self._store.forget_build(key)
                if await asyncio.to_thread(builds.ensure, self._queue, request):
                    log.warning("build %s was lost with its builder, or stopped; queued again", key)
                    seen = 0  # its log begins anew, too
            await asyncio.sleep(min(SLOW_POLL_S, max(POLL_S, POLL_SHARE * (now() - began))))

    def close(self) -> None:
        self._queue.close()


def _is_cancelled(result: BuildResult) -> bool:
    return result.error is not None and result.error.get("code") == builds.CANCELLED
