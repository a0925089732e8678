"""``fngw calls``: calls that wait in the gateway's queue."""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from fngw.cli import report
from fngw.cli.options import AsJson, Timeout, Token, Url, use_gateway
from fngw.cli.schedule import schedule
from fngw.errors import FngwError

EXAMPLES = {
    "calls": (
        "fngw calls list --deployment Model --status failed",
        "fngw calls get 01KAQ7V2M4ZJ0C3S9W8X5T6RNE",
        "fngw calls result 01KAQ7V2M4ZJ0C3S9W8X5T6RNE --timeout 60",
        "fngw calls cancel 01KAQ7V2M4ZJ0C3S9W8X5T6RNE",
        "fngw calls retry 01KAQ7V2M4ZJ0C3S9W8X5T6RNE",
        "fngw calls schedule Model '0 6 * * mon-fri' --timezone Europe/Berlin --data '{\"full\": true}'",
        "fngw calls schedule Model --remove",
    ),
}


class Action(enum.StrEnum):
    """What to do."""

    list = enum.auto()
    get = enum.auto()
    result = enum.auto()
    cancel = enum.auto()
    retry = enum.auto()
    schedule = enum.auto()


class CallStatus(enum.StrEnum):
    """How a call goes."""

    queued = enum.auto()
    delayed = enum.auto()
    running = enum.auto()
    finished = enum.auto()
    failed = enum.auto()
    cancelled = enum.auto()


class Missed(enum.StrEnum):
    """What becomes of missed ticks."""

    skip = enum.auto()
    once = enum.auto()


Option = typer.Option
Doing = Annotated[Action, typer.Argument(help="What to do.")]
Words = Annotated[
    list[str] | None,
    typer.Argument(metavar="ID", help="The calls; of schedule: a deployment, and cron's fields in quotes."),
]
Of = Annotated[str | None, Option("--deployment", metavar="NAME", help="List its calls only.", show_default=False)]
In = Annotated[CallStatus | None, Option("--status", help="List calls in this state only.", show_default=False)]
Data = Annotated[
    str | None,
    Option("--data", metavar="JSON|@file|-", help="Schedule with this argument; - is stdin.", show_default=False),
]
Method = Annotated[str, Option("--method", metavar="M", help="Schedule a method other than __call__.")]
Zone = Annotated[str, Option("--timezone", metavar="ZONE", help="Where the schedule's clock hangs.")]
Missing = Annotated[Missed, Option("--missed", help="Ticks that passed while fngw was stopped: none, or one call.")]
As = Annotated[str, Option("--name", metavar="TEXT", help="The schedule's name, if not the deployment's.")]
Remove = Annotated[bool, Option("--remove", help="Remove the schedule of this name.")]
Limit = Annotated[int, Option("--limit", min=1, max=1000, metavar="N", help="List at most N, the newest first.")]


