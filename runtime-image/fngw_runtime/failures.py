"""What becomes of requests that user code did not answer: logged, and told to the caller where one is left."""

from __future__ import annotations

import asyncio

from fngw.errors import FngwError, RemoteError
from fngw.protocol import REQUEST_ID_HEADER, USER_ERROR_HEADER
from fngw_runtime.replies import Outbox, Scope, send_problem
from fngw_runtime.reports import describe, report, user_traceback

__all__ = ["Failures", "request_id"]

_REQUEST_ID = REQUEST_ID_HEADER.encode()
_USER_ERROR = [(USER_ERROR_HEADER.encode(), b"1")]


class Failures:
    """The failed requests of one replica.

    ``cut`` is set when the drain is over: all that is under way is cancelled then, and its connections closed.

    Args:
        deployment: its name, for the hint.
        debug: whether tracebacks go into answers.
    """

    def __init__(self, deployment: str, debug: bool) -> None:
        self._hint = f"`fngw logs {deployment}` shows the traceback"
        self._debug = debug
        self.cut = False

    def log(self, error: BaseException, which: str) -> None:
        """Log why the request ``which`` failed, or where it was when it was cut off."""
        cut = self.cut and isinstance(error, asyncio.CancelledError)
        report(f"{'cut off, as the drain is over' if cut else describe(error)} [{which}]", error)

    async def answer(self, error: BaseException, scope: Scope, outbox: Outbox) -> None:
        """Log what user code raised and answer 500; in the midst of an answer, leave it unfinished.

        The server closes a connection whose answer is unfinished, so that nobody takes the part for the whole.
        """
        self.log(error, f"request {request_id(scope)}")
        if outbox.started or self.cut:
            return
        if isinstance(error, FngwError) and error.code == "unserialisable_result":
            problem = error
        else:
            detail = user_traceback(error) if self._debug else ""
            problem = RemoteError(describe(error), hint=self._hint, detail=detail)
        await send_problem(outbox, problem, _USER_ERROR)


def request_id(scope: Scope) -> str:
    """Return the id that the gateway gave the request, or ``"-"``."""
    return next((value.decode("latin-1") for name, value in scope["headers"] if name == _REQUEST_ID), "-")
