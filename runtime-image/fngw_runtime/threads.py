"""Run the user's synchronous code off the event loop, and know how much of it is still running."""

from __future__ import annotations

import asyncio
import contextvars
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Callable, Dict, Set

__all__ = ["Threads"]


class Threads:
    """A pool of threads for user code; each call runs in a copy of the caller's context variables.

    Args:
        size: the most threads.
        name: what the threads are called in a debugger.
        loop: made the threads' current event loop where given. ``asyncio.Lock()`` and its like need one to be
            constructed before Python 3.10, and people construct them in ``__init__``.
    """

    def __init__(self, size: int, name: str, loop: Any = None) -> None:
        self._options: Dict[str, Any] = {"thread_name_prefix": name}
        if loop is not None:
            self._options.update(initializer=asyncio.set_event_loop, initargs=(loop,))
        self._pool = ThreadPoolExecutor(size, **self._options)
        self._calls: Set[Future[Any]] = set()

    @property
    def busy(self) -> bool:
        """Whether a call is running or waits for a thread; one whose caller was cancelled may still be."""
        return bool(self._calls)

    def resize(self, size: int) -> None:
        """Let ``size`` threads take the calls that come from now on; what runs goes on where it is."""
        before, self._pool = self._pool, ThreadPoolExecutor(size, **self._options)
        before.shutdown(wait=False)

    async def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Return what ``function`` returns. Cancelling stops the waiting, not the thread."""
        context = contextvars.copy_context()
        future = self._pool.submit(context.run, _run, function, args, kwargs)
        self._calls.add(future)
        future.add_done_callback(self._calls.discard)
        return await asyncio.wrap_future(future)


def _run(function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    try:
        return function(*args, **kwargs)
    except StopIteration as error:
        # A future cannot carry it: before Python 3.12 its waiter would wait for ever.
        raise RuntimeError("StopIteration raised by " + getattr(function, "__qualname__", "a call")) from error
