"""Goes on trying what only an absent Redis or engine prevents: what a replica's life needs must not get lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from fngw_controller.engines.base import EngineError, EngineUnavailable
from fngw_state.store import LOST

log = logging.getLogger(__name__)

RETRY_S = 0.3

T = TypeVar("T")


async def patiently(what: str, act: Callable[[], Awaitable[T]], *, on: type[EngineError] = EngineUnavailable) -> T:
    """Return what ``act`` returns, as soon as Redis and the engine let it.

    Args:
        what: for the log, once per absence.
        act: may run any number of times.
        on: the engine's errors that are worth another try.

    Raises:
        whatever else ``act`` raises.
    """
    told = False
    while True:
        try:
            return await act()
        except (*LOST, on) as error:
            if not told:
                log.warning("%s has to wait: %s", what, error)
            told = True
        await asyncio.sleep(RETRY_S)
