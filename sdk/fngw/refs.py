"""``Ref``: the value of a call that is under way; and how answers become values and exceptions.

Standard library only, Python >= 3.7: this module is copied into replica images.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import pickle
import threading
import time
from concurrent.futures import Future
from typing import Any, Generator, List, Optional, Union, overload

from fngw.errors import FngwError, RemoteError, Unauthorized, from_problem
from fngw.http1 import Reply
from fngw.protocol import ERROR_TYPE, PROBLEM_TYPE, RESULT_TYPE, decode_frame

__all__ = ["Pending", "Ref", "decode", "get", "refusal"]


class Pending(TypeError):
    """Raised where something that has no value yet is pickled; ``future`` is done when it has one."""

    def __init__(self, message: str, future: Future[Any]) -> None:
        super().__init__(message)
        self.future = future


class Ref:
    """The value of a call, once there is one. Wait for it with ``result()``, ``await`` or ``fngw.get``.

    It can be awaited in any event loop, asked from any thread, and more than once. Passed to another handle (or
    inside of what is passed), it arrives as its value. Cancelling an ``await`` cancels the call itself.

    Example:
        >>> ref = handle.remote(1)
        >>> ref.result(timeout=5)
        2
    """

    def __init__(self, future: Future[Reply], what: str) -> None:
        self._future = future
        self._what = what
        self._lock = threading.Lock()
        self._decoded: Optional[_Outcome] = None

    def result(self, timeout: Optional[float] = None) -> Any:
        """Return the value, waiting for it up to ``timeout`` seconds (None: as long as it takes).

        Raises:
            TimeoutError: it took longer; the call goes on, and can be asked again.
            RemoteError: user code raised; its traceback is in the text, the original in ``cause``.
            DeploymentNotFound, Overloaded, Unreachable, Unauthorized: the call did not get through.
        """
        try:
            reply = self._future.result(timeout)
        except concurrent.futures.TimeoutError:  # before Python 3.11 it is not the built-in one
            raise TimeoutError(f"{self._what} has no result after {timeout:g} s") from None
        return self._outcome(reply).get()

    def done(self) -> bool:
        """Tell whether ``result`` would return (or raise) at once."""
        return self._future.done()

    def cancel(self) -> bool:
        """Cancel the call; tell whether that was still possible."""
        return self._future.cancel()

    def __await__(self) -> Generator[Any, None, Any]:
        reply = yield from asyncio.wrap_future(self._future).__await__()
        return self._outcome(reply).get()

    def _outcome(self, reply: Reply) -> _Outcome:
        with self._lock:  # decoded once, and in a caller's thread: not all others' loop
            if self._decoded is None:
                self._decoded = decode(reply, self._what)
            return self._decoded

    def __repr__(self) -> str:
        return f"<Ref of {self._what}, {'done' if self.done() else 'under way'}>"

    def __reduce__(self) -> Any:
        if not self._future.done():
            raise Pending(f"{self!r} has no value to send yet", self._future)
        return (_itself, (self.result(),))


def _itself(value: Any) -> Any:
    return value


@overload
def get(refs: Ref, timeout: Optional[float] = None) -> Any: ...
@overload
def get(refs: List[Ref], timeout: Optional[float] = None) -> List[Any]: ...


def get(refs: Union[Ref, List[Ref]], timeout: Optional[float] = None) -> Any:
    """Return the value of a ``Ref``, or the values of a list of them, waiting up to ``timeout`` seconds in all.

    Raises:
        TypeError: not a ``Ref``.
        TimeoutError, RemoteError, …: as ``Ref.result``; of a list, the first one's in its order.

    Example:
        >>> fngw.get([handle.remote(i) for i in range(3)])
        [0, 1, 4]
    """
    if isinstance(refs, Ref):
        return refs.result(timeout)
    if not isinstance(refs, (list, tuple)):
        raise TypeError(f"fngw.get takes a Ref or a list of them, not {refs!r}")
    wrong = [r for r in refs if not isinstance(r, Ref)]
    if wrong:
        raise TypeError(f"fngw.get takes a Ref or a list of them; the list has {wrong[0]!r}")
    deadline = None if timeout is None else time.monotonic() + timeout
    return [r.result(None if deadline is None else max(0.0, deadline - time.monotonic())) for r in refs]


# -- answers ----------------------------------------------------------------------------------------------


class _Outcome:
    """A value, or an exception."""

    def __init__(self, value: Any = None, error: Optional[BaseException] = None) -> None:
        self._value = value
        self._error = error

    def get(self) -> Any:
        if self._error is not None:
            raise self._error.with_traceback(None)  # or it would grow with every time it is asked
        return self._value


def decode(reply: Reply, what: str) -> _Outcome:
    """Return what an answer to a call means: a value, or an exception."""
    try:
        if reply.kind == RESULT_TYPE:
            return _Outcome(decode_frame(reply.body))
        if reply.kind == ERROR_TYPE:
            return _Outcome(error=_remote_error(decode_frame(reply.body), what))
    except Exception as error:  # unpickling runs code of the result's classes, which may raise anything
        message = f"the result of {what} cannot be loaded here: {type(error).__name__}: {error}"
        hint = "its classes must be importable here, too; or return plain data"
        failure = FngwError(message, code="result_not_loadable", hint=hint)
        failure.__cause__ = error
        return _Outcome(error=failure)
    return _Outcome(error=refusal(reply, what))


def refusal(reply: Reply, what: str) -> FngwError:
    """Return the exception for an answer that is not a result."""
    if reply.kind == PROBLEM_TYPE:
        try:
            return from_problem(dict(json.loads(bytes(reply.body).decode())))
        except ValueError:
            pass  # not what it says it is: told below, with its text
    if reply.status in (401, 403):
        hint = "give the gateway's token in FNGW_TOKEN, or fngw.connect(token=…)"
        return Unauthorized(f"{what}: the gateway refuses this token", hint=hint)
    text = bytes(reply.body[:200]).decode("utf-8", "replace")
    message = f"{what} was answered {reply.status}: {text!r}"
    return FngwError(message, code="unexpected_answer", hint="is it a fngw gateway?", status=reply.status)


def _remote_error(failure: Any, what: str) -> RemoteError:
    message = f"{what} raised {failure.get('type', 'an error')}: {failure.get('message', '')}"
    code = failure.get("code") or None
    if code not in (None, RemoteError.default_code):  # the runtime's own words, such as of an unknown method
        message = str(failure.get("message", message))
    error = RemoteError(message, code=code, detail=str(failure.get("traceback") or ""))
    error.cause = _innermost(_load_cause(failure.get("cause")))
    return error


def _load_cause(data: Optional[bytes]) -> Optional[BaseException]:
    if not data:
        return None
    try:
        cause = pickle.loads(data)
    except Exception:  # a class that is not here, or does not unpickle: the text has to do
        return None
    return cause if isinstance(cause, BaseException) else None


def _innermost(cause: Optional[BaseException]) -> Optional[BaseException]:
    """Of calls that passed the error on, the first: what was really raised."""
    while isinstance(cause, RemoteError) and cause.cause is not None:
        cause = cause.cause
    return cause
