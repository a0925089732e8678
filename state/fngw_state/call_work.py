"""Calls that wait, as dispatchers see them: claim, renew, end, and tidy up.

A claim gives a lease and a fencing token. A dispatcher that does not renew loses its calls to the others, and what
it says of them afterwards is dropped. Nothing here decides what an answer means: see the dispatcher's ``outcomes``.
"""

from __future__ import annotations

import asyncio
import base64
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from fngw_state import call_work_scripts, keys
from fngw_state.call_records import CallFailure, CallLimits, Claimed, Headers
from fngw_state.calls import from_text, headers_from, to_text
from fngw_state.payloads import Payloads
from fngw_state.store import Store

__all__ = ["CallWork", "Ending", "Round", "What"]

What = Literal["finished", "failed", "cancelled", "retry", "release", "handover"]

LOST_CODE = "dispatcher_lost"


@dataclass(frozen=True)
class Round:
    """What one claim gave.

    Args:
        calls: to be sent now.
        next_due_s: seconds until the next scheduled call, if one is.
        more: whether more could have been claimed.
    """

    calls: tuple[Claimed, ...]
    next_due_s: float | None
    more: bool


@dataclass(frozen=True)
class Ending:
    """How a claimed call goes on.

    Args:
        what: it ended (finished, failed, cancelled), or is tried again: ``retry`` after ``delay_s``; ``release``
            likewise, but this attempt does not count, since the function did not see it; ``handover`` at once,
            counted but not charged to its retries, since this dispatcher stops.
        error: why.
        status, headers, body: of the answer that is kept as its result, if any.
        digest: the file that holds the body instead, written before.
    """

    id: str
    token: int
    what: What
    delay_s: float = 0.0
    error: CallFailure | None = None
    status: int | None = None
    headers: Headers = ()
    body: bytes = b""
    digest: str = ""
    size: int = 0

    def args(self) -> list[str]:
        """Return it as ``call_work_scripts.END`` wants it."""
        return [
            self.id,
            str(self.token),
            self.what,
            repr(self.delay_s),
            self.error.to_json() if self.error else "",
            "" if self.status is None else str(self.status),
            json.dumps(self.headers, separators=(",", ":")) if self.headers else "[]",
            "" if self.digest else to_text(self.body),
            self.digest,
            str(self.size or len(self.body)),
            _for_rq(self.error) if self.error else "",
        ]


def _for_rq(error: CallFailure) -> str:
    """Return an error as RQ keeps it with a job's result."""
    return base64.b64encode(zlib.compress(f"{error.code}: {error.message}".encode())).decode()


