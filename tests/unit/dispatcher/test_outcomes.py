"""What an answer means for a call."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fngw_dispatcher import outcomes
from fngw_dispatcher.http import Answer, Lost, TooLarge, Unreached
from fngw_dispatcher.outcomes import Clock
from fngw_state.call_records import Claimed

MIDDLE = Clock(now=1_700_000_000.0, random=lambda: 0.5)


def call(attempt: int = 1, allowed: int = 4) -> Claimed:
    return Claimed("ID", 7, "call", "G", "POST", "/G", (), b"", None, attempt, allowed, 0.0)


def answer(status: int, *headers: tuple[str, str], problem: str = "") -> Answer:
    if not problem:
        return Answer(status, headers, b"body")
    body = json.dumps({"code": problem, "title": "the title"}).encode()
    return Answer(status, (*headers, ("Content-Type", "application/problem+json")), body)


@pytest.mark.parametrize("status", [200, 204, 302, 400, 404, 422])
def test_results_are_kept(status: int) -> None:
    ending = outcomes.of_answer(call(), answer(status, ("X", "y"), ("Connection", "close")), MIDDLE)
    assert (ending.what, ending.status, ending.body, ending.headers) == ("finished", status, b"body", (("X", "y"),))


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_what_is_tried_again(status: int) -> None:
    ending = outcomes.of_answer(call(attempt=2), answer(status), MIDDLE)
    assert (ending.what, ending.delay_s, ending.status) == ("retry", 2.0, None)
    assert ending.error is not None
    assert (ending.error.code, ending.error.status, ending.error.attempt) == (f"http_{status}", status, 2)


def test_the_last_attempts_answer_is_kept() -> None:
    ending = outcomes.of_answer(call(attempt=4), answer(500, problem="user_exception"), MIDDLE)
    assert (ending.what, ending.status) == ("failed", 500)
    assert ending.error is not None
    assert (ending.error.code, ending.error.message) == ("user_exception", "the title")


@pytest.mark.parametrize("code", ["no_replicas", "overloaded"])
def test_what_no_function_saw_is_released(code: str) -> None:
    ending = outcomes.of_answer(call(attempt=4), answer(503, ("Retry-After", "2"), problem=code), MIDDLE)
    assert (ending.what, ending.delay_s) == ("release", 2.25)


@pytest.mark.parametrize("code", ["deployment_not_found", "route_not_found"])
def test_a_deployment_that_is_gone(code: str) -> None:
    ending = outcomes.of_answer(call(), answer(404, problem=code), MIDDLE)
    assert (ending.what, ending.error and ending.error.code) == ("failed", "deployment_gone")


@pytest.mark.parametrize(
    ("error", "what", "code"),
    [
        (Unreached("refused"), "release", "gateway_unreachable"),
        (Lost("reset"), "retry", "connection_lost"),
        (TimeoutError(), "retry", "timeout"),
        (TooLarge("more"), "failed", "result_too_large"),
        (FileNotFoundError("x"), "failed", "payload_lost"),
    ],
)
def test_what_was_not_answered(error: Exception, what: str, code: str) -> None:
    ending = outcomes.of_error(call(), error, MIDDLE)
    assert (ending.what, ending.error and ending.error.code) == (what, code)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("7", 7.0),
        ("999999", 3600.0),
        ("-1", None),
        ("soon", None),
        ("Tue, 14 Nov 2023 22:13:30 GMT", 10.0),
        ("Tue, 14 Nov 2023 22:00:00 GMT", 0.0),
        ("Tue, 14 Nov 2033 22:00:00 GMT", 3600.0),
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert outcomes.retry_after(value, MIDDLE.now) == seconds


@given(attempt=st.integers(1, 21), luck=st.floats(0, 1), asked=st.none() | st.floats(0, 3600))
def test_delays_stay_within_bounds(attempt: int, luck: float, asked: float | None) -> None:
    ending = outcomes.again(call(attempt, 99), "x", "y", Clock(0.0, lambda: luck), asked)
    if asked is not None:
        assert asked <= ending.delay_s <= asked * 1.25
    else:
        base = min(300.0, 2.0 ** (attempt - 1))
        assert 0.75 * base <= ending.delay_s <= 1.25 * base
