"""``Call``: a call that waits in the gateway's queue, and how one is made.

It is stored before ``submit`` returns, and is made though everything is restarted in between: at least once,
perhaps again when the answer to an attempt was lost. A ``Call`` is no more than its id: it pickles, and another
process can take it up with ``Call.from_id``.

Standard library only (cloudpickle on first use), Python >= 3.7: this module is copied into replica images.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
import uuid
from typing import Any, Dict, Generator, List, Optional, Tuple
from urllib.parse import urlencode

from fngw import calls, endpoint, transport
from fngw.endpoint import Endpoint
from fngw.errors import CallNotFound, FngwError, RemoteError, Unreachable, from_problem
from fngw.http1 import Reply
from fngw.protocol import CALL_STATUS_HEADER, CALLS_PREFIX, ERROR_TYPE, PROBLEM_TYPE, RESULT_TYPE
from fngw.refs import decode, refusal

__all__ = ["Call", "ask", "list_calls", "submit", "wish_headers"]

#: Seconds that one request waits for a call's end; what is on the way may end longer ones.
POLL_S = 20
#: A gateway (or its Redis) may be away for so long, and a result is waited for on.
PATIENCE_S = 60.0
PAUSE_S = 0.3
PENDING = ("queued", "delayed", "running")
#: How often a call is handed in whose answer was lost. Its idempotency key makes it one call.
SUBMIT_TRIES = 3


class Call:
    """A call that waits in the gateway's queue, or did.

    Example:
        >>> call = handle.submit("https://example.org/film.mp4")
        >>> call.id
        '01KAQ7V2M4ZJ0C3S9W8X5T6RNE'
        >>> Call.from_id(call.id).result(timeout=600)
        {'seconds': 5400}
    """

    def __init__(self, id: str, what: str = "") -> None:
        self._id = id
        self._what = what or f"call {id}"

    @classmethod
    def from_id(cls, id: str) -> Call:
        """Return the call with an id, without looking whether there is one.

        Raises:
            TypeError: not text.
        """
        if not isinstance(id, str):
            raise TypeError(f"a call's id is a string, not {id!r}")
        return cls(id)

    @property
    def id(self) -> str:
        """Its id. Whoever has it may look at the call, take its result and cancel it."""
        return self._id

    def status(self) -> str:
        """Return ``queued``, ``delayed``, ``running``, ``finished``, ``failed`` or ``cancelled``.

        Raises:
            CallNotFound: no call has this id, or not any more.
            Unreachable: no gateway answers.
        """
        return str(self.info()["status"])

    def info(self) -> Dict[str, Any]:
        """Return all that is known of it: status, attempts, times (Unix seconds), and why it failed.

        Raises:
            CallNotFound, Unreachable: as ``status``.
        """
        return ask("GET", _path(self._id))

    def result(self, timeout: Optional[float] = None) -> Any:
        """Return what the function returned, waiting for it up to ``timeout`` seconds (None: as long as it takes).

        Of a call that was made by HTTP it is JSON's value, text or bytes, by the answer's content type.

        Raises:
            TimeoutError: it took longer; the call goes on, and can be asked again.
            RemoteError: user code raised, in the last attempt too; or the function answered an error's status.
            CallNotFound: no call has this id, or its result has expired (code ``call_expired``).
            FngwError: it was cancelled (``call_cancelled``), or failed without an answer (``call_failed``).
        """
        return _value(transport.submit(_outcome(endpoint.current(), self._id, timeout)).result(), self._what)

    def cancel(self) -> bool:
        """Cancel it; tell whether that was still possible. One under way is stopped in a moment.

        Raises:
            CallNotFound, Unreachable: as ``status``.
        """
        after = ask("DELETE", _path(self._id))
        return after["status"] == "cancelled" or bool(after["cancelling"])

    def retry(self) -> None:
        """Queue it once more, after it failed.

        Raises:
            CallNotFound: as ``status``.
            FngwError: it did not fail (``call_not_failed``).
        """
        ask("POST", _path(self._id, "/retry"))

    def __await__(self) -> Generator[Any, None, Any]:
        """Wait for the result. Giving up waiting does not cancel the call."""
        future = transport.submit(_outcome(endpoint.current(), self._id, None))
        reply = yield from asyncio.wrap_future(future).__await__()
        return _value(reply, self._what)

    def __eq__(self, other: object) -> bool:
        return self._id == other._id if isinstance(other, Call) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._id)

    def __repr__(self) -> str:
        return f"Call.from_id({self._id!r})"

    def __reduce__(self) -> Any:
        return (Call, (self._id, self._what))


# -- making one -------------------------------------------------------------------------------------------


def wish_headers(
    retries: Optional[int] = None,
    delay_s: Optional[float] = None,
    priority: Optional[str] = None,
    callback_url: Optional[str] = None,
    idempotency_key: Optional[str] = None,
) -> Tuple[Tuple[str, str], ...]:
    """Return the headers that tell the gateway how to go about a call; it checks their values."""
    given = {
        "fngw-retries": retries,
        "fngw-delay": None if delay_s is None else f"{delay_s:.3f}",
        "fngw-priority": priority,
        "fngw-callback-url": callback_url,
        "idempotency-key": idempotency_key,
    }
    for name, value in given.items():
        if isinstance(value, str) and not (value.isprintable() and value.isascii()):
            raise ValueError(f"{name}: {value!r} is more than visible ASCII characters")
    return tuple((name, str(value)) for name, value in given.items() if value is not None)


def submit(
    deployment: str,
    method: str,
    args: Tuple[Any, ...],
    kwargs: Dict[str, Any],
    protocol: Optional[int],
    wishes: Tuple[Tuple[str, str], ...],
) -> Call:
    """Hand a call in; see ``DeploymentHandle.submit``."""
    headers = {"prefer": "respond-async", "idempotency-key": uuid.uuid4().hex, **dict(wishes)}
    future, what = calls.send(deployment, method, args, kwargs, protocol, headers, tries=SUBMIT_TRIES)
    reply: Reply = future.result()
    if reply.status != 202 or reply.kind == PROBLEM_TYPE:
        raise refusal(reply, what)
    return Call(str(json.loads(bytes(reply.body).decode())["id"]), what)


# -- asking -----------------------------------------------------------------------------------------------


def list_calls(
    deployment: Optional[str] = None, status: Optional[str] = None, limit: int = 100
) -> List[Dict[str, Any]]:
    """Return what is known of calls, the newest first.

    Raises:
        Unreachable, Unauthorized: the gateway does not answer, or wants its token.
    """
    wanted = {"deployment": deployment, "status": status, "limit": limit}
    query = urlencode({name: value for name, value in wanted.items() if value is not None})
    return list(ask("GET", f"{CALLS_PREFIX.rstrip('/')}?{query}")["calls"])


def _path(call_id: str, rest: str = "") -> str:
    if not re.fullmatch(r"[0-9A-Za-z-]{1,64}", call_id):  # nor could it stand in a path as it is
        raise CallNotFound(f"{call_id!r} is not a call's id", hint="`fngw calls list` shows those there are")
    return f"{CALLS_PREFIX}{call_id}{rest}"


def ask(method: str, path: str, value: Any = None) -> Dict[str, Any]:
    """Send a request to the gateway's own pages; return the JSON object that it answers (204: an empty one).

    Args:
        method, path: the request's.
        value: sent as JSON, unless it is None.

    Raises:
        FngwError: what the gateway says instead.
    """
    body = () if value is None else (json.dumps(value).encode(),)
    headers = {} if value is None else {"content-type": "application/json"}
    reply = transport.submit(transport.request(endpoint.current(), method, path, headers, body)).result()
    if reply.status == 204:
        return {}
    if reply.status >= 300 or reply.kind != "application/json":
        raise refusal(reply, f"{method} {path}")
    return dict(json.loads(bytes(reply.body).decode()))


async def _outcome(where: Endpoint, call_id: str, timeout: Optional[float]) -> Reply:
    """Return the answer with the call's result, over lost connections and gateways that are away for a while."""
    deadline = None if timeout is None else time.monotonic() + timeout
    lost_since: Optional[float] = None
    while True:
        left = POLL_S if deadline is None else max(0.0, deadline - time.monotonic())
        target = _path(call_id, f"/result?wait={min(left, POLL_S):.3f}")
        try:
            reply = await transport.request(where, "GET", target, {"accept": RESULT_TYPE})
            trouble = _away(reply)
        except Unreachable as error:
            trouble = error
        if trouble is None and reply.headers.get(CALL_STATUS_HEADER) not in PENDING:
            return reply
        if deadline is not None and time.monotonic() >= deadline:
            raise TimeoutError(f"call {call_id} has no result after {timeout:g} s")
        if trouble is None:
            lost_since = None
            continue
        lost_since = lost_since or time.monotonic()
        if time.monotonic() - lost_since > PATIENCE_S:
            raise trouble
        await asyncio.sleep(PAUSE_S)


def _away(reply: Reply) -> Optional[FngwError]:
    """Return what the gateway says of itself when it cannot tell of calls now."""
    if reply.status != 503 or reply.kind != PROBLEM_TYPE or CALL_STATUS_HEADER in reply.headers:
        return None
    return refusal(reply, "the call")


def _value(reply: Reply, what: str) -> Any:
    if reply.kind in (RESULT_TYPE, ERROR_TYPE):
        return decode(reply, what).get()
    if reply.kind == PROBLEM_TYPE and CALL_STATUS_HEADER not in reply.headers:
        raise refusal(reply, what)
    if reply.status < 400:
        return _plain(reply)
    if reply.kind == PROBLEM_TYPE:
        raise from_problem(json.loads(bytes(reply.body).decode()))
    text = bytes(reply.body[:500]).decode("utf-8", "replace")
    raise RemoteError(f"{what} was answered {reply.status}: {text}", code="answered_error", status=reply.status)


def _plain(reply: Reply) -> Any:
    """Return an answer's body as what it says that it is."""
    if reply.kind == "application/json" or reply.kind.endswith("+json"):
        return json.loads(bytes(reply.body).decode())
    return bytes(reply.body).decode() if reply.kind.startswith("text/") else bytes(reply.body)
