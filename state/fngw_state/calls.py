"""Calls that wait, as who makes them sees them: accept, look, wait for, cancel, retry.

The dispatcher's side is ``call_work``. What both must agree on is in ``call_scripts``: records, RQ's jobs and
counts change together, in one Lua script for each step.

A call that ``accept`` returned is in Redis, and in its append-only file: Redis answers after the write to that
file. So a ``kill -9`` of any process loses none; a power cut may lose the last second, unless Redis is told to sync
every write.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from collections.abc import Sequence
from contextlib import suppress
from itertools import chain
from typing import Any

from fngw.errors import CallNotFound, FngwError, Overloaded, ValidationError
from fngw_state import call_scripts, keys
from fngw_state.batched import Batched
from fngw_state.call_counts import CallCounts, count_calls
from fngw_state.call_ids import is_call_id, new_call_id
from fngw_state.call_records import (
    MAX_RETRIES,
    PRIORITIES,
    STATUSES,
    Accepted,
    Call,
    CallLimits,
    CallResult,
    Expired,
    Headers,
    NewCall,
    Status,
    queue_of,
    rank_of,
)
from fngw_state.cancellable import cancel
from fngw_state.payloads import Payloads, digest_of
from fngw_state.store import Store
from fngw_state.watch import watch

__all__ = ["Calls", "from_text", "headers_from", "to_text"]

#: A waiter looks by itself this often, too: a nudge may be lost.
LOOK_EVERY_S = 5.0


def to_text(body: bytes) -> str:
    """Return any bytes as text that Redis' decoding client can carry; ASCII stays as short as it is."""
    return body.decode("latin-1")


def from_text(text: str) -> bytes:
    """Return the bytes that ``to_text`` was given."""
    return text.encode("latin-1")


def headers_from(text: str) -> Headers:
    """Return the headers of a record."""
    return tuple((name, value) for name, value in json.loads(text))


