"""Call user code: coroutines on the loop, all else in threads; and the plain HTTP functions made of that."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any, Dict, Tuple

from fngw.errors import FngwError, RemoteError
from fngw.protocol import REQUEST_ID_HEADER, USER_ERROR_HEADER
from fngw_runtime import root_path
from fngw_runtime.encode import send_result
from fngw_runtime.inbox import Inbox
from fngw_runtime.load import USER_ERRORS
from fngw_runtime.replies import Outbox, Receive, Scope, send_problem
from fngw_runtime.reports import describe, report, user_traceback
from fngw_runtime.target import Method
from fngw_runtime.threads import Threads

__all__ = ["Functions", "answer_error", "invoke", "request_id"]

_REQUEST_ID = REQUEST_ID_HEADER.encode()
_USER_ERROR = [(USER_ERROR_HEADER.encode(), b"1")]


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

    def __init__(self, method: Method, threads: Threads, debug: bool) -> None:
        self._method = method
        self._threads = threads
        self._debug = debug
        self._request: Any = root_path.request_class() if method.takes_argument else None
        self._whole = root_path.starlette_wants_whole_path() if method.takes_argument else True

    async def __call__(self, scope: Scope, receive: Receive, outbox: Outbox) -> None:
        """Answer one HTTP request."""
        if not self._whole:
            root_path.strip(scope)
        with Inbox(receive) as inbox:
            try:
                args = (self._request(scope, inbox.receive),) if self._request else ()
                result = await invoke(self._method, self._threads, inbox, args, {})
                await send_result(result, scope, inbox, outbox, self._threads)
            except asyncio.CancelledError as error:
                if inbox.gone:
                    raise
                await answer_error(error, scope, outbox, self._debug)
            except USER_ERRORS as error:
                inbox.release()
                await answer_error(error, scope, outbox, self._debug)


async def answer_error(error: BaseException, scope: Scope, outbox: Outbox, debug: bool) -> None:
    """Log what user code raised and answer 500; in the midst of an answer, leave it unfinished.

    The server closes a connection whose answer is unfinished, so that nobody takes the part for the whole.
    """
    report(f"{describe(error)} [request {request_id(scope)}]", error)
    if outbox.started:
        return
    if isinstance(error, FngwError) and error.code == "unserialisable_result":
        problem = error
    else:
        problem = RemoteError(describe(error), detail=user_traceback(error) if debug else "")
    await send_problem(outbox, problem, _USER_ERROR)


def request_id(scope: Scope) -> str:
    """Return the id that the gateway gave the request, or ``"-"``."""
    return next((value.decode("latin-1") for name, value in scope["headers"] if name == _REQUEST_ID), "-")
