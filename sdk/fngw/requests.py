"""A Starlette ``Request`` as an argument of a call: it travels as the plain part of its scope and its body.

Starlette is never imported here; where a request is passed, it already is.

Standard library only, Python >= 3.7: this module is copied into replica images.
"""

from __future__ import annotations

import asyncio
import copyreg
import sys
from concurrent.futures import Future
from typing import Any, Dict, Optional, Tuple

from fngw.errors import ValidationError

__all__ = ["is_unread", "reading"]

#: What of an ASGI scope travels; the rest are objects of the server, or of an application around it.
PLAIN = (
    "type asgi http_version method scheme path raw_path query_string root_path headers client server path_params"
).split()


def is_unread(value: Any) -> bool:
    """Tell whether ``value`` is a request whose body has to be read before it can be sent."""
    request_class = _request_class()
    return request_class is not None and isinstance(value, request_class) and not hasattr(value, "_body")


def reading(request: Any) -> Future[Any]:
    """Begin to read the body of ``request`` on the running event loop, which must be its own.

    Raises:
        ValidationError: no event loop runs in this thread.
    """
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        raise ValidationError(
            "a Request was passed to a handle from a thread, where its body cannot be read",
            code="request_unread",
            hint="make the method async, or pass on what is needed of the request",
        ) from None
    done: Future[Any] = Future()
    task = loop.create_task(request.body())
    task.add_done_callback(lambda t: _settle(done, t))
    return done


def _settle(done: Future[Any], task: asyncio.Task[Any]) -> None:
    if task.cancelled():
        done.cancel()
    elif task.exception() is not None:
        done.set_exception(task.exception())
    else:
        done.set_result(None)


def _request_class() -> Optional[type]:
    """Return Starlette's class, once it is loaded, and teach pickle to write its instances."""
    module = sys.modules.get("starlette.requests")
    found: Optional[type] = getattr(module, "Request", None)
    if found is not None and found not in copyreg.dispatch_table:
        copyreg.pickle(found, _reduce)
    return found


def _reduce(request: Any) -> Tuple[Any, ...]:
    if not hasattr(request, "_body"):
        raise ValidationError(
            "a Request whose body was not read cannot be sent inside of another value",
            code="request_unread",
            hint="pass the Request itself as an argument, or `await request.body()` first",
        )
    scope = {key: request.scope[key] for key in PLAIN if key in request.scope}
    return (_rebuild, (scope, bytes(request._body)))


def _rebuild(scope: Dict[str, Any], body: bytes) -> Any:
    from starlette.requests import Request

    async def receive() -> Dict[str, Any]:
        return {"type": "http.disconnect"}  # the body is there already

    request = Request(scope, receive)
    request._body = body
    return request
