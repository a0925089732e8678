"""What the gateway answers itself: each failure as a ``FngwError``, and the one mapping from those to answers.

===========================  ======  ==================================================
code                         status  when
===========================  ======  ==================================================
``route_not_found``          404     no deployment has a route for this path
``deployment_not_found``     404     a call to an unknown name
``method_not_allowed``       405     a call is POST; the gateway's own pages are GET
``body_too_large``           413     over ``FNGW_MAX_BODY``
``bad_request``              400     a body that does not fit its declared length
``unauthorized``             401     a call over TCP without the token
``not_implemented``          501     a transfer coding other than chunked
``replica_lost``             502     the replica left without an answer, or answered nonsense
``overloaded``               503     the deployment's queue is full
``no_replicas``              503     none came in time
``not_ready``                503     this gateway has not read its routing table yet
``timeout``                  504     ``request_timeout_s`` is over
===========================  ======  ==================================================
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from fngw import protocol
from fngw.errors import DeploymentNotFound, FngwError, Overloaded, Unauthorized, to_problem

__all__ = [
    "bad_request",
    "body_too_large",
    "deployment_not_found",
    "method_not_allowed",
    "no_replicas",
    "not_implemented",
    "not_ready",
    "overloaded",
    "replica_lost",
    "route_not_found",
    "send_json",
    "send_problem",
    "stopping",
    "timeout",
    "unauthorized",
]

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Header = tuple[bytes, bytes]

#: Headers that belong to a status: when to come back, how to authenticate.
_BY_STATUS: dict[int, list[Header]] = {
    503: [(b"retry-after", b"1")],
    401: [(b"www-authenticate", b'Bearer realm="fngw"')],
}


def route_not_found(path: bytes) -> FngwError:
    shown = path.decode("ascii", "backslashreplace")
    hint = "GET /-/routes lists the routes that exist"
    return FngwError(f"no deployment serves {shown}", code="route_not_found", status=404, hint=hint)


def deployment_not_found(name: str) -> FngwError:
    return DeploymentNotFound(f"there is no deployment {name!r}", hint="`fngw list` names those that exist")


def method_not_allowed(method: str, path: bytes, allowed: str) -> FngwError:
    shown = path.decode("ascii", "backslashreplace")
    message = f"{method} is not a method of {shown}"
    return FngwError(message, code="method_not_allowed", status=405, hint=f"use {allowed}")


def body_too_large(limit: int) -> FngwError:
    message = f"the request's body is larger than {limit} bytes"
    return FngwError(message, code="body_too_large", status=413, hint="FNGW_MAX_BODY sets the gateway's limit")


def bad_request(message: str) -> FngwError:
    return FngwError(message, code="bad_request", status=400)


def unauthorized() -> FngwError:
    return Unauthorized(
        "calls by handle need this gateway's token", hint="set FNGW_TOKEN, or fngw.connect(token=…)"
    )


def not_implemented(message: str, hint: str) -> FngwError:
    return FngwError(message, code="not_implemented", status=501, hint=hint)


def replica_lost(deployment: str, replica: str, why: str) -> FngwError:
    message = f"replica {replica} of {deployment} was lost before it had answered: {why}"
    hint = f"`fngw logs {deployment}` shows what it last said; the function may have run"
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


async def send_problem(send: Send, error: FngwError, more: list[Header], *, close: bool = False) -> None:
    """Answer with ``error`` as a problem document.

    Args:
        send: ASGI's.
        more: headers to add.
        close: the connection ends with this answer.
    """
    headers = [*_BY_STATUS.get(error.status, ()), *more]
    if error.code == "method_not_allowed":
        headers.append((b"allow", error.hint.removeprefix("use ").encode()))
    if close:
        headers.append((b"connection", b"close"))
    await send_json(send, error.status, to_problem(error), headers, protocol.PROBLEM_TYPE, last=not close)


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
    body = json.dumps(value).encode()
    headers = [
        (b"content-type", content_type.encode()),
        (b"content-length", str(len(body)).encode()),
        *more,
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": not last})