def calls(
    action: Doing,
    ids: Words = None,
    deployment: Of = None,
    status: In = None,
    limit: Limit = 50,
    timeout: Timeout = None,
    data: Data = None,
    method: Method = "",
    timezone: Zone = "UTC",
    missed: Missing = Missed.skip,
    name: As = "",
    remove: Remove = False,
    url: Url = None,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """List queued calls, look at one, print its result, cancel calls, try failed ones again; or call by the clock.

    `fngw call --async` makes one, as do handle.submit and HTTP requests with `Prefer: respond-async`. The result
    is waited for, up to --timeout. With --json: {"calls": [CALL]} of list; one CALL of get; {"result": VALUE};
    {"calls": [{"id", "status"}]} of cancel and retry.

    schedule NAME CRON calls a deployment as `fngw call` does, at the times that cron's five fields say; without
    words it lists the schedules. With --json: {"schedules": [SCHEDULE]}, one SCHEDULE, or {"removed": NAME}.
    """
    use_gateway(url, token)
    if action == Action.schedule:
        given = {"data": data, "method": method, "timezone": timezone, "missed": missed, "name": name}
        schedule(ids or (), {**given, "remove": remove}, as_json)
    elif action == Action.list:
        _no_ids(ids or ())
        _list(deployment, status, limit, as_json)
    elif action in (Action.get, Action.result):
        (_get if action == Action.get else _result)(_one_id(action, ids or ()), timeout, as_json)
    else:
        _change(action, ids or (), as_json)


def _list(deployment: str | None, status: CallStatus | None, limit: int, as_json: bool) -> None:
    from fngw.submitting import list_calls

    found = list_calls(deployment, status, limit)
    if as_json:
        report.show_json({"calls": found})
    elif not found:
        print("no calls")
    else:
        now = time.time()
        head = ("ID", "DEPLOYMENT", "STATUS", "ATTEMPTS", "AGE", "ERROR")
        print(report.table(head, [_row(call, now) for call in found]))


def _row(call: dict[str, Any], now: float) -> tuple[str, ...]:
    attempts = f"{call['attempts']} of {call['allowed']}"
    error = call["error"]["code"] if call["error"] else ""
    return call["id"], call["deployment"], call["status"], attempts, age(now - call["created"]), error


def age(seconds: float) -> str:
    """Return a span of time in its largest whole unit.

    Example:
        >>> age(59.9), age(7300), age(200_000)
        ('59s', '2h', '2d')
    """
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{max(0, int(seconds))}s"


def _get(call_id: str, timeout: float | None, as_json: bool) -> None:
    from fngw.submitting import Call

    info = Call.from_id(call_id).info()
    if as_json:
        report.show_json(info)
        return
    print(f"{info['id']}: {info['status']}, {info['method']} {info['target']} of {info['deployment']}")
    for name in ("created", "not_before", "started", "ended"):
        if info[name] is not None:
            print(f"  {name.replace('_', ' ')}: {_moment(info[name])}")
    print(f"  attempts: {info['attempts']} of {info['allowed']}")
    if info["result_status"] is not None:
        print(f"  answered: {info['result_status']}")
    for failed in info["tries"]:
        print(f"  attempt {failed['attempt']}: {failed['code']}: {failed['message']}")
    if info["callback"]:
        print(f"  tells {info['callback']['url']}{_how_it_went(info['callback']['id'])}")


def _how_it_went(callback_id: str | None) -> str:
    from fngw.submitting import Call

    if callback_id is None:
        return ", once it has ended"
    told = Call.from_id(callback_id).info()
    why = f": {told['error']['message']}" if told["error"] else ""
    return f" ({callback_id}): {told['status']}, attempt {told['attempts']} of {told['allowed']}{why}"


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _result(call_id: str, timeout: float | None, as_json: bool) -> None:
    from fngw.submitting import Call

    try:
        result = Call.from_id(call_id).result(timeout)
    except TimeoutError as error:
        raise FngwError(str(error), code="timeout", hint="the call goes on; ask again later") from None
    report.show_result(result, as_json)


def _change(action: Action, ids: Sequence[str], as_json: bool) -> None:
    from fngw.submitting import Call

    if not ids:
        raise report.usage_error(f"fngw calls {action} takes the ids of calls", "`fngw calls list` shows them")
    done = [_changed(Call.from_id(call_id), action) for call_id in ids]
    if as_json:
        report.show_json({"calls": done})
    else:
        print("\n".join(f"{call['id']}: {call['status']}" for call in done))


def _changed(call: Any, action: Action) -> dict[str, str]:
    change: Callable[[], object] = call.cancel if action == Action.cancel else call.retry
    change()
    info = call.info()
    return {"id": call.id, "status": "cancelling" if info["cancelling"] else info["status"]}


def _one_id(action: Action, ids: Sequence[str]) -> str:
    if len(ids) != 1:
        raise report.usage_error(f"fngw calls {action} takes one id", "`fngw calls list` shows them")
    return ids[0]


def _no_ids(ids: Sequence[str]) -> None:
    if ids:
        raise report.usage_error("fngw calls list takes no id", f"did you mean `fngw calls get {ids[0]}`?")
