"""uvicorn's HTTP protocol, with bounds: on what a request may send besides its body, and on how long that takes.

uvicorn with httptools has none: it gathers a head for as long as a client sends one. Here a head has ``MAX_HEAD``
bytes and ``HEAD_S`` seconds; trailers and the framing between two parts of a body have about as much, and the
parts come within ``BODY_S`` of each other. What breaks the bounds, or is not HTTP, is answered with a problem
document, and the connection ends.

A request within one short read, as nearly all are, costs two calls more than in uvicorn.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from fngw.coalescing import Coalescing
from fngw.errors import FngwError
from fngw_gateway import strict
from fngw_gateway.proxy import headers, problems
from fngw_gateway.proxy.forward import WHOLE
from fngw_gateway.proxy.inbound import DIVERT, Taker
from fngw_gateway.proxy.splicing import LEND, Loan
from fngw_gateway.proxy.steps import Steps

__all__ = ["HEAD_S", "MAX_HEAD", "Front"]

log = logging.getLogger(__name__)

#: Bytes of a request's line and headers, each of which counts 32 more (as in RFC 9113 §6.5.2): tiny ones cost, too.
MAX_HEAD = 64 * 1024
FIELD_OVERHEAD = 32
MAX_FIELDS = MAX_HEAD // FIELD_OVERHEAD
#: What came in one read of so many bytes cannot be too large: the shortest header, `a:`, counts 34 for its 4.
SURELY_FITS = MAX_HEAD // 10
#: Seconds for a head to arrive, and for the first byte of a connection.
HEAD_S = 30.0
#: Seconds between two reads of a body that a client is free to send.
BODY_S = 60.0
#: Seconds that a refused client has to read why; what it still sends is read and forgotten.
LINGER_S = 2.0


class Front(HttpToolsProtocol):
    """One connection of a client.

    ``_held`` counts the bytes of whole reads since the one in which a head ended or the last part of a body came:
    so much, and a read more, may be gathered in memory.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.url = b""
        self._read = self._held = 0
        self._over = False  # refused, or handed over: what comes now is not read as HTTP
        self._deadline: asyncio.TimerHandle | None = None  # of the head, or the body, that is arriving
        self._fed = 0.0  # when a part of the body came last
        self._error: FngwError | None = None  # what the parser was stopped for
        self._upgrades = False  # whether the request becomes a WebSocket
        self._answering: Any = None  # the cycle that is answered now; uvicorn knows the newest one only
        self._feeding = False  # what was read to the parser
        self._begun: Steps | None = None  # a request of what was read; it goes on when all that is parsed
        self._taker: Taker | None = None
        self._extensions: dict[str, Any] = {DIVERT: self.divert, WHOLE: self.answer}
        if hasattr(os, "splice"):
            self._extensions[LEND] = self.lend
        self._loan: Loan | None = None

    # -- asyncio.Protocol ---------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        super().connection_made(Coalescing(transport))  # type: ignore[arg-type]  # has all that is used of one
        # uvicorn's own timer, which the first byte ends, is set only after the first answer.
        self.timeout_keep_alive_task = self.loop.call_later(HEAD_S, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        self._unset_keepalive_if_required()
        self._unset_deadline()
        answering = self._answering
        if answering is not None and not answering.response_complete:
            answering.disconnected = True
            answering.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._over:
            return
        self._feeding = True
        try:
            self._take(data)
        finally:
            self._feeding = False
            if self._begun is not None:
                begun, self._begun = self._begun, None
                begun.go_on()

    def _take(self, data: bytes) -> None:
        self._read = len(data)
        self._unset_keepalive_if_required()
        try:
            self._feed(data)
        except httptools.HttpParserError as error:
            self.send_400_response(str(error))
            return
        cycle = self.cycle
        if cycle is None or cycle.scope is not self.scope:
            self._gather(in_head=True)
        elif cycle.more_body:
            self._gather(in_head=False)
        else:
            self._held = 0
            self._unset_deadline()

    def _feed(self, data: bytes) -> None:
        """Parse what came. Where the parser sees an upgrade it stops; all but WebSockets go on in HTTP."""
        while data:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                data = data[upgrade.args[0] :]
                if not self._upgrades:
                    self._ignore_upgrade()
                    continue
                self._over = True
                self.handle_websocket_upgrade()
                if data:  # frames, sent without waiting
                    self.transport.get_protocol().data_received(data)  # type: ignore[attr-defined]
            return

    def _ignore_upgrade(self) -> None:
        """Read on behind a head that asked for another protocol: its body first, which the parser would skip."""
        framing = strict.framing(self.scope["headers"])
        if framing:
            self._read_on(framing)

    def _read_on(self, framing: bytes) -> None:
        """Go on with a parser that knows of the request that arrives no more than how its body goes on."""
        behind = _Behind(self)
        self.parser = httptools.HttpRequestParser(behind)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n" % framing)
        behind.live = True

    def _gather(self, *, in_head: bool) -> None:
        """A read has ended, and the request is not complete."""
        self._held += self._read
        if self._over:
            return
        if self._held > MAX_HEAD or len(self.headers or ()) > MAX_FIELDS:
            self._refuse(self._too_large())
            return
        self._fed = self.loop.time()
        if self._deadline is None:
            wait, end = (HEAD_S, self._too_slow) if in_head else (BODY_S, self._may_be_too_slow)
            self._deadline = self.loop.call_later(wait, end)

    # -- httptools ----------------------------------------------------------------------------------------

    def on_headers_complete(self) -> None:
        in_one_read = self._deadline is None
        self._unset_deadline()
        self._held = -self._read
        if not (in_one_read and self._read < SURELY_FITS) and _size(self.url, self.headers) > MAX_HEAD:
            self._stop(self._too_large())
        method, version = self.parser.get_method(), self.parser.get_http_version()
        try:
            strict.check(version, method, self.headers)
            if self.url[:1] != b"/":
                self.url = strict.origin_form(method, self.url, self.headers)
        except FngwError as error:
            self._stop(error)
        if version == "1.0":
            self.expect_100_continue = False  # unknown there, as are upgrades
        self._upgrades = (
            self.parser.should_upgrade() and method == b"GET" and version == "1.1" and self._may_upgrade()
        )
        super().on_headers_complete()
        if not self.pipeline:
            self._answering = self.cycle
        if not self._upgrades:
            self.headers = []  # trailers gather here, and do not become headers of a request that has not begun

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        steps = Steps(cycle.run_asgi(app), self.loop, self.tasks.discard)
        self.tasks.add(steps)  # type: ignore[arg-type]  # for who waits for all requests under way, or cancels them
        if self._feeding:
            self._begun = steps
        else:
            self.loop.call_soon(steps.go)

    def _may_upgrade(self) -> bool:
        """Whether this is a WebSocket's handshake: without a body, and with nobody before it on the line."""
        idle = self.cycle is None or self.cycle.response_complete
        return idle and super()._should_upgrade() and not strict.framing(self.headers)

    def _should_upgrade(self) -> bool:
        return self._upgrades

    def on_message_complete(self) -> None:
        if not self._upgrades and self.parser.should_upgrade() and strict.framing(self.scope["headers"]):
            return  # only the head was: see _ignore_upgrade
        super().on_message_complete()

    def on_response_complete(self) -> None:
        if self.pipeline:
            self._answering = self.pipeline[-1][0]
        super().on_response_complete()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._taker = None
        self.scope["extensions"] = self._extensions

    def on_body(self, body: bytes) -> None:
        self._held = -self._read
        if self._taker is None or self.cycle.body or not self._taker(body):
            super().on_body(body)

    def divert(self, scope: Any, taker: Taker) -> None:
        """Offer further parts of a request's body to ``taker`` first, as they are read.

        By ``receive`` a part takes three turns of the event loop to reach a replica, and stops reading meanwhile.
        The body's end, and the client's, are told by ``receive`` all the same.
        """
        if scope is self.scope and self.cycle.more_body:
            self._taker = taker

    @contextmanager
    def lend(self, scope: Any) -> Iterator[Loan | None]:
        """Lend the socket for what is left of a request's body; None if there is none. In the block nothing is read
        here; afterwards, what the loan has ``left`` is."""
        cycle = self.cycle
        if scope is not self.scope or not cycle.more_body or self._over or self.transport.is_closing():
            yield None
            return
        if cycle.waiting_for_100_continue:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            cycle.waiting_for_100_continue = False
        if self.flow.read_paused:
            self.flow.read_paused = False  # nobody but the end of the loan is to resume it
        else:
            self.transport.pause_reading()
        socket = self.transport.get_extra_info("socket")
        read, cycle.body = cycle.body, bytearray()
        self._loan = loan = Loan(socket.fileno(), read, self.loop.time())
        try:
            yield loan
        finally:
            self._loan = None
            if not self.transport.is_closing():
                self._take_back(loan)

    def _take_back(self, loan: Loan) -> None:
        self._read_on(b"content-length: %d\r\n" % loan.left)
        self._fed = loan.fed_at
        if not loan.left:
            self._held = 0
            self._unset_deadline()
        self.transport.resume_reading()

    def answer(self, scope: Any, status: int, fields: Sequence[tuple[bytes, bytes]], body: bytes) -> bool:
        """Send a whole answer whose headers are known to be right, where the client takes it; else tell so.

        By ``send`` its headers are checked, once more, and put together twice: a tenth of what a request costs.
        """
        cycle = self._answering
        if cycle.scope is not scope or scope["http_version"] != "1.1":
            return False
        if cycle.response_started or cycle.disconnected or self.flow.write_paused:
            return False
        lines, length = [STATUS_LINE[status]], None
        for name, value in (*cycle.default_headers, *fields):
            lines += (name, b": ", value, b"\r\n")
            if name == b"content-length":
                length = int(value)
        bodiless = status in (204, 304) or scope["method"] == "HEAD"
        if not bodiless and length != len(body):
            return False
        lines += (b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n", body)
        cycle.response_started = cycle.response_complete = True
        cycle.waiting_for_100_continue = False
        cycle.message_event.set()
        self.transport.write(b"".join(lines))
        if not cycle.keep_alive:
            self.transport.close()
        cycle.on_response()
        return True

    # -- refusals -----------------------------------------------------------------------------------------

    def _stop(self, error: FngwError) -> NoReturn:
        """Stop the parser: see ``send_400_response``."""
        self._error = error
        raise error

    def send_400_response(self, msg: str) -> None:
        """Refuse what the parser stopped at."""
        error, self._error = self._error, None
        if error is None:
            hint = "this port speaks HTTP/1.0 and 1.1, without TLS; see that the client does"
            error = problems.bad_request(f"what came is not HTTP: {sys.exception() or msg}", hint)
        self._refuse(error)

    def _too_large(self) -> FngwError:
        if len(self.url) > MAX_HEAD // 2:
            return problems.uri_too_long(MAX_HEAD)
        return problems.headers_too_large(MAX_HEAD)

    def _too_slow(self) -> None:
        self._deadline = None
        self._refuse(problems.request_too_slow(f"its headers did not arrive within {HEAD_S:g} s"))

    def _may_be_too_slow(self) -> None:
        """``BODY_S`` are over since a part of the body came, or since this asked last: a timer for all parts."""
        cycle, self._deadline = self.cycle, None
        if cycle.response_started or not cycle.more_body:
            return  # who is answered already may take the time to say more
        loan = self._loan
        asked = not (cycle.waiting_for_100_continue or self.flow.read_paused or (loan and loan.held_up))
        fed = self._fed if loan is None else loan.fed_at
        left = fed + BODY_S - self.loop.time() if asked else BODY_S
        if left <= 0:
            self._refuse(problems.request_too_slow(f"nothing of its body came for {BODY_S:g} s"))
        else:
            self._deadline = self.loop.call_later(left, self._may_be_too_slow)

    def _refuse(self, error: FngwError) -> None:
        """Answer with ``error`` and close, unless answers are on their way: those are finished first, and then
        the connection ends."""
        log.debug("refused a request from %s: %s", self.client, error.message)
        self._over = True
        last: Any = self.cycle
        if last is not None and last.more_body:  # it is this one that is refused, not a later one
            if self.pipeline:
                self.pipeline.popleft()
                last = self.pipeline[0][0] if self.pipeline else self._answering
            elif not last.response_complete:
                last.disconnected = True
                last.message_event.set()
                if last.response_started:
                    self.transport.close()
                    return
                last = None
        if last is not None and not last.response_complete:
            last.keep_alive = False
            return
        own = (headers.REQUEST_ID, headers.request_id(self.headers or ()))
        self.transport.write(problems.problem_bytes(error, [*self.server_state.default_headers, own]))
        # To close at once would reset the connection, and the client might not see the answer.
        self.transport.write_eof()
        self.timeout_keep_alive_task = self.loop.call_later(LINGER_S, self.timeout_keep_alive_handler)

    def _unset_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class _Behind:
    """Callbacks for a parser that reads on behind a head: what it is told of that head is known already."""

    def __init__(self, front: Front) -> None:
        self._front = front
        self.live = False
        self.on_body = front.on_body
        self.on_message_complete = front.on_message_complete

    def on_message_begin(self) -> None:
        if self.live:
            self._front.on_message_begin()

    def on_url(self, url: bytes) -> None:
        if self.live:
            self._front.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.live:
            self._front.on_header(name, value)

    def on_headers_complete(self) -> None:
        if self.live:
            self._front.on_headers_complete()


def _size(url: bytes, fields: Iterable[tuple[bytes, bytes]]) -> int:
    return len(url) + sum(len(name) + len(value) + FIELD_OVERHEAD for name, value in fields)
