"""Pub/sub that notices a dead peer.

A message is only a nudge: whoever gets one reads the key behind it. ``watch`` therefore also yields at every
(re)subscription, when a message may have been missed. redis-py's ``health_check_interval`` does not notice a
peer that silently stopped answering on a subscription, so this pings on the subscription itself.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import ResponseError

from fngw_state.store import LOST
from fngw_state.writable import WritesRefused, translated

log = logging.getLogger(__name__)

PING_EVERY_S = 2.0
SILENT_AFTER_S = 5.0
RETRY_S = 0.3


async def watch(redis: Redis, *channels: str) -> AsyncIterator[tuple[str, str] | None]:
    """Yield ``(channel, payload)`` for every message, and None at every (re)subscription; for ever.

    Args:
        redis: a client from ``store.connect``.
        channels: exact channel names.
    """
    while True:
        pubsub = redis.pubsub()
        try:
            await pubsub.subscribe(*channels)
            yield None
            awaited = len(channels)  # confirmations; one more means that redis-py connected again by itself
            last = pinged = time.monotonic()
            while (now := time.monotonic()) - last < SILENT_AFTER_S:
                if now - pinged > PING_EVERY_S:
                    await pubsub.ping()
                    pinged = now
                message = await _next(pubsub)
                if message is not None:
                    last = time.monotonic()
                    if message["type"] == "message":
                        yield message["channel"], message["data"]
                    elif message["type"] == "subscribe":
                        awaited -= 1
                        if awaited < 0 and awaited % len(channels) == 0:
                            yield None
            log.warning("redis: no answer on the subscription for %.0f s; subscribing again", SILENT_AFTER_S)
        except LOST as error:
            log.warning("redis: lost the subscription (%s); subscribing again", error)
        finally:
            with suppress(*LOST):
                await pubsub.aclose()  # type: ignore[no-untyped-call]
        await asyncio.sleep(RETRY_S)


async def _next(pubsub: PubSub) -> dict[str, Any] | None:
    """Return the next message, a ping's answer among them; None when none comes for a while."""
    try:
        message: dict[str, Any] | None = await pubsub.get_message(timeout=PING_EVERY_S / 2)
        return message
    except ResponseError as error:
        if not isinstance(translated(error), WritesRefused):
            raise
        return {"type": "pong"}  # with its disk full, Redis refuses even a ping: a sign of life all the same
