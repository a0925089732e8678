"""Call user code: coroutines on the loop, all else in threads; and the plain HTTP functions made of that."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any, Dict, Tuple

from fngw_runtime import root_path
from fngw_runtime.encode import send_result
from fngw_runtime.failures import Failures
from fngw_runtime.inbox import Inbox
from fngw_runtime.load import USER_ERRORS
from fngw_runtime.replies import Outbox, Receive, Scope
from fngw_runtime.target import Method
from fngw_runtime.threads import Threads

__all__ = ["Functions", "invoke"]


async def invoke(
    method: Method, threads: Threads, inbox: Inbox, args: Tuple[Any, ...], kwargs: Dict[str, Any]
) -> Any:
    """Return what the user's code returns. Async code is cancelled when its client leaves."""
    if method.is_coroutine:
        inbox.watch()
        return await method.function(*args, **kwargs)
    if method.is_lazy:
        return method.function(*args, **kwargs)
    result = await threads.call(method.function, *args, **kwargs)
    if inspect.isawaitable(result):
        inbox.watch()
        return await result
    return result


class Functions:
    """Serves HTTP with a function, or the ``__call__`` of a class."""

    def __init__(self, method: Method, threads: Threads, failures: Failures) -> None:
        self._method = method
        self._threads = threads
        self._failures = failures
        self._request: Any = root_path.request_class() if method.takes_argument else None
        self._whole = root_path.starlette_wants_whole_path() if method.takes_argument else True

    async def __call__(self, scope: Scope, receive: Receive, outbox: Outbox) -> None:
        """Answer one HTTP request."""
        if not self._whole:
            root_path.strip(scope)
        with Inbox(receive, self._failures) as inbox:
            try:
                args = (self._request(scope, inbox.receive),) if self._request else ()
                result = await invoke(self._method, self._threads, inbox, args, {})
                await send_result(result, scope, inbox, outbox, self._threads)
            except asyncio.CancelledError as error:
                if inbox.cancelled:
                    raise
                await self._failures.answer(error, scope, outbox)
            except USER_ERRORS as error:
                inbox.release()
                await self._failures.answer(error, scope, outbox)
