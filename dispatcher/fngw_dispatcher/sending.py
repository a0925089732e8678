"""Sends queued calls through the gateway: its routing, limits, retries and metrics hold for them as for others."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import random
import time

from fngw import protocol
from fngw_dispatcher import outcomes
from fngw_dispatcher.http import Answer, Client, Lost, TooLarge, Unreached
from fngw_dispatcher.outcomes import Clock
from fngw_state.call_records import CallFailure, Claimed, Headers
from fngw_state.call_work import CallWork, Ending
from fngw_state.calls import Calls
from fngw_state.store import LOST

__all__ = ["Sender", "keep"]

log = logging.getLogger(__name__)

RETRY_S = 0.5


class Sender:
    """Sends calls to one gateway."""

    def __init__(self, client: Client, work: CallWork, calls: Calls) -> None:
        self._client = client
        self._work = work
        self._calls = calls

    async def send(self, call: Claimed) -> Ending:
        """Send a call once; return how it goes on."""
        try:
            async with asyncio.timeout(call.timeout_s or None):
                answer = await self._request(call)
        except (Unreached, Lost, TooLarge, TimeoutError, FileNotFoundError) as error:
            return outcomes.of_error(call, error, _clock())
        return await keep(outcomes.of_answer(call, answer, _clock()), self._calls)

    async def _request(self, call: Claimed) -> Answer:
        body = await self._work.body(call)
        return await self._client.send(call.method, call.url, marked(call), body)


def marked(call: Claimed) -> Headers:
    """Return a call's headers with those that tell the function which call and which attempt it is."""
    own = ((protocol.CALL_ID_HEADER, call.id), (protocol.ATTEMPT_HEADER, str(call.attempt)))
    names = {name for name, _ in own}
    return (*((n, v) for n, v in call.headers if n.lower() not in names), *own)


async def keep(ending: Ending, calls: Calls) -> Ending:
    """Write a large result to its file; a call whose result finds no space has failed."""
    if len(ending.body) <= calls.limits.inline:
        return ending
    while True:
        try:
            digest = await calls.store_payload(ending.body)
            break
        except LOST as error:
            log.warning("redis: lost (%s); call %s's result waits", error, ending.id)
            await asyncio.sleep(RETRY_S)
    if digest is None:
        full = CallFailure(
            "calls_full", "its result finds no space among the files of queued calls", at=time.time()
        )
        return Ending(ending.id, ending.token, "failed", error=full)
    return dataclasses.replace(ending, body=b"", digest=digest, size=len(ending.body))


def _clock() -> Clock:
    return Clock(time.time(), random.random)
