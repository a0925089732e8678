"""What is known of calls that wait, as data. Times are Unix seconds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from fngw_state import keys

__all__ = [
    "PRIORITIES",
    "STATUSES",
    "Accepted",
    "Call",
    "CallFailure",
    "CallLimits",
    "CallResult",
    "Claimed",
    "Expired",
    "Headers",
    "NewCall",
    "Priority",
    "Status",
    "queue_of",
    "rank_of",
]

Headers = tuple[tuple[str, str], ...]
Priority = Literal["high", "default", "low"]
Status = Literal["queued", "delayed", "running", "finished", "failed", "cancelled"]

PRIORITIES: tuple[Priority, ...] = ("high", "default", "low")
STATUSES: tuple[Status, ...] = ("queued", "delayed", "running", "finished", "failed", "cancelled")
#: The statuses of a call that has ended.
ENDED: frozenset[str] = frozenset({"finished", "failed", "cancelled"})
MAX_RETRIES = 20


def queue_of(priority: str) -> str:
    """Return the name of the RQ queue of a priority."""
    return dict(zip(PRIORITIES, keys.CALL_QUEUES, strict=True))[priority]  # type: ignore[index]


def rank_of(status: Status, priority: Priority) -> int:
    """Return the score of a call in the indexes: calls of one status and priority lie together."""
    return STATUSES.index(status) * len(PRIORITIES) + PRIORITIES.index(priority)


@dataclass(frozen=True)
class CallLimits:
    """How much is taken in and for how long it is kept; bytes and seconds."""

    max_body: int = 8 * 2**20
    inline: int = 16 * 2**10  # what is larger lies in a file
    max_queued: int = 100_000  # per deployment
    max_payloads: int = 16 * 2**30  # all files together
    result_ttl_s: int = 24 * 3600
    dead_ttl_s: int = 7 * 24 * 3600


@dataclass(frozen=True)
class NewCall:
    """A request that is to be sent to a deployment later.

    Args:
        deployment: whose it is.
        method: of HTTP.
        target: path and query as they came, such as ``"/greeter/hello?x=1"``; of a handle's call
            ``"/-/call/<deployment>/<method>"``.
        headers: what the function shall see; without hop-by-hop ones and those that only tell how to queue.
        body: all of it.
        retries: how often it is tried again, 0 to 20.
        delay_s: seconds before the first attempt.
        timeout_s: seconds for an attempt; 0: as long as the deployment lets it.
        idempotency_key: the caller's name for it.
        callback: URL that is told of its end.
    """

    deployment: str
    method: str
    target: str
    headers: Headers = ()
    body: bytes = b""
    priority: Priority = "default"
    retries: int = 3
    delay_s: float = 0.0
    timeout_s: float = 0.0
    idempotency_key: str | None = None
    callback: str | None = None


@dataclass(frozen=True)
class Accepted:
    """The call's id, and whether it is new: false when the same idempotency key had come before."""

    id: str
    created: bool


@dataclass(frozen=True)
class CallFailure:
    """Why an attempt, or the whole call, failed.

    Args:
        code: for programs.
        message: what happened.
        attempt: which attempt it was.
        at: when.
        status: the HTTP status that was answered, if any.
    """

    code: str
    message: str
    attempt: int = 0
    at: float = 0.0
    status: int | None = None

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), separators=(",", ":"))

    def to_dict(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if v is not None}

    @classmethod
    def from_json(cls, text: str) -> CallFailure:
        return cls(**json.loads(text))


@dataclass(frozen=True)
class Call:
    """What is known of a call, without bodies.

    Args:
        attempt: how often it was started.
        allowed: how often it may be: once, its retries, and as many again each time a dead letter is queued again.
        error: why it failed, or why its last attempt did.
        tries: the failures of its attempts, the first one first.
        result_status: the HTTP status of its result.
        callback_id: the id of the call that tells its callback, once it has ended.
    """

    id: str
    status: Status
    deployment: str
    method: str
    target: str
    priority: Priority
    attempt: int
    allowed: int
    retries: int
    created: float
    not_before: float | None = None
    started: float | None = None
    ended: float | None = None
    error: CallFailure | None = None
    tries: tuple[CallFailure, ...] = ()
    result_status: int | None = None
    callback: str | None = None
    callback_id: str | None = None
    cancelling: bool = False

    @property
    def has_ended(self) -> bool:
        return self.status in ENDED

    @classmethod
    def from_fields(cls, call_id: str, fields: Mapping[str, str]) -> Call:
        """Return what a record's hash says."""
        return cls(
            id=call_id,
            status=fields["status"],  # type: ignore[arg-type]
            deployment=fields["deployment"],
            method=fields["method"],
            target=fields["target"],
            priority=fields.get("priority", "default"),  # type: ignore[arg-type]
            attempt=int(fields.get("attempt", 0)),
            allowed=int(fields["allowed"]),
            retries=int(fields.get("retries", 0)),
            created=float(fields["created"]),
            not_before=_number(fields, "not_before"),
            started=_number(fields, "started"),
            ended=_number(fields, "ended"),
            error=CallFailure.from_json(fields["error"]) if fields.get("error") else None,
            tries=_tries(fields),
            result_status=int(fields["result_status"]) if fields.get("result_status") else None,
            callback=fields.get("callback") or None,
            callback_id=fields.get("callback_id") or None,
            cancelling=fields.get("cancel") == "1",
        )


def _number(fields: Mapping[str, str], name: str) -> float | None:
    return float(fields[name]) if fields.get(name) else None


def _tries(fields: Mapping[str, str]) -> tuple[CallFailure, ...]:
    found = [CallFailure.from_json(text) for name, text in fields.items() if name.startswith("error:")]
    return tuple(sorted(found, key=lambda failure: failure.attempt))


@dataclass(frozen=True)
class Expired:
    """A call that ended so long ago that its result is gone."""

    id: str
    status: Status


@dataclass(frozen=True)
class CallResult:
    """What the function answered."""

    status: int
    headers: Headers
    body: bytes = field(repr=False)


@dataclass(frozen=True)
class Claimed:
    """A call that a dispatcher holds: to be sent now.

    Args:
        token: the fencing token; what ends the call must bring it.
        attempt: this one's number.
        allowed: after this attempt it is not tried again.
        url: where it is sent to: a target of the gateway, or, for a callback, a whole URL.
        digest: names the file of its body, if it has one.
    """

    id: str
    token: int
    kind: Literal["call", "callback"]
    deployment: str
    method: str
    url: str
    headers: Headers
    body: bytes = field(repr=False)
    digest: str | None
    attempt: int
    allowed: int
    timeout_s: float
    parent: str | None = None
