"""What the gateway answers itself: each failure as a ``FngwError``, and the one mapping from those to answers.

===========================  ======  ==================================================
code                         status  when
===========================  ======  ==================================================
``route_not_found``          404     no deployment has a route for this path
``deployment_not_found``     404     a call to an unknown name
``method_not_allowed``       405     a call is POST; the gateway's own pages are GET
``body_too_large``           413     over ``FNGW_MAX_BODY``
``bad_request``              400     not HTTP/1.1, or a body that does not fit its declared length
``request_too_slow``         408     the request's head, or more of its body, did not arrive in time
``uri_too_long``             414     the request's line is too long
``headers_too_large``        431     the request's headers are too large
``unauthorized``             401     a call over TCP without the token
``internal_error``           500     a fault of the gateway
``not_implemented``          501     a transfer coding other than chunked
``version_not_supported``    505     another version of HTTP than 1.0 and 1.1
``replica_lost``             502     the replica left without an answer, or answered nonsense
``overloaded``               503     the deployment's queue is full
``no_replicas``              503     none came in time
``not_ready``                503     this gateway has not read its routing table yet
``timeout``                  504     ``request_timeout_s`` is over
===========================  ======  ==================================================
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from http import HTTPStatus
from typing import Any

from fngw import protocol
from fngw.errors import DeploymentNotFound, FngwError, Overloaded, Unauthorized, to_problem

__all__ = [
    "bad_request",
    "body_too_large",
    "deployment_not_found",
    "headers_too_large",
    "internal_error",
    "method_not_allowed",
    "no_replicas",
    "not_implemented",
    "not_ready",
    "overloaded",
    "problem_bytes",
    "replica_lost",
    "request_too_slow",
    "route_not_found",
    "send_body",
    "send_json",
    "send_problem",
    "stopping",
    "timeout",
    "unauthorized",
    "uri_too_long",
    "version_not_supported",
]

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Header = tuple[bytes, bytes]

#: Headers that belong to a status: when to come back, how to authenticate.
_BY_STATUS: dict[int, list[Header]] = {
    401: [(b"www-authenticate", b'Bearer realm="fngw"')],
}
_CLOSE = (b"connection", b"close")


def route_not_found(path: bytes) -> FngwError:
    shown = path.decode("ascii", "backslashreplace")
    hint = "GET /-/routes lists the routes that exist"
    return FngwError(f"no deployment serves {shown}", code="route_not_found", status=404, hint=hint)


def deployment_not_found(name: str) -> FngwError:
    return DeploymentNotFound(f"there is no deployment {name!r}", hint="`fngw list` names those that exist")


def method_not_allowed(method: str, path: bytes, allowed: str) -> FngwError:
    shown = path.decode("ascii", "backslashreplace")
    message = f"{shown} does not take {method}"
    return FngwError(message, code="method_not_allowed", status=405, hint=f"use {allowed}")


def body_too_large(limit: int) -> FngwError:
    message = f"the request's body is larger than {_size(limit)}"
    hint = "send it in parts; or start the gateway with a larger FNGW_MAX_BODY"
    return FngwError(message, code="body_too_large", status=413, hint=hint)


def bad_request(message: str, hint: str) -> FngwError:
    return FngwError(message, code="bad_request", status=400, hint=hint)


def version_not_supported(version: str) -> FngwError:
    message = f"HTTP/{version} is not spoken here"
    return FngwError(message, code="version_not_supported", status=505, hint="use HTTP/1.1")


def uri_too_long(limit: int) -> FngwError:
    message = f"the request's line is too long: with the headers it may have {_size(limit)}"
    return FngwError(message, code="uri_too_long", status=414, hint="send what is long in the request's body")


def headers_too_large(limit: int) -> FngwError:
    message = f"the request's line and headers are larger than {_size(limit)}; each header counts 32 bytes more"
    hint = "send fewer or shorter headers (cookies?), or what is long in the request's body"
    return FngwError(message, code="headers_too_large", status=431, hint=hint)


def request_too_slow(why: str) -> FngwError:
    hint = "send a head at once, and a body without long pauses"
    return FngwError(f"the request was too slow: {why}", code="request_too_slow", status=408, hint=hint)


def unauthorized() -> FngwError:
    return Unauthorized(
        "calls by handle need this gateway's token", hint="set FNGW_TOKEN, or fngw.connect(token=…)"
    )


def not_implemented(message: str, hint: str) -> FngwError:
    return FngwError(message, code="not_implemented", status=501, hint=hint)


def replica_lost(deployment: str, replica: str, why: str) -> FngwError:
    message = f"replica {replica} of {deployment} was lost before it had answered: {why}"
    hint = f"the function may have run; `fngw logs {deployment}` shows what the replica last said"
    return FngwError(message, code="replica_lost", status=502, hint=hint)


def overloaded(deployment: str, queued: int) -> FngwError:
    message = f"{deployment} has {queued} requests waiting and takes no more"
    return Overloaded(message, hint="try again later, add replicas, or raise max_queued_requests")


def no_replicas(deployment: str, waited_s: float) -> FngwError:
    message = f"{deployment} had no replica within {waited_s:.3g} s"
    hint = f"`fngw status {deployment}` tells why"
    return Overloaded(message, code="no_replicas", hint=hint)


def stopping(deployment: str) -> FngwError:
    message = f"{deployment} has no replica now, and this gateway is stopping"
    return Overloaded(message, code="no_replicas", hint="try again in a moment; `fngw up` starts it again")


def not_ready(why: str) -> FngwError:
    message = f"this gateway does not route yet: {why}"
    return Overloaded(message, code="not_ready", hint="try again in a second; GET /-/healthz tells its state")


def timeout(deployment: str, seconds: float) -> FngwError:
    message = f"{deployment} did not answer within {seconds:g} s (request_timeout_s)"
    hint = "the time waiting for a replica counts; raise request_timeout_s or add replicas"
    return FngwError(message, code="timeout", status=504, hint=hint)


def internal_error(what: str) -> FngwError:
    message = f"the gateway failed at {what}; what was asked for may have happened, or not"
    hint = "a fault of fngw: its log has the traceback under this X-Request-Id; please report it"
    return FngwError(message, code="internal_error", status=500, hint=hint)


def _size(limit: int) -> str:
    """A limit in its largest whole unit: 8589934592 is 8 GiB."""
    for unit, power in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if limit and limit % 2**power == 0:
            return f"{limit >> power} {unit}"
    return f"{limit} bytes"


async def send_problem(send: Send, error: FngwError, more: list[Header], *, close: bool = False) -> None:
    """Answer with ``error`` as a problem document.

    Args:
        send: ASGI's.
        more: headers to add.
        close: the connection ends with this answer.
    """
    headers = [*_problem_headers(error), *more]
    if close:
        headers.append(_CLOSE)
    await send_json(send, error.status, to_problem(error), headers, protocol.PROBLEM_TYPE, last=not close)


def problem_bytes(error: FngwError, more: Iterable[Header]) -> bytes:
    """Return a whole answer with ``error``, as it goes over a connection that then ends.

    Args:
        more: headers to add.
    """
    body = json.dumps(to_problem(error)).encode()
    headers = [*_body_headers(body, protocol.PROBLEM_TYPE), *_problem_headers(error), *more, _CLOSE]
    lines = [b"%b: %b\r\n" % header for header in headers]
    status = HTTPStatus(error.status)
    return b"HTTP/1.1 %d %b\r\n%b\r\n%b" % (status, status.phrase.encode(), b"".join(lines), body)


def _problem_headers(error: FngwError) -> list[Header]:
    if error.code == "method_not_allowed":
        return [(b"allow", error.hint.removeprefix("use ").encode())]
    if error.status in (429, 503):
        return [(b"retry-after", b"%d" % (error.retry_after_s or 1))]
    return _BY_STATUS.get(error.status, [])


async def send_json(
    send: Send,
    status: int,
    value: Any,
    more: list[Header],
    content_type: str = "application/json",
    *,
    last: bool = True,
) -> None:
    """Answer with ``value`` as JSON; with ``last=False`` the caller sends the final, empty part itself."""
    await send_body(send, status, json.dumps(value).encode(), content_type, more, last=last)


async def send_body(
    send: Send, status: int, body: bytes, content_type: str, more: list[Header], *, last: bool = True
) -> None:
    """Answer with ``body``; ``last`` as above."""
    headers = [*_body_headers(body, content_type), *more]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": not last})


def _body_headers(body: bytes, content_type: str) -> list[Header]:
    return [(b"content-type", content_type.encode()), (b"content-length", str(len(body)).encode())]
