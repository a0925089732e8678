"""What user code returned, as an HTTP answer (contract section 3)."""

from __future__ import annotations

import collections.abc
import datetime
import inspect
import json
import sys
from typing import Any, AsyncIterator, Tuple

from fngw.errors import FngwError
from fngw_runtime.inbox import Inbox
from fngw_runtime.replies import Outbox, Scope, send_body
from fngw_runtime.reports import describe
from fngw_runtime.threads import Threads

__all__ = ["encode", "is_response", "is_stream", "send_result"]

TEXT = "text/plain; charset=utf-8"
BINARY = "application/octet-stream"
_END = object()


async def send_result(result: Any, scope: Scope, inbox: Inbox, outbox: Outbox, threads: Threads) -> None:
    """Send what user code returned.

    Raises:
        FngwError: with code ``unserialisable_result``, before anything is sent or in the midst of a stream.
    """
    if is_response(result):
        inbox.release()  # it reads `http.disconnect` itself, and its background tasks outlive the client
        await result(scope, inbox.receive, outbox)
    elif is_stream(result):
        await _send_stream(result, inbox, outbox, threads)
    else:
        inbox.release()
        body, content_type = encode(result)
        await send_body(outbox, 200, [body], content_type)


def is_response(result: Any) -> bool:
    """Whether it is a Starlette ``Response``. Who returns one has imported the module; nobody else pays for it."""
    module = sys.modules.get("starlette.responses")
    return module is not None and isinstance(result, module.Response)


def is_stream(result: Any) -> bool:
    """Whether it is a generator or another iterator, synchronous or not."""
    return isinstance(result, (collections.abc.Iterator, collections.abc.AsyncIterator))


def encode(result: Any) -> Tuple[Any, str]:
    """Return the body and the content type of a plain value.

    Raises:
        FngwError: with code ``unserialisable_result``.

    Example:
        >>> encode({"a": 1})
        (b'{"a":1}', 'application/json')
    """
    if result is None:
        return b"", ""
    if isinstance(result, str):
        return result.encode("utf-8", "surrogatepass"), TEXT
    if isinstance(result, (bytes, bytearray, memoryview)):
        return bytes(result), BINARY
    try:
        text = json.dumps(result, default=_plain, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode(), "application/json"
    except (TypeError, ValueError, RecursionError) as error:
        raise unserialisable(
            f"returned a {type(result).__name__} that JSON cannot hold: {describe(error)}",
        ) from error


def unserialisable(message: str) -> FngwError:
    """Return the error of a value that cannot be sent."""
    hint = "return None, bytes, str, a generator of those, a Starlette Response, or what JSON can hold"
    return FngwError(message, code="unserialisable_result", hint=hint)


def _plain(value: Any) -> Any:
    """What JSON has no word for. NumPy is known by its shape: importing it here would cost those without it."""
    if hasattr(value, "dtype") and hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is not JSON serialisable")


async def _send_stream(result: Any, inbox: Inbox, outbox: Outbox, threads: Threads) -> None:
    """Send chunk by chunk. The first decides the content type; an error before it is still a clean 500."""
    is_async = isinstance(result, collections.abc.AsyncIterator)
    inbox.watch(cancel=is_async)
    chunks = _async_chunks(result) if is_async else _sync_chunks(result, inbox, threads)
    try:
        async for chunk in chunks:
            body, content_type = _chunk(chunk)
            if not outbox.started:
                headers = [(b"content-type", content_type.encode())]
                await outbox({"type": "http.response.start", "status": 200, "headers": headers})
            await outbox({"type": "http.response.body", "body": body, "more_body": True})
    finally:
        await chunks.aclose()  # type: ignore[attr-defined]
    inbox.release()
    if not outbox.started:
        await send_body(outbox, 200, [], TEXT)
    elif not inbox.gone:
        await outbox({"type": "http.response.body", "body": b"", "more_body": False})


async def _async_chunks(iterator: AsyncIterator[Any]) -> AsyncIterator[Any]:
    try:
        async for chunk in iterator:
            yield chunk
    finally:
        if inspect.isasyncgen(iterator):
            await iterator.aclose()


async def _sync_chunks(iterator: Any, inbox: Inbox, threads: Threads) -> AsyncIterator[Any]:
    """Step a synchronous iterator in threads. It cannot be interrupted: it is closed after the present chunk."""
    stepping = False
    try:
        while not inbox.gone:
            stepping = True
            chunk = await threads.call(next, iterator, _END)
            stepping = False
            if chunk is _END:
                return
            yield chunk
    finally:
        if not stepping and hasattr(iterator, "close"):
            await threads.call(iterator.close)


def _chunk(chunk: Any) -> Tuple[bytes, str]:
    if isinstance(chunk, str):
        return chunk.encode(), TEXT
    if isinstance(chunk, (bytes, bytearray, memoryview)):
        return bytes(chunk), BINARY
    raise unserialisable(f"yielded a {type(chunk).__name__}; a stream is made of str or bytes")
