"""Calls by handle: a frame with ``(args, kwargs)`` in, a frame with the result or the error out."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
from typing import Any, List, Optional

from fngw import protocol
from fngw.errors import RemoteError
from fngw_runtime.encode import is_stream
from fngw_runtime.failures import Failures, request_id
from fngw_runtime.inbox import Inbox
from fngw_runtime.invoke import invoke
from fngw_runtime.load import USER_ERRORS
from fngw_runtime.replies import Outbox, Receive, Scope, send_body
from fngw_runtime.reports import describe, user_traceback
from fngw_runtime.target import Method, Target
from fngw_runtime.threads import Threads

__all__ = ["CallFailed", "Calls", "encode_error"]

#: No user code ran: the message says it all.
UNKNOWN_METHOD = "unknown_method"


class CallFailed(Exception):
    """A call that ends with an error frame of ``code``; ``cause`` is what was raised."""

    def __init__(self, code: str, cause: BaseException) -> None:
        super().__init__(code)
        self.code = code
        self.cause = cause


class Calls:
    """Answers ``POST /-/call/<method>``."""

    def __init__(self, target: Target, threads: Threads, failures: Failures) -> None:
        self._target = target
        self._threads = threads
        self._failures = failures

    async def __call__(self, name: str, scope: Scope, receive: Receive, outbox: Outbox) -> None:
        """Answer one call of the method ``name``."""
        frame = await _read(receive)
        if frame is None:
            return  # the caller left before its call was whole
        with Inbox(receive, self._failures) as inbox:
            version = protocol.frame_pickle_protocol(frame)
            try:
                parts = _encode(await self._run(name, frame, inbox), version)
                status, kind = 200, protocol.RESULT_TYPE
            except CallFailed as failure:
                self._failures.log(failure.cause, f"call {name}, request {request_id(scope)}")
                parts = encode_error(failure.code, failure.cause, version)
                status, kind = 500, protocol.ERROR_TYPE
            inbox.release()
            await send_body(outbox, status, parts, kind)

    async def _run(self, name: str, frame: bytearray, inbox: Inbox) -> Any:
        method = self._method(name)
        try:
            args, kwargs = protocol.decode_frame(frame)
        except USER_ERRORS as error:
            raise CallFailed("undecodable_call", error) from error
        try:
            result = await invoke(method, self._threads, inbox, args, kwargs)
        except asyncio.CancelledError as error:
            if inbox.cancelled:
                raise
            raise CallFailed("user_exception", error) from error
        except USER_ERRORS as error:
            raise CallFailed("user_exception", error) from error
        if is_stream(result):
            raise CallFailed("unserialisable_result", _no_streams(name, result))
        return result

    def _method(self, name: str) -> Method:
        try:
            return self._target.method(name)
        except AttributeError as error:
            raise CallFailed(UNKNOWN_METHOD, error) from error


def _no_streams(name: str, result: Any) -> TypeError:
    return TypeError(
        f"{name} returned a {type(result).__name__}, which a handle cannot carry: return a list, "
        "or stream it over HTTP"
    )


async def _read(receive: Receive) -> Optional[bytearray]:
    """Return the whole body. Writable, so that arrays decoded in place are writable, too."""
    body = bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


def _encode(result: Any, version: int) -> List[Any]:
    """Return the result as a frame; by value (cloudpickle) only if plain pickle cannot, as it is slower."""
    try:
        return protocol.encode_frame(result, protocol=version)
    except USER_ERRORS:
        try:
            return protocol.encode_frame(result, by_value=True, protocol=version)
        except USER_ERRORS as error:
            text = f"returned a {type(result).__name__} that cannot be pickled: {describe(error)}"
            raise CallFailed("unserialisable_result", TypeError(text)) from error


def encode_error(code: str, error: BaseException, version: int) -> List[Any]:
    """Return the frame that tells the caller of ``error``; pickled by protocol ``version``."""
    value = {
        "type": type(error).__name__,
        "message": describe(error).partition(": ")[2],
        "traceback": "" if code == UNKNOWN_METHOD else user_traceback(error),
        "cause": _pickled(_innermost(error), version),
        "code": code,
    }
    return protocol.encode_frame(value, protocol=version)


def _innermost(error: BaseException) -> Optional[BaseException]:
    """The original: of an error that came from a further replica, what was raised there."""
    return error.cause if isinstance(error, RemoteError) else error


def _pickled(error: Optional[BaseException], version: int) -> Optional[bytes]:
    """Return the exception as a pickle, or None where it refuses (an open file in it, say): the text remains."""
    if error is None:
        return None
    with contextlib.suppress(*USER_ERRORS):
        return pickle.dumps(error, protocol=version)
    with contextlib.suppress(*USER_ERRORS):
        import cloudpickle  # for exceptions that are known here only, of by-value code

        return bytes(cloudpickle.dumps(error, protocol=version))
    return None
