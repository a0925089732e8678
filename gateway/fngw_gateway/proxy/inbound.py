"""One request's client side: its body, read no faster than it is passed on, and whether the client is still there.

A small declared body is read whole before a replica is taken: it can be sent again, and a slow client holds no
replica. Others are read by a task, in the background, up to ``READ_AHEAD`` bytes; the same task notices that
the client left. A request without a body gets that task only once it has taken ``WATCH_AFTER_S``.

While all that has come is passed on, and the replica reads, parts skip the task: they go on as they are read. Of a
large declared body, all that was not read when the replica asks for it skips this process (``splicing``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager, suppress
from typing import Any

from fngw.errors import FngwError
from fngw_gateway.proxy import problems
from fngw_gateway.proxy.headers import RequestHead
from fngw_gateway.proxy.splicing import LEND, SPLICE_FROM, Loan, resolve

__all__ = ["DIVERT", "PRELOAD", "WATCH_AFTER_S", "ClientGone", "Inbound", "Taker"]

log = logging.getLogger(__name__)

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
#: Takes a part of a body at once, or says False: then it comes by ``receive``.
Taker = Callable[[bytes], bool]
#: Among a scope's extensions: `front.Front.divert`, if that is the server.
DIVERT = "fngw.divert"

#: Declared bodies up to this are read whole first.
PRELOAD = 128 * 1024
#: Bytes of other bodies that are read ahead of the replica.
READ_AHEAD = 256 * 1024
#: A task per request costs about a tenth of what a request costs; most requests have ended by then.
WATCH_AFTER_S = 0.05


class ClientGone(Exception):
    """The client closed its connection."""


class Inbound:
    """The body of one request and its end.

    Args:
        receive: ASGI's.
        head: the request's.
        max_body: bytes; more are refused.
        interrupt: told once, with ``ClientGone`` or a ``FngwError``, when the background task meets either.
    """

    __slots__ = (
        "_ahead",
        "_chunks",
        "_head",
        "_interrupt",
        "_max_body",
        "_news",
        "_receive",
        "_room",
        "_size",
        "_straight",
        "_task",
        "_waited_for",
        "complete",
    )

    def __init__(
        self, receive: Receive, head: RequestHead, max_body: int, interrupt: Callable[[Exception], None]
    ) -> None:
        self._receive = receive
        self._head = head
        self._max_body = max_body
        self._interrupt = interrupt
        self._chunks: list[bytes] = []
        self._size = self._ahead = 0
        self._straight: Taker | None = None
        self._waited_for = False  # by `next`
        self._task: asyncio.Task[None] | None = None
        self._news: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self.complete = head.length == 0

    async def preload(self) -> bytes | None:
        """Return the whole body if it is small and its length declared, else None: then it is read by ``next``.

        Raises:
            ClientGone: it left meanwhile.
            FngwError: the body does not fit its declared length.
        """
        length = self._head.length
        if length is None or length > PRELOAD or self._head.expects:
            return None
        while not self.complete:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            self._add(message)
        return b"".join(self._chunks)

    def watch(self) -> None:
        """Read on in the background; notice when the client leaves."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._read())

    def pass_straight(self, scope: Any, taker: Taker) -> None:
        """Offer ``taker`` what comes while ``next`` waits, if the server of ``scope`` can."""
        divert = scope.get("extensions", {}).get(DIVERT)
        if divert is not None:
            self._straight = taker
            divert(scope, self._offer)

    @contextmanager
    def lent(self, scope: Any) -> Iterator[Loan | None]:
        """Have the server of ``scope`` lend the client's socket for the rest of the body, where it can and it pays.

        What was read of the body is the loan's then; what is left of it at the block's end comes by ``next``.
        """
        lend, length = scope.get("extensions", {}).get(LEND), self._head.length
        if lend is None or length is None or length - self._size < SPLICE_FROM:
            yield None
            return
        with lend(scope) as loan:
            if loan is None:
                yield None
                return
            self._size += len(loan.data)
            if self._chunks:
                loan.data = b"".join([*self._chunks, loan.data])
            loan.left = length - self._size
            self._chunks, self._ahead = [], 0
            resolve(self._room)
            try:
                yield loan
            finally:
                self._size = length - loan.left

    def _offer(self, data: bytes) -> bool:
        """A part was just read: pass it on, after what waits, if the replica reads."""
        taker = self._straight
        if not self._waited_for or taker is None or self._size + len(data) > self._max_body:
            return False
        if self._chunks:
            if not taker(b"".join(self._chunks)):
                return False
            self._chunks, self._ahead = [], 0
            resolve(self._room)
        if not taker(data):
            return False
        self._size += len(data)
        return True

    async def next(self) -> bytes:
        """Return the next part of the body, b"" after the last one."""
        self.watch()
        self._waited_for = True
        while not self._chunks:
            if self.complete:
                return b""
            self._news = asyncio.get_running_loop().create_future()
            await self._news
        data = b"".join(self._chunks)
        self._chunks, self._ahead = [], 0
        self._waited_for = False
        resolve(self._room)
        return data

    async def discard(self, limit: int, seconds: float) -> None:
        """Read and forget what the client still sends: one that only reads once it has sent all, reads then."""
        self.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while limit > 0:
                    message = await self._receive()
                    if not message.get("more_body", False):
                        return
                    limit -= len(message.get("body", b""))

    def close(self) -> None:
        """Stop the background task, pass nothing on any more, and interrupt nobody.

        Who is interrupted holds this. If this held it for longer, both would be left to the garbage collector.
        """
        self._straight = None
        self._interrupt = _nobody
        if self._task is not None:
            self._task.cancel()

    async def _read(self) -> None:
        try:
            while True:
                message = await self._receive()
                if message["type"] == "http.disconnect":
                    self._interrupt(ClientGone())
                    return
                if not self.complete:
                    self._add(message)
                    resolve(self._news)
                while self._ahead > READ_AHEAD and not self.complete:
                    self._room = asyncio.get_running_loop().create_future()
                    await self._room
        except asyncio.CancelledError:
            return  # by `close`; the task would keep the exception, that this, and this the task
        except FngwError as error:
            self._interrupt(error)
        except Exception:
            log.exception("reading a request failed")
            self._interrupt(ClientGone())

    def _add(self, message: MutableMapping[str, Any]) -> None:
        data = message.get("body", b"")
        if data:
            self._size += len(data)
            self._ahead += len(data)
            self._chunks.append(data)
        self.complete = not message.get("more_body", False)
        if self._size > self._max_body:
            raise problems.body_too_large(self._max_body)
        if self.complete:
            length = self._head.length
            if length is not None and self._size != length:
                why = f"the body has {self._size} bytes, not {length} as declared"
                raise problems.bad_request(why, "correct Content-Length")


def _nobody(reason: Exception) -> None:
    """The request is over."""
