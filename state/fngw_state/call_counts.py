"""How many calls wait, run and have ended, by deployment: what metrics tell. Read from indexes, never by a scan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Any

from fngw_state import call_scripts, keys
from fngw_state.call_records import ENDED, PRIORITIES

__all__ = ["CallCounts", "DeploymentCalls", "count_calls"]

#: Deployments of one script: Redis does nothing else meanwhile.
AT_ONCE = 100


@dataclass(frozen=True)
class DeploymentCalls:
    """The calls of one deployment.

    Args:
        waiting: those that wait for their turn, by priority.
        oldest_s: for how long the one of them has waited that was made first; None where none waits.
        delayed: those whose time has not come.
        running: those under way.
        dead: those that failed and are kept.
    """

    waiting: Mapping[str, int]
    oldest_s: float | None
    delayed: int
    running: int
    dead: int


@dataclass(frozen=True)
class CallCounts:
    """All calls.

    Args:
        deployments: those with calls that are kept.
        ended: how many ever ended, by deployment, then by status. Of callbacks the deployment is "".
        callbacks: those that have not ended.
    """

    deployments: Mapping[str, DeploymentCalls] = field(default_factory=dict)
    ended: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    callbacks: int = 0


async def count_calls(redis: Any) -> CallCounts:
    """Count all calls.

    Args:
        redis: a client from ``store.connect``.

    Example:
        >>> (await count_calls(store.redis)).deployments["Greeter"].waiting
        {'high': 0, 'default': 3, 'low': 0}
    """
    async with redis.pipeline(transaction=False) as pipe:
        pipe.hgetall(keys.CALLS_OPEN)
        pipe.hgetall(keys.CALLS_ENDED)
        opened, raw = await pipe.execute()
    ended = _by_deployment(raw)
    names = sorted({*opened, *ended} - {""})
    script, found = redis.register_script(call_scripts.COUNT), {}
    for start in range(0, len(names), AT_ONCE):
        some = names[start : start + AT_ONCE]
        found.update(_read(some, await script(args=some)))
    return CallCounts(found, ended, int(opened.get("", 0)))


def _by_deployment(raw: Mapping[str, str]) -> dict[str, dict[str, int]]:
    ended: dict[str, dict[str, int]] = {}
    for name, many in raw.items():
        status, _, deployment = name.partition(":")
        ended.setdefault(deployment, dict.fromkeys(sorted(ENDED), 0))[status] = int(many)
    return ended


def _read(names: Sequence[str], answer: Sequence[Any]) -> dict[str, DeploymentCalls]:
    """Return what ``COUNT`` answered."""
    now, values, found = datetime.fromisoformat(answer[0]), iter(answer[1:]), {}
    for name in names:
        waiting = dict(zip(PRIORITIES, islice(values, len(PRIORITIES)), strict=True))
        delayed, running, dead, since = islice(values, 4)
        waited = (now - datetime.fromisoformat(since)).total_seconds() if since else None
        found[name] = DeploymentCalls(waiting, waited, delayed, running, dead)
    return found
