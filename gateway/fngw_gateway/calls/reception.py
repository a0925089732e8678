"""Takes calls in: a request with ``Prefer: respond-async`` is stored, and answered with the call's id.

202 is answered once the call is in Redis, and only then. Whatever goes wrong before that is told, and then nothing
was taken in; but for a connection to Redis that was lost in the very moment (``calls_unavailable`` says so).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from fngw import protocol
from fngw.errors import FngwError, Overloaded
from fngw_gateway.calls import answers
from fngw_gateway.calls.prefer import Preference, read_prefer
from fngw_gateway.calls.wishes import Wishes, read_wishes
from fngw_gateway.proxy import headers, problems
from fngw_gateway.proxy.forward import LINGER_BYTES, LINGER_S, check
from fngw_gateway.proxy.headers import RequestHead
from fngw_gateway.proxy.inbound import ClientGone, Inbound
from fngw_state import callback_urls
from fngw_state.call_records import Call, Headers, NewCall
from fngw_state.callback_urls import Network
from fngw_state.calls import Calls
from fngw_state.store import LOST
from fngw_state.writable import WritesRefused

__all__ = ["Reception", "replayed_headers"]

log = logging.getLogger(__name__)

#: What of a request does not go on to the function: it was about this one connection, or about the call.
_NOT_REPLAYED = headers.HOP_BY_HOP | {
    b"content-length",
    b"expect",
    b"prefer",
    b"x-forwarded-for",
    b"x-forwarded-proto",
    b"x-forwarded-host",
    headers.REQUEST_ID,
}


@dataclass(frozen=True)
class _Arrival:
    """A request that is to become a call."""

    scope: Any
    receive: Any
    head: RequestHead
    deployment: str
    target: str
    began: float


class Reception:
    """Where calls are taken in.

    Args:
        calls: stores them.
        allowed: networks besides the public ones to which callbacks may go.

    Example:
        >>> reception = Reception(calls, ())
        >>> await reception.take(scope, receive, send, head, "Greeter", b"/Greeter?x=1")
    """

    def __init__(self, calls: Calls, allowed: Sequence[Network]) -> None:
        self._calls = calls
        self._allowed = allowed

    async def take(
        self, scope: Any, receive: Any, send: problems.Send, head: RequestHead, deployment: str, target: bytes
    ) -> None:
        """Answer a request that prefers an answer later.

        Args:
            scope, receive, send: ASGI's.
            head: the request's, read; its ``prefer`` names ``respond-async``.
            deployment: whose call it is.
            target: path and query, as the dispatcher is to send them.
        """
        arrival = _Arrival(scope, receive, head, deployment, target.decode("latin-1"), perf_counter())
        try:
            await self._answer(arrival, send)
        except ClientGone:
            return  # before all of its request was here
        except FngwError as error:
            await self._refuse(arrival, send, error)
        except LOST as error:
            log.warning("%s: a call was not taken in: %s", deployment, error)
            await self._refuse(arrival, send, _unavailable(deployment, error))
        except Exception:
            log.exception("%s: request %s was not taken in", deployment, head.request_id.decode())
            await self._refuse(arrival, send, problems.internal_error(f"taking in a call of {deployment}"))

    async def _answer(self, arrival: _Arrival, send: problems.Send) -> None:
        given = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in arrival.scope["headers"]]
        preference = read_prefer(value for name, value in given if name == "prefer")
        wishes = read_wishes(dict(given))
        if wishes.callback is not None:
            await callback_urls.resolve(wishes.callback, self._allowed)
        body = await self._read(arrival)
        accepted = await self._calls.accept(_new_call(arrival, preference, wishes, body))
        call = await self._wait(accepted.id, preference.wait_s)
        if call is not None and call.has_ended:
            await self._give_result(arrival, send, call, preference)
        else:
            await self._give_id(arrival, send, accepted.id, call, wishes)

    async def _read(self, arrival: _Arrival) -> bytes:
        """Return the request's body; nothing of one that is declared to be too large is read."""
        head, limit = arrival.head, self._calls.limits.max_body
        if head.length is not None and head.length > limit:
            raise _too_large(arrival.deployment, limit)
        check(head, limit)
        parts, size = [], 0
        more = head.framed
        while more:
            message = await arrival.receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            more = message.get("more_body", False)
            if size > limit:
                raise _too_large(arrival.deployment, limit)
        return b"".join(parts)

    async def _wait(self, call_id: str, seconds: float) -> Call | None:
        """Return the call as it is after a while at most; None where nobody wants to wait, or Redis is away."""
        if not seconds:
            return None
        try:
            return await self._calls.wait(call_id, seconds)
        except LOST as error:
            log.warning("call %s is taken in, but how it goes is not known: %s", call_id, error)
            return None

    async def _give_id(
        self, arrival: _Arrival, send: problems.Send, call_id: str, call: Call | None, wishes: Wishes
    ) -> None:
        status = call.status if call else "delayed" if wishes.delay_s else "queued"
        own = [
            (b"location", answers.location(call_id).encode()),
            (b"preference-applied", b"respond-async"),
            (protocol.CALL_STATUS_HEADER.encode(), status.encode()),
            *_own(arrival),
        ]
        await problems.send_json(send, 202, {"id": call_id, "status": status}, own)

    async def _give_result(
        self, arrival: _Arrival, send: problems.Send, call: Call, preference: Preference
    ) -> None:
        own = [
            (b"content-location", answers.location(call.id).encode() + b"/result"),
            (b"preference-applied", b"wait=%d" % preference.wait_s),
            answers.status_header(call),
            *_own(arrival),
        ]
        result = await self._calls.result(call.id)
        if result is None:
            await problems.send_problem(send, answers.failure(call), own)
        else:
            await answers.send_result(send, result, own, head_only=arrival.scope["method"] == "HEAD")

    async def _refuse(self, arrival: _Arrival, send: problems.Send, error: FngwError) -> None:
        close = error.status == 413
        await problems.send_problem(send, error, _own(arrival), close=close)
        if close:  # a client that reads only once it has sent all, reads why then
            if not arrival.head.expects:
                inbound = Inbound(arrival.receive, arrival.head, 0, lambda _: None)
                await inbound.discard(LINGER_BYTES, LINGER_S)
            await send({"type": "http.response.body", "body": b"", "more_body": False})


