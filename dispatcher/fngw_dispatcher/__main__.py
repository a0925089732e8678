"""The dispatcher's process. ``python -m fngw_dispatcher``"""

from __future__ import annotations

import asyncio
import logging
import signal

import uvloop

from fngw_dispatcher.dispatcher import Dispatcher
from fngw_dispatcher.settings import DispatcherSettings
from fngw_state.store import Store, connect


async def _run(settings: DispatcherSettings) -> None:
    store = Store(connect(settings.redis_url))
    dispatcher = Dispatcher(settings, store)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, dispatcher.stop)
    try:
        await dispatcher.run()
    finally:
        await store.close()


def main() -> None:
    """Dispatch calls until a signal."""
    settings = DispatcherSettings()
    logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s")
    uvloop.run(_run(settings))


if __name__ == "__main__":
    main()