class CallWork:
    """The calls that one dispatcher holds.

    Args:
        store: the state.
        payloads: where large bodies lie.
        limits: how long ended calls are kept.
        dispatcher: its name, as RQ knows it.
        lease_s: seconds for which a claim holds unless it is renewed.
    """

    def __init__(
        self, store: Store, payloads: Payloads, limits: CallLimits, dispatcher: str, lease_s: float
    ) -> None:
        self._redis: Any = store.redis
        self._payloads = payloads
        self._limits = limits
        self.dispatcher = dispatcher
        self.lease_s = lease_s
        register = store.redis.register_script
        self._claim = register(call_work_scripts.CLAIM)
        self._end = register(call_work_scripts.END)
        self._renew = register(call_work_scripts.RENEW)
        self._lapse = register(call_work_scripts.LAPSE)
        self._forget = register(call_work_scripts.FORGET)
        self._unpin = register(call_work_scripts.UNPIN)
        self._adopt = register(call_work_scripts.ADOPT)

    async def wait(self, family: Literal["calls", "callbacks"], seconds: float) -> None:
        """Return when there may be something to claim, at the latest after some seconds."""
        await self._redis.blpop([keys.CALLS_WAKE + family], timeout=max(seconds, 0.01))

    async def claim(
        self, queues: Sequence[str], free: int, limits: Mapping[str, int], default_limit: int = 1
    ) -> Round:
        """Take calls to send.

        Args:
            queues: RQ queues, the more urgent first.
            free: how many at most.
            limits: how many calls of a deployment may be under way, over all dispatchers.
            default_limit: the same of deployments that are not in ``limits``.
        """
        args = [self.dispatcher, str(free), repr(self.lease_s), str(default_limit), json.dumps(limits), *queues]
        due, more, *rows = await self._claim(args=args)
        return Round(tuple(map(_claimed, rows)), float(due) if due else None, bool(more))

    async def body(self, call: Claimed) -> bytes:
        """Return a claimed call's body."""
        return await asyncio.to_thread(self._payloads.read, call.digest) if call.digest else call.body

    async def end(self, endings: Sequence[Ending]) -> list[bool]:
        """Let go of calls; return for each whether it was still this dispatcher's."""
        args = [self.dispatcher, str(self._limits.result_ttl_s), str(self._limits.dead_ttl_s)]
        for ending in endings:
            args += ending.args()
        return [bool(done) for done in await self._end(args=args)]

    async def renew(self, held: Iterable[tuple[str, int]]) -> tuple[list[str], list[str]]:
        """Prolong leases; return the ids of calls that are no longer this dispatcher's, and of those to cancel."""
        args = [part for call_id, token in held for part in (call_id, str(token))]
        lost, cancelled = await self._renew(args=[repr(self.lease_s), *args])
        return lost, cancelled

    # -- upkeep; any dispatcher does it for all -----------------------------------------------------------

    async def lapse(self) -> int:
        """Take the calls of dead dispatchers back into their queues; return how many."""
        error = CallFailure(LOST_CODE, "the dispatcher that sent it died, or was paused too long")
        head = json.dumps({"code": error.code, "message": error.message})[:-1]
        ttls = [str(self._limits.result_ttl_s), str(self._limits.dead_ttl_s)]
        return int(await self._lapse(args=[*ttls, head]))

    async def forget(self) -> int:
        """Forget calls whose time is over; return how many."""
        return int(await self._forget(args=[str(keys.CALL_KNOWN_S)]))

    async def remove_payloads(self, now: float, limit: int = 200) -> int:
        """Remove files that no record has named for a while; return how many."""
        digests = await self._redis.zrangebyscore(keys.PAYLOADS_IDLE, "-inf", now, start=0, num=limit)
        loop = asyncio.get_running_loop()

        def unwanted(digest: str) -> bool:
            return bool(asyncio.run_coroutine_threadsafe(self._unpin(args=[digest]), loop).result())

        removed = 0
        for digest in digests:
            removed += await asyncio.to_thread(self._payloads.remove, digest, partial(unwanted, digest))
        return removed

    async def sweep(self) -> int:
        """Look, once an hour among all dispatchers, for files that Redis knows nothing of; return how many it was.

        They go an hour later, unless a record names them by then.
        """
        mine = await self._redis.set(keys.PAYLOADS_SWEPT, self.dispatcher, nx=True, ex=keys.PAYLOADS_SWEEP_S)
        if not mine:
            return 0
        await asyncio.to_thread(self._payloads.clear_drafts)
        folders, adopted = self._payloads.files(), 0
        while (files := await asyncio.to_thread(next, folders, None)) is not None:
            args = [str(part) for file in files.items() for part in file]
            adopted += await self._adopt(args=[str(keys.PAYLOAD_IDLE_S), *args])
        return adopted


def _claimed(row: list[Any]) -> Claimed:
    call_id, token, attempt, kind, deployment, method, target, headers, body, digest, allowed, timeout, parent = row
    return Claimed(
        id=call_id,
        token=int(token),
        kind=kind,
        deployment=deployment,
        method=method,
        url=target,
        headers=headers_from(headers),
        body=from_text(body or ""),
        digest=digest or None,
        attempt=int(attempt),
        allowed=int(allowed),
        timeout_s=float(timeout or 0),
        parent=parent or None,
    )
