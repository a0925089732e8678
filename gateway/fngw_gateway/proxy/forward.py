"""One request's way from its arrival to its answer.

A request whose body is known whole is written to a replica at once. Any other is announced (``Expect:
100-continue``) and its body sent only when the replica asks for it: so a replica that is full, or gone, has cost
nothing of it, and the request can go elsewhere.

Repeated on another replica: what a replica refused because it is full; what could not be sent (no connection);
and what was lost with no byte of an answer, if the method is idempotent (RFC 9110 §9.2.2).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from time import perf_counter
from typing import Any

from fngw.errors import DeploymentNotFound, FngwError
from fngw_gateway.proxy import headers, problems, steps
from fngw_gateway.proxy.balancer import Backend, Replica
from fngw_gateway.proxy.connection import Connection, Lost
from fngw_gateway.proxy.inbound import WATCH_AFTER_S, ClientGone, Inbound
from fngw_gateway.proxy.splicing import splice
from fngw_gateway.proxy.tally import CLIENT_LEFT

__all__ = ["LINGER_BYTES", "LINGER_S", "WHOLE", "Exchange", "WhyLost", "check"]

log = logging.getLogger(__name__)

#: Sends a whole answer at once, or says False: then it is sent by ``send``.
Whole = Callable[[Any, int, Sequence[tuple[bytes, bytes]], bytes], bool]
#: Among a scope's extensions: `front.Front.answer`, if that is the server.
WHOLE = "fngw.whole"
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
WhyLost = Callable[[str, str], Awaitable[str]]

IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
#: A request that was on its way when its replica died is tried so often in all: it may be what kills them.
MAX_ATTEMPTS = 3
#: After a refused upload: how much, and how long, is read so that the client sees the answer.
LINGER_BYTES = 64 * 1024 * 1024
LINGER_S = 2.0


class Exchange:
    """One request and its answer.

    Args:
        scope, receive, send: ASGI's.
        backend: the deployment that answers.
        head: the request's, read.
        target: the path and query for the replica.
        max_body: bytes.
        why_lost: finds out why a replica of a deployment died; empty when that is not known.
    """

    __slots__ = (
        "_arrived",
        "_attempts",
        "_avoid",
        "_backend",
        "_body",
        "_cold",
        "_connection",
        "_deadline",
        "_dispatched",
        "_head",
        "_inbound",
        "_loop",
        "_lost",
        "_lost_id",
        "_max_body",
        "_method",
        "_over",
        "_queued",
        "_reason",
        "_replica",
        "_request",
        "_scope",
        "_send",
        "_started",
        "_status",
        "_task",
        "_tried",
        "_upload",
        "_watch",
        "_whole",
        "_why_lost",
    )

    def __init__(
        self,
        scope: Any,
        receive: Any,
        send: Send,
        backend: Backend,
        head: headers.RequestHead,
        target: bytes,
        max_body: int,
        why_lost: WhyLost | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._arrived = self._dispatched = perf_counter()  # uvloop's own clock has milliseconds only
        self._backend = backend
        self._head = head
        self._scope = scope
        self._method: str = scope["method"]
        self._send = send
        self._max_body = max_body
        self._inbound = Inbound(receive, head, max_body, self._interrupt)
        self._request = b"%b %b HTTP/1.1\r\n%b" % (self._method.encode(), target, b"".join(head.lines))
        self._body: bytes | None = None  # None: it is streamed
        self._attempts = 0
        self._avoid: str | None = None
        self._replica: Replica | None = None
        self._connection: Connection | None = None
        self._upload: asyncio.Task[None] | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[Any] | steps.Steps | None = None
        self._reason: Exception | None = None  # why it was interrupted
        self._whole: Whole | None = scope.get("extensions", {}).get(WHOLE)
        self._why_lost = why_lost
        self._lost: FngwError | None = None  # what is told if there is no other replica to try
        self._lost_id = ""
        self._status = 500  # of the answer; this one is the server's, when it fails
        self._cold = False  # whether it waited for a replica to start
        self._queued = self._tried = self._started = self._over = False

    async def run(self) -> None:
        """Answer the request, one way or another."""
        self._backend.tally.under_way += 1
        try:
            await self._forward()
        except asyncio.CancelledError:
            if self._reason is None or self._task is None:
                raise
            self._task.uncancel()
            await self._refuse(self._reason)
        except (FngwError, ClientGone) as error:
            await self._refuse(error)
        except Exception:
            log.exception("%s: request %s failed", self._backend.name, self._head.request_id.decode())
            await self._refuse(problems.internal_error(f"a request for {self._backend.name}"))
        finally:
            self._close()

    # -- getting to a replica -----------------------------------------------------------------------------

    async def _forward(self) -> None:
        self._task = steps.current() or asyncio.current_task()
        head, timeout_s = self._head, self._backend.request_timeout_s
        check(head, self._max_body)
        if timeout_s is not None:
            self._deadline = self._loop.call_later(timeout_s, self._expire, timeout_s)
        if head.framed:
            self._body = await self._inbound.preload()
        else:
            self._body = b""
        self._frame()
        self._watch = self._loop.call_later(WATCH_AFTER_S, self._inbound.watch)
        replica = self._backend.take()
        while replica is None or not await self._attempt(replica):
            replica = await self._queue()

    def _frame(self) -> None:
        """End the request's head with what its body is framed by."""
        length = self._head.length
        if self._head.framed:
            framing = b"transfer-encoding: chunked\r\n" if length is None else b"content-length: %d\r\n" % length
            expect = b"expect: 100-continue\r\n" if self._body is None else b""
            self._request = b"%b%b%b\r\n%b" % (self._request, framing, expect, self._body or b"")
        else:
            self._request += b"\r\n"

    async def _queue(self) -> Replica:
        await steps.in_task()
        self._inbound.watch()  # one who leaves the queue must not reach a replica
        self._queued, starts = True, self._backend.starts
        try:
            replica = await self._backend.wait(self._arrived, again=self._tried, avoid=self._avoid)
        except DeploymentNotFound as error:  # of one that was lost, it did exist, and the function may have run
            raise self._lost or error from None
        self._queued = False
        self._cold = self._cold or self._backend.starts != starts
        return replica

    async def _attempt(self, replica: Replica) -> bool:
        """Send the request to ``replica``; tell whether it was answered, or has to go elsewhere."""
        self._replica, self._tried = replica, True
        self._dispatched = perf_counter()
        repeatable = self._method in IDEMPOTENT
        connection = replica.pool.idle() or await self._connect(replica)
        if connection is None:
            return False
        self._connection = connection
        try:
            await self._exchange(connection)
        except Lost as lost:
            self._after_loss(lost, replica, repeatable)
            return False
        if headers.is_at_capacity(connection.status, connection.headers):
            return self._at_capacity(replica)
        await self._respond(connection)
        return True

    async def _connect(self, replica: Replica) -> Connection | None:
        await steps.in_task()
        try:
            connection = await replica.pool.connect()
        except OSError as error:
            log.warning("%s: replica %s does not answer: %s", self._backend.name, replica.id, error)
            self._replica = None
            self._avoid = replica.id
            self._backend.unreachable(replica)
            return None
        if replica.down:
            self._backend.reached(replica)
        return connection

    async def _exchange(self, connection: Connection) -> None:
        """Write the request, and wait for the head of its answer."""
        connection.begin(head_only=self._method == "HEAD")
        connection.write(self._request, last=self._body is not None)
        if self._body is None:
            await connection.asked()
            # One that answers first and reads then does not ask. What is answered completely needs no body.
            if not connection.done and not headers.is_at_capacity(connection.status, connection.headers):
                self._upload = self._loop.create_task(self._send_body(connection))
        if not connection.status:
            await connection.head()

    async def _send_body(self, connection: Connection) -> None:
        """Pass the body on as it comes. A lost connection is told by the waiting answer, not from here."""
        left = self._head.length  # an answer may come in the same moment as the last of these is written

        def write(data: bytes) -> None:
            nonlocal left
            if left is None:
                connection.write(b"%x\r\n%b\r\n" % (len(data), data), last=False)
            else:
                left -= len(data)
                connection.write(data, last=not left)

        def write_now(data: bytes) -> bool:
            if connection.writable:
                write(data)
                return True
            return False

        self._inbound.pass_straight(self._scope, write_now)
        try:
            if await self._splice(connection):
                return
            while data := await self._inbound.next():
                await connection.drain()
                write(data)
            connection.write(b"0\r\n\r\n" if left is None else b"", last=True)
        except asyncio.CancelledError:
            return  # by `_close`; the task would keep the exception, that this, and this the task
        except Lost as lost:
            log.debug("%s: the replica left during an upload: %s", self._backend.name, lost)
        except Exception as error:
            log.exception("%s: an upload failed", self._backend.name)
            self._interrupt(problems.replica_lost(self._backend.name, "?", repr(error)))

    async def _splice(self, connection: Connection) -> bool:
        """Have the kernel pass on what is left of a large body; tell whether that was all."""
        with self._inbound.lent(self._scope) as loan:
            if loan is None:
                return False
            connection.write(loan.data, last=False)
            await connection.flush()
            await splice(loan, connection.fileno())
            if not loan.left:
                connection.write(b"", last=True)
            return not loan.left

    def _after_loss(self, lost: Lost, replica: Replica, repeatable: bool) -> None:
        """Let go of a replica that was lost before it answered; raise unless the request may be repeated."""
        self._let_go(answered=False)
        self._attempts += 1
        intact = self._body is not None or self._upload is None
        log.warning("%s: replica %s lost a request: %s", self._backend.name, replica.id, lost)
        self._lost, self._lost_id = problems.replica_lost(self._backend.name, replica.id, str(lost)), replica.id
        if lost.answered or not repeatable or not intact or self._attempts >= MAX_ATTEMPTS:
            raise self._lost
        self._avoid = replica.id

    def _at_capacity(self, replica: Replica) -> bool:
        connection, self._connection, self._replica = self._connection, None, None
        if connection is not None:
            connection.release()
        self._backend.refused(replica)
        if self._upload is not None:  # not fngw's runtime: that one refuses before it asks for the body
            raise problems.overloaded(self._backend.name, self._backend.queued)
        return False

    # -- the answer ---------------------------------------------------------------------------------------

    async def _respond(self, connection: Connection) -> None:
        own, status = self._own_headers(replica=True), connection.status
        passed = headers.answer_headers(status, connection.headers, own)
        self._started, self._status = True, status
        whole = self._whole if connection.done else None
        if whole is not None and whole(self._scope, status, passed, connection.body):
            self._let_go(answered=True)
            return
        await self._send({"type": "http.response.start", "status": status, "headers": passed})
        while True:
            data, done = connection.take(), connection.done
            if done:
                self._let_go(answered=True)
            if data or done:
                await self._send({"type": "http.response.body", "body": data, "more_body": not done})
            if done:
                return
            try:
                await connection.more()
            except Lost as lost:
                name = replica.id if (replica := self._replica) else "?"
                raise problems.replica_lost(self._backend.name, name, str(lost)) from None

    def _own_headers(self, *, replica: bool) -> tuple[tuple[bytes, bytes], ...]:
        queue_ms = (self._dispatched - self._arrived) * 1e3
        if replica:
            replica_ms = (perf_counter() - self._dispatched) * 1e3
            cold = b", cold" if self._cold else b""
            timing = b"queue;dur=%.3f%b, replica;dur=%.3f" % (queue_ms, cold, replica_ms)
        else:
            timing = b"queue;dur=%.3f" % ((perf_counter() - self._arrived) * 1e3)
        return ((headers.REQUEST_ID, self._head.request_id), (b"server-timing", timing))

    async def _refuse(self, error: Exception) -> None:
        """Answer with a problem; once an answer has begun, all that is left is to cut it off."""
        await steps.in_task()
        self._over = True
        self._let_go(answered=False)
        if not isinstance(error, FngwError):
            self._status = self._status if self._started else CLIENT_LEFT
            return  # nobody is there to be told
        if self._started:
            log.warning("%s: an answer was cut off: %s", self._backend.name, error.message)
            return  # the server closes the connection of an answer without an end
        if error is self._lost and self._why_lost is not None:
            why = await self._why_lost(self._backend.name, self._lost_id)
            error = problems.replica_lost(self._backend.name, self._lost_id, why) if why else error
        self._status = error.status
        close = error.status == 501 or (not self._inbound.complete and error.status == 413)
        await problems.send_problem(self._send, error, list(self._own_headers(replica=False)), close=close)
        if close:
            if not self._head.expects:  # such a client does not send before it is asked
                await self._inbound.discard(LINGER_BYTES, LINGER_S)
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    # -- the end ------------------------------------------------------------------------------------------

    def _interrupt(self, reason: Exception) -> None:
        """Make ``run`` stop where it waits, and act on ``reason``."""
        if self._reason is None and not self._over and self._task is not None:
            self._reason = reason
            self._task.cancel()

    def _expire(self, seconds: float) -> None:
        if self._queued and not self._backend.reachable:
            self._interrupt(problems.no_replicas(self._backend.name, seconds))
        else:
            self._interrupt(problems.timeout(self._backend.name, seconds))

    def _let_go(self, *, answered: bool) -> None:
        """Give the connection and the replica back; what is unfinished is thereby cancelled."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.release()
        replica, self._replica = self._replica, None
        if replica is not None:
            (self._backend.release if answered else self._backend.give_back)(replica)

    def _close(self) -> None:
        self._over = True
        for timer in (self._deadline, self._watch):
            if timer is not None:
                timer.cancel()
        if self._upload is not None:
            self._upload.cancel()
        self._inbound.close()
        self._let_go(answered=False)
        self._backend.tally.end(self._status, perf_counter() - self._arrived)


def check(head: headers.RequestHead, max_body: int) -> None:
    """Refuse what cannot be forwarded, before anything of its body is read.

    Raises:
        FngwError: why.
    """
    if head.coding and head.coding != b"chunked":
        shown = head.coding.decode("latin-1")
        raise problems.not_implemented(f"Transfer-Encoding {shown!r} is not supported", "send it chunked")
    if head.length is not None and head.length > max_body:
        raise problems.body_too_large(max_body)
