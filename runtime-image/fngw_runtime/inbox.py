"""What the client sends, and the news that it has left: a left client cancels its request.

The server tells of a client that left only to whoever calls ``receive``, which user code seldom does. So once
``watch`` is called, a task receives ahead of the user, up to a limit that keeps back-pressure on uploads.
"""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType
from typing import Deque, Optional, Type

from fngw_runtime.failures import Failures
from fngw_runtime.replies import Message, Receive

__all__ = ["READ_AHEAD", "Inbox"]

#: Bytes of body held for a user who has not asked for them. Behind a larger body a leaving client goes unseen.
READ_AHEAD = 256 * 1024


class Inbox:
    """An ASGI ``receive`` for one request; as a context it ends quietly when its client has left.

    Example::

        with Inbox(receive, failures) as inbox:
            inbox.watch()
            answer = await user_code(Request(scope, inbox.receive))   # cancelled when the client leaves
    """

    def __init__(self, receive: Receive, failures: Failures) -> None:
        self._receive = receive
        self._failures = failures
        self._messages: Deque[Message] = deque()
        self._held = 0
        self._changed: Optional[asyncio.Event] = None  # made when first watched, as most requests never are
        self._pump: Optional[asyncio.Future[None]] = None
        self._cancels: Optional[asyncio.Task[object]] = None  # to cancel when the client leaves
        self._cancelled: Optional[asyncio.Task[object]] = None  # was cancelled, because it left
        self.gone = False

    def watch(self, cancel: bool = True) -> None:
        """Notice from now on when the client leaves; with ``cancel``, cancel the current task then."""
        self._cancels = asyncio.current_task() if cancel else None
        if self._pump is None:
            self._changed = asyncio.Event()
            self._pump = asyncio.ensure_future(self._run(self._changed))
        elif self.gone:
            self._cancel()

    @property
    def cancelled(self) -> bool:
        """Whether its client left, and the request was cancelled for that."""
        return self._cancelled is not None

    def release(self) -> None:
        """Cancel nothing any more: the rest minds its client itself."""
        self._cancels = None

    async def receive(self) -> Message:
        """Return the next message; ``http.disconnect`` again and again once the client has left."""
        if self._changed is None:
            return await self._receive()
        while not self._messages:
            self._changed.clear()
            await self._changed.wait()
        if self._messages[0]["type"] == "http.disconnect":
            return self._messages[0]
        message = self._messages.popleft()
        self._held -= len(message.get("body", b""))
        self._changed.set()
        return message

    async def _run(self, changed: asyncio.Event) -> None:
        while not self.gone:
            while self._held >= READ_AHEAD:
                changed.clear()
                await changed.wait()
            message = await self._receive()
            self._messages.append(message)
            self._held += len(message.get("body", b""))
            self.gone = message["type"] == "http.disconnect"
            changed.set()
        self._cancel()

    def _cancel(self) -> None:
        if self._failures.cut:
            return  # everything is cancelled by the drain; twice would interrupt what cleans up
        self._cancelled, self._cancels = self._cancels, None
        if self._cancelled:
            self._cancelled.cancel()

    def __enter__(self) -> Inbox:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> bool:
        if self._pump:
            self._pump.cancel()
        self._cancels = None
        if self._cancelled is None or kind is None or not issubclass(kind, asyncio.CancelledError):
            return False
        if hasattr(self._cancelled, "uncancel"):  # Python 3.11: else a later await would be cancelled again
            self._cancelled.uncancel()
        return True
