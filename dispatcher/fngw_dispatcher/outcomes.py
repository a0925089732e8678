"""Pure: what an answer, or the lack of one, means for a call.

Answers from 200 to 499 are results: what the function said, be it no. 408, 425 and 429 ask for another try, as do
all of 500 and above, and lost connections. A gateway that has no replica, or no room, has not shown the call to the
function: that does not count as an attempt.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

from fngw_dispatcher.http import Answer, TooLarge, Unreached
from fngw_state.call_records import CallFailure, Claimed
from fngw_state.call_work import Ending

__all__ = ["Clock", "again", "back_off", "failed", "of_answer", "of_error", "retry_after"]

FIRST_BACK_OFF_S = 1.0
LONGEST_BACK_OFF_S = 300.0
LONGEST_RETRY_AFTER_S = 3600.0
JITTER = 0.25
#: How long a call waits that found no gateway, no replica or no room.
UNSEEN_DELAY_S = 1.0

#: Codes of the gateway's problem documents.
UNSEEN = frozenset({"no_replicas", "overloaded"})
GONE = frozenset({"deployment_not_found", "route_not_found"})
AGAIN = frozenset({408, 425, 429})

#: Of the connection that an answer came by, not of the answer.
_HOP = frozenset("connection keep-alive transfer-encoding trailer upgrade proxy-connection".split())


@dataclass(frozen=True)
class Clock:
    """The time and the luck of one decision: Unix seconds, and a source of numbers from 0 to 1."""

    now: float
    random: Callable[[], float]


def of_answer(call: Claimed, answer: Answer, clock: Clock) -> Ending:
    """Return how a call goes on that was answered."""
    code, message = _problem(answer)
    asked = retry_after(answer.header("retry-after"), clock.now)
    if answer.status == 404 and code in GONE:
        return failed(call, "deployment_gone", message or "its deployment is gone", clock, 404)
    if answer.status < 500 and answer.status not in AGAIN:
        return _with_result(Ending(call.id, call.token, "finished"), answer)
    message = message or f"answered {answer.status}"
    if answer.status == 503 and code in UNSEEN:
        return _released(call, _failure(call, clock, code, message, 503), asked, clock)
    ending = again(call, code or f"http_{answer.status}", message, clock, asked, answer.status)
    return _with_result(ending, answer) if ending.what == "failed" else ending


def of_error(call: Claimed, error: BaseException, clock: Clock) -> Ending:
    """Return how a call goes on that was not answered: ``error`` says why."""
    text = str(error) or type(error).__name__
    if isinstance(error, Unreached):
        failure = _failure(call, clock, "gateway_unreachable", f"no gateway answers: {text}")
        return _released(call, failure, None, clock)
    if isinstance(error, TooLarge):
        return failed(call, "result_too_large", f"the answer is larger than a result may be: {text}", clock)
    if isinstance(error, FileNotFoundError):
        return failed(call, "payload_lost", "the file with its body is gone", clock)
    return again(call, "timeout" if isinstance(error, TimeoutError) else "connection_lost", text, clock)


def failed(call: Claimed, code: str, message: str, clock: Clock, status: int | None = None) -> Ending:
    """Return the end of a call that is of no use to try again."""
    return Ending(call.id, call.token, "failed", error=_failure(call, clock, code, message, status))


def again(
    call: Claimed,
    code: str,
    message: str,
    clock: Clock,
    asked: float | None = None,
    status: int | None = None,
) -> Ending:
    """Return that a call is tried again, or the end of one whose attempts are used up.

    Args:
        call: which.
        code, message: why.
        clock: the time of the decision.
        asked: the seconds that the other side asked for.
        status: what it answered.
    """
    error = _failure(call, clock, code, message, status)
    if call.attempt >= call.allowed:
        return Ending(call.id, call.token, "failed", error=error)
    return Ending(call.id, call.token, "retry", _delay(asked, back_off(call.attempt), clock), error)


def _released(call: Claimed, error: CallFailure, asked: float | None, clock: Clock) -> Ending:
    return Ending(call.id, call.token, "release", _delay(asked, UNSEEN_DELAY_S, clock), error)


def back_off(attempt: int) -> float:
    """Return the seconds between an attempt and the next, before jitter.

    Example:
        >>> [back_off(n) for n in (1, 2, 3, 20)]
        [1.0, 2.0, 4.0, 300.0]
    """
    return min(LONGEST_BACK_OFF_S, FIRST_BACK_OFF_S * 2.0 ** (attempt - 1))


def retry_after(value: str | None, now: float) -> float | None:
    """Return the seconds that a ``Retry-After`` asks for, at most an hour; None of one that says nothing.

    Args:
        value: seconds, or a date (RFC 9110, section 10.2.3).
        now: Unix seconds.
    """
    if value is None:
        return None
    if value.strip().isdigit():
        return min(float(value), LONGEST_RETRY_AFTER_S)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return min(max(0.0, moment.timestamp() - now), LONGEST_RETRY_AFTER_S)


def _delay(asked: float | None, otherwise: float, clock: Clock) -> float:
    """Return a delay with jitter: never less than was asked for, else up to a quarter more or less."""
    if asked is not None:
        return asked * (1 + JITTER * clock.random())
    return otherwise * (1 - JITTER + 2 * JITTER * clock.random())


def _problem(answer: Answer) -> tuple[str, str]:
    """Return code and title of a problem document; empty of anything else."""
    if not (answer.header("content-type") or "").startswith("application/problem+json"):
        return "", ""
    try:
        found: Any = json.loads(answer.body)
    except ValueError:
        return "", ""
    if not isinstance(found, dict):
        return "", ""
    return str(found.get("code", "")), str(found.get("title", ""))


def _failure(call: Claimed, clock: Clock, code: str, message: str, status: int | None = None) -> CallFailure:
    return CallFailure(code, message[:2000], attempt=call.attempt, at=round(clock.now, 3), status=status)


def _with_result(ending: Ending, answer: Answer) -> Ending:
    kept = tuple((n, v) for n, v in answer.headers if n.lower() not in _HOP)
    return dataclasses.replace(ending, status=answer.status, headers=kept, body=answer.body)