class Calls:
    """All calls of one fngw installation.

    Args:
        store: the state.
        payloads: where large bodies lie.
        limits: how much is taken in and kept.

    Example:
        >>> calls = Calls(store, Payloads(layout.payloads))
        >>> accepted = await calls.accept(NewCall("Greeter", "POST", "/Greeter", body=b"hello"))
        >>> call = await calls.wait(accepted.id, 10)
        >>> await calls.result(accepted.id)
    """

    def __init__(self, store: Store, payloads: Payloads, limits: CallLimits | None = None) -> None:
        self._redis: Any = store.redis
        self._payloads = payloads
        self.limits = limits or CallLimits()
        self._accept = Batched(store.redis, call_scripts.ACCEPT)
        self._cancel = store.redis.register_script(call_scripts.CANCEL)
        self._retry = store.redis.register_script(call_scripts.RETRY)
        self._await = store.redis.register_script(call_scripts.AWAIT)
        self._pin = store.redis.register_script(call_scripts.PIN)
        self._ended: dict[str, set[asyncio.Event]] = {}
        self._listener: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Stop listening; waiters return at their next look."""
        await self._accept.close()
        if self._listener is not None:
            await cancel(self._listener)
            self._listener = None

    # -- making calls -------------------------------------------------------------------------------------

    async def accept(self, new: NewCall) -> Accepted:
        """Store a call for good.

        Returns:
            Its id, or that of the call that has the same idempotency key and request.

        Raises:
            ValidationError: a value that cannot work, or (``idempotency_key_reused``) the key had another request.
            FngwError: ``body_too_large``.
            Overloaded: ``calls_full``: the deployment has as many as it may, or the disk does.
        """
        _check(new, self.limits)
        digest = await self._store_body(new.deployment, new.body)
        call_id = new_call_id()
        answer, detail = await self._accept(self._accept_args(call_id, new, digest))
        if answer == "full":
            raise _full(f"{new.deployment} has {detail} calls that wait or run, as many as it may")
        if answer == "reused":
            raise ValidationError(
                f"Idempotency-Key {new.idempotency_key!r} was used for another request to {new.deployment}",
                code="idempotency_key_reused",
                hint=f"use a new key for a new request; the earlier call is {detail}",
            )
        return Accepted(detail, created=answer == "created")

    def _accept_args(self, call_id: str, new: NewCall, digest: str) -> list[str]:
        record = {
            "method": new.method,
            "target": new.target,
            "headers": json.dumps(new.headers, separators=(",", ":")),
            "body": "" if digest else to_text(new.body),
            "priority": new.priority,
            "retries": str(new.retries),
            "allowed": str(new.retries + 1),
            "timeout": repr(new.timeout_s),
            "callback": new.callback or "",
        }
        return [
            call_id,
            new.deployment,
            queue_of(new.priority),
            _key(new),
            _fingerprint(new) if new.idempotency_key is not None else "",
            str(self.limits.max_queued),
            repr(new.delay_s),
            digest,
            str(len(new.body)),
            f"{new.deployment}: {new.method} {new.target[:200]}",
            str(new.retries),
            *(part for pair in record.items() for part in pair),
        ]

    async def _store_body(self, deployment: str, body: bytes) -> str:
        """Write a large body to its file; return its digest, or "" for one that fits into the record."""
        if len(body) <= self.limits.inline:
            return ""
        digest = await self.store_payload(body)
        if digest is None:
            raise _full(f"{deployment}: the bodies and results of queued calls take all the space they may")
        return digest

    async def store_payload(self, body: bytes) -> str | None:
        """Have a body on disk, safe for an hour from removal; None when there is no space for it."""
        digest = await asyncio.to_thread(digest_of, body)
        bound = str(self.limits.max_payloads)
        if not await self._pin(args=[digest, str(len(body)), bound, str(keys.PAYLOAD_IDLE_S)]):
            return None
        await asyncio.to_thread(self._payloads.write, digest, body)
        return digest

    # -- looking at calls ---------------------------------------------------------------------------------

    async def get(self, call_id: str) -> Call | Expired | None:
        """Return what is known of a call; None of one that never was, or was long ago."""
        if not is_call_id(call_id):
            return None
        fields = await self._redis.hgetall(keys.CALL + call_id)
        if fields:
            return Call.from_fields(call_id, fields)
        status = await self._redis.get(keys.CALL_GONE + call_id)
        return Expired(call_id, status) if status else None

    async def find(self, call_id: str) -> Call:
        """Return a call.

        Raises:
            CallNotFound: there is none with this id; code ``call_expired`` where its result is gone.
        """
        found = await self.get(call_id)
        if isinstance(found, Call):
            return found
        raise _missing(call_id, found)

    async def result(self, call_id: str) -> CallResult | None:
        """Return what the function answered; None while it has not, and of a call without an answer.

        Raises:
            CallNotFound: as ``find``.
        """
        names = ("result_status", "result_headers", "result_body", "result_digest")
        status, headers, body, digest = await self._redis.hmget(keys.CALL + call_id, names)
        if not status:
            await self.find(call_id)
            return None
        try:
            content = await asyncio.to_thread(self._payloads.read, digest) if digest else from_text(body)
        except FileNotFoundError:
            raise _missing(call_id, Expired(call_id, "finished")) from None
        return CallResult(int(status), headers_from(headers), content)

    async def wait(self, call_id: str, seconds: float) -> Call:
        """Return a call once it has ended, or as it is after some seconds.

        Raises:
            CallNotFound: as ``find``.
        """
        call = await self.find(call_id)
        if call.has_ended or seconds <= 0:
            return call
        nudge = self._listen(call_id)
        try:
            await self._await(args=[call_id])
            end = asyncio.get_running_loop().time() + seconds
            while True:
                call = await self.find(call_id)
                left = end - asyncio.get_running_loop().time()
                if call.has_ended or left <= 0:
                    return call
                with suppress(TimeoutError):
                    async with asyncio.timeout(min(left, LOOK_EVERY_S)):
                        await nudge.wait()
                nudge.clear()
        finally:
            self._unlisten(call_id, nudge)

    def _listen(self, call_id: str) -> asyncio.Event:
        if self._listener is None or self._listener.done():
            self._listener = asyncio.create_task(self._nudge(), name="ended calls")
        event = asyncio.Event()
        self._ended.setdefault(call_id, set()).add(event)
        return event

    def _unlisten(self, call_id: str, event: asyncio.Event) -> None:
        events = self._ended[call_id]
        events.discard(event)
        if not events:
            del self._ended[call_id]

    async def _nudge(self) -> None:
        async for message in watch(self._redis, keys.CALL_ENDED_CHANNEL):
            for call_id in [message[1]] if message else list(self._ended):
                for event in self._ended.get(call_id, ()):
                    event.set()

    async def list(
        self, deployment: str | None = None, status: Status | None = None, limit: int = 100
    ) -> tuple[Call, ...]:
        """Return calls, the newest first.

        Args:
            deployment: only its calls.
            status: only those with this status.
            limit: at most so many.
        """
        ids = await self._newest(deployment, STATUSES if status is None else (status,), limit)
        return tuple(call for call in await self._fetch(ids) if status in (None, call.status))

    async def _newest(self, deployment: str | None, statuses: Sequence[Status], limit: int) -> Sequence[str]:
        """Return ids from an index: it knows each priority of each status apart, each by age."""
        key = keys.CALLS if deployment is None else keys.CALLS_OF + deployment
        async with self._redis.pipeline(transaction=False) as pipe:
            for rank in (rank_of(status, priority) for status in statuses for priority in PRIORITIES):
                pipe.zrange(key, rank, rank, desc=True, byscore=True, offset=0, num=limit)
            found = await pipe.execute()
        return sorted(chain.from_iterable(found), reverse=True)[:limit]

    async def _fetch(self, ids: Sequence[str]) -> Sequence[Call]:
        async with self._redis.pipeline(transaction=False) as pipe:
            for call_id in ids:
                pipe.hmget(keys.CALL + call_id, _LISTED)
            rows = await pipe.execute()
        known = [(i, dict(zip(_LISTED, row, strict=True))) for i, row in zip(ids, rows, strict=True) if row[0]]
        return [Call.from_fields(i, {k: v for k, v in row.items() if v is not None}) for i, row in known]

    async def count(self) -> CallCounts:
        """Return how many calls wait, run and have ended."""
        return await count_calls(self._redis)

    # -- changing calls -----------------------------------------------------------------------------------

    async def cancel(self, call_id: str) -> Call:
        """Stop a call; one that has ended stays as it is. One under way ends as soon as its dispatcher hears of it.

        Raises:
            CallNotFound: as ``find``.
        """
        if is_call_id(call_id):
            await self._cancel(args=[call_id, str(self.limits.result_ttl_s)])
        return await self.find(call_id)

    async def retry(self, call_id: str) -> Call:
        """Queue a call that failed once more, with as many attempts as a new one.

        Raises:
            CallNotFound: as ``find``.
            FngwError: ``call_not_failed``.
        """
        before = await self._retry(args=[call_id]) if is_call_id(call_id) else None
        call = await self.find(call_id)
        if before != "failed":
            raise FngwError(
                f"call {call_id} is {before}: only a failed call can be tried again",
                code="call_not_failed",
                status=409,
                hint="make a new call",
            )
        return call


#: What a list shows of a call; no error of each attempt.
_LISTED = (
    *("status", "deployment", "method", "target", "priority", "attempt", "allowed", "retries"),
    *("created", "not_before"),
    *("started", "ended", "error", "result_status", "callback", "callback_id", "cancel"),
)


def _check(new: NewCall, limits: CallLimits) -> None:
    if len(new.body) > limits.max_body:
        raise FngwError(
            f"{new.deployment}: a body of {len(new.body)} bytes is more than a queued call may have",
            code="body_too_large",
            status=413,
            hint=f"at most {limits.max_body} bytes (FNGW_MAX_CALL_BODY); other requests may be larger",
        )
    if not 0 <= new.retries <= MAX_RETRIES:
        raise ValidationError(f"Fngw-Retries: {new.retries} is not from 0 to {MAX_RETRIES}")
    if not 0 <= new.delay_s < float("inf"):
        raise ValidationError(f"Fngw-Delay: {new.delay_s} is not a number of seconds from 0")


def _key(new: NewCall) -> str:
    if new.idempotency_key is None:
        return ""
    return f"{keys.CALL_KEY}{new.deployment}:{hashlib.sha256(new.idempotency_key.encode()).hexdigest()[:40]}"


def _fingerprint(new: NewCall) -> str:
    """What makes two requests the same: method, target and body."""
    head = json.dumps([new.method, new.target]).encode()
    return hashlib.sha256(head + b"\0" + new.body).hexdigest()


def _full(message: str) -> Overloaded:
    error = Overloaded(message, code="calls_full", status=429, hint="try again later")
    error.retry_after_s = random.randint(5, 15)
    return error


def _missing(call_id: str, found: Expired | None) -> CallNotFound:
    if found is None:
        return CallNotFound(f"no call has the id {call_id!r}", hint="`fngw calls list` shows those there are")
    return CallNotFound(
        f"call {call_id} ended ({found.status}) and its result has expired",
        code="call_expired",
        status=410,
        hint="results are kept for FNGW_CALL_RESULT_TTL seconds",
    )
