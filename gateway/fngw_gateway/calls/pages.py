"""``/-/calls``: looking at calls, their results, cancelling them, and trying failed ones again.

Whoever has a call's id may look at it, take its result and cancel it, as with the answer to the request that it
was: an id cannot be guessed. Listing calls, and trying one again, is for who has the gateway's token.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import JSONResponse

from fngw.errors import FngwError
from fngw_gateway.api.access import check_access
from fngw_gateway.calls import answers
from fngw_gateway.calls.prefer import LONGEST_WAIT_S
from fngw_state.call_records import Call, CallResult
from fngw_state.calls import Calls

__all__ = ["router"]

router = APIRouter(tags=["calls"], prefix="/-/calls")

MOST_LISTED = 1000

Wait = Annotated[float, Query(ge=0, le=LONGEST_WAIT_S, description="Seconds to wait for its end.")]


class _Replay(Response):
    """A call's result as an answer."""

    def __init__(self, result: CallResult, call: Call) -> None:
        super().__init__()
        self._result = result
        self._call = call

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        own = [answers.status_header(self._call)]
        await answers.send_result(send, self._result, own, head_only=scope["method"] == "HEAD")


def _calls(request: Request) -> Calls:
    calls: Calls = request.app.state.calls
    return calls


def _check_outside(request: Request) -> None:
    """Let in who has the token, and no replica: ids let see results, and code in containers is not trusted."""
    check_access(request)
    if request.scope["server"][1] is None:
        text, hint = "replicas may not list calls", "ask from outside, through the gateway's URL"
        raise FngwError(text, code="forbidden_from_replica", status=403, hint=hint)


def _pending(call: Call) -> JSONResponse:
    headers = [answers.status_header(call), (b"location", answers.location(call.id).encode())]
    given = {name.decode(): value.decode() for name, value in headers}
    return JSONResponse({"id": call.id, "status": call.status}, 202, given)


@router.get("", dependencies=[Depends(_check_outside)])
async def list_calls(
    request: Request,
    deployment: str | None = None,
    status: Literal["queued", "delayed", "running", "finished", "failed", "cancelled"] | None = None,
    limit: Annotated[int, Query(ge=1, le=MOST_LISTED)] = 100,
) -> dict[str, Any]:
    """Calls, the newest first."""
    found = await _calls(request).list(deployment, status, limit)
    return {"calls": [answers.describe(call) for call in found]}


@router.api_route("/{call_id}", methods=["GET", "HEAD"])
async def get_call(call_id: str, request: Request, wait: Wait = 0) -> Response:
    """One call: how it goes, or how it went. With ``wait``, as soon as it has ended."""
    call = await _calls(request).wait(call_id, wait)
    name, value = answers.status_header(call)
    return JSONResponse(answers.describe(call), headers={name.decode(): value.decode()})


@router.api_route("/{call_id}/result", methods=["GET", "HEAD"])
async def get_result(call_id: str, request: Request, wait: Wait = 0) -> Response:
    """What the function answered: its status, headers and body. 202 while it has not."""
    calls = _calls(request)
    call = await calls.wait(call_id, wait)
    if not call.has_ended:
        return _pending(call)
    result = await calls.result(call_id)
    if result is None:
        raise answers.failure(call)
    return _Replay(result, call)


@router.delete("/{call_id}")
async def cancel_call(call_id: str, request: Request) -> dict[str, Any]:
    """Cancel a call. One that has ended stays as it is; one under way is stopped in a moment."""
    return answers.describe(await _calls(request).cancel(call_id))


@router.post("/{call_id}/retry", status_code=202, dependencies=[Depends(check_access)])
async def retry_call(call_id: str, request: Request) -> Response:
    """Queue a failed call once more, with as many attempts as a new one."""
    return _pending(await _calls(request).retry(call_id))
