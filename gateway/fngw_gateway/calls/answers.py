"""What the gateway answers about calls: their status as JSON, and results as the function gave them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fngw import protocol
from fngw.errors import FngwError
from fngw_gateway.proxy import headers, problems
from fngw_gateway.proxy.problems import Header
from fngw_state.call_records import Call, CallResult

__all__ = ["describe", "failure", "location", "result_headers", "send_result", "status_header"]


def location(call_id: str) -> str:
    """Return the path under which a call is looked at."""
    return protocol.CALLS_PREFIX + call_id


def status_header(call: Call) -> Header:
    """Return the header that tells a pending call from one whose function answered 202."""
    return protocol.CALL_STATUS_HEADER.encode(), call.status.encode()


def describe(call: Call) -> dict[str, Any]:
    """Return the JSON of one call."""
    return {
        "id": call.id,
        "status": call.status,
        "cancelling": call.cancelling and not call.has_ended,
        "deployment": call.deployment,
        "method": call.method,
        "target": call.target,
        "priority": call.priority,
        "attempts": call.attempt,
        "allowed": call.allowed,
        "retries": call.retries,
        "created": call.created,
        "not_before": call.not_before,
        "started": call.started,
        "ended": call.ended,
        "result_status": call.result_status,
        "error": None if call.error is None else call.error.to_dict(),
        "tries": [failed.to_dict() for failed in call.tries],
        "callback": None if call.callback is None else {"url": call.callback, "id": call.callback_id},
    }


def failure(call: Call) -> FngwError:
    """Return what is told of a call that ended without an answer of the function."""
    if call.status == "cancelled":
        text, hint = f"call {call.id} of {call.deployment} was cancelled", "make a new one"
        return FngwError(text, code="call_cancelled", status=409, hint=hint)
    why = call.error.message if call.error else "it is not known why"
    text = f"call {call.id} of {call.deployment} failed after {call.attempt} of {call.allowed} attempts: {why}"
    hint = f"`fngw calls retry {call.id}` tries it again"
    return FngwError(text, code="call_failed", status=502, hint=hint)


def result_headers(result: CallResult, own: Iterable[Header], *, head_only: bool) -> list[Header]:
    """Return the headers with which a result is given again, its length stated anew.

    Args:
        result: of the call.
        own: what the gateway adds.
        head_only: the answer is to a HEAD. That of a call that was a HEAD itself is not known: it is left out.
    """
    stored = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in result.headers]
    kept = headers.answer_headers(result.status, [h for h in stored if h[0] != b"content-length"], tuple(own))
    if result.status in (204, 304) or (head_only and not result.body):
        return kept
    return [*kept, (b"content-length", b"%d" % len(result.body))]


async def send_result(send: problems.Send, result: CallResult, own: Iterable[Header], *, head_only: bool) -> None:
    """Answer with a call's result.

    Args:
        send: ASGI's.
        result, own, head_only: as for ``result_headers``.
    """
    passed = result_headers(result, own, head_only=head_only)
    bodiless = head_only or result.status in (204, 304)
    await send({"type": "http.response.start", "status": result.status, "headers": passed})
    await send({"type": "http.response.body", "body": b"" if bodiless else result.body, "more_body": False})