def _new_call(arrival: _Arrival, preference: Preference, wishes: Wishes, body: bytes) -> NewCall:
    return NewCall(
        deployment=arrival.deployment,
        method=arrival.scope["method"],
        target=arrival.target,
        headers=replayed_headers(arrival.scope, arrival.head.request_id, preference.others),
        body=body,
        priority=wishes.priority,
        retries=wishes.retries,
        delay_s=wishes.delay_s,
        idempotency_key=wishes.key,
        callback=wishes.callback,
    )


def replayed_headers(scope: Any, request_id: bytes, preferences: str) -> Headers:
    """Return the headers of a request that its function is to see when the call is made.

    Args:
        scope: ASGI's, of the request.
        request_id: the request's.
        preferences: what it prefers besides an answer later.
    """
    dropped = _NOT_REPLAYED | _named(scope["headers"])
    if scope["path"].startswith(protocol.CALL_PREFIX):
        dropped |= {b"authorization"}  # the gateway's token is none of the replica's business
    kept = [h for h in scope["headers"] if h[0] not in dropped and not h[0].startswith(headers.PRIVATE)]
    forwarded = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
    if scope.get("client"):
        forwarded.append(scope["client"][0].encode())
    if forwarded:
        kept.append((b"x-forwarded-for", b", ".join(forwarded)))
    kept.append((headers.REQUEST_ID, request_id))
    if preferences:
        kept.append((b"prefer", preferences.encode("latin-1")))
    return tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in kept)


def _named(given: Iterable[tuple[bytes, bytes]]) -> frozenset[bytes]:
    """The names that ``Connection`` names."""
    found = [headers.connection_names(value) for name, value in given if name == b"connection"]
    return frozenset().union(*found)


def _own(arrival: _Arrival) -> list[problems.Header]:
    timing = b"accept;dur=%.3f" % ((perf_counter() - arrival.began) * 1e3)
    return [(headers.REQUEST_ID, arrival.head.request_id), (b"server-timing", timing)]


def _too_large(deployment: str, limit: int) -> FngwError:
    error = problems.body_too_large(limit)
    hint = "send it without `Prefer: respond-async`; or start the gateway with a larger FNGW_MAX_CALL_BODY"
    return FngwError(f"{deployment}: {error.message}", code=error.code, status=error.status, hint=hint)


def _unavailable(deployment: str, error: BaseException) -> FngwError:
    if isinstance(error, WritesRefused):
        text, why = f"{deployment}: no space is left for calls; nothing was taken in", "free some space on the disk"
    else:
        text = f"{deployment}: calls cannot be taken in, as Redis is away"
        why = "try again in a moment, with an Idempotency-Key, so that it cannot be taken in twice"
    return Overloaded(text, code="calls_unavailable", hint=why)
