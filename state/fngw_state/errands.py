"""Errands: short jobs for a builder, whose answer somebody waits for. They go through the queue of builds.

Only a builder sees the caches and the engine's images; asking one also shows that there is one. Synchronous, as RQ
is; call it with ``asyncio.to_thread`` from a loop.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from redis import Redis
from rq import Queue, Worker
from rq.results import Result
from rq.serializers import JSONSerializer

from fngw.errors import FngwError
from fngw_state import keys

__all__ = ["PRUNE", "SURVEY", "Workers", "run", "workers"]

#: The builder's functions. They take text and return what JSON can hold.
SURVEY = "fngw_builder.upkeep.survey"
PRUNE = "fngw_builder.upkeep.prune"
#: How long RQ keeps an answer that nobody came for.
KEPT_S = 60
#: How long one look for an answer lasts: redis-py takes a connection that is silent for 5 s for a lost one.
LOOK_S = 2


@dataclass(frozen=True)
class Workers:
    """How many builders are idle and busy, how many builds wait, and how many dispatchers of calls there are."""

    idle: int
    busy: int
    waiting: int
    dispatchers: int


def workers(connection: Redis) -> Workers:
    """Return what RQ knows of the builders and dispatchers that live: the record of one that died expires."""
    queue = Queue(keys.BUILDS_QUEUE, connection=connection, serializer=JSONSerializer)
    states = [worker.get_state() for worker in Worker.all(queue=queue, serializer=JSONSerializer)]
    others = len(Worker.all(connection, serializer=JSONSerializer)) - len(states)
    busy = states.count("busy")
    return Workers(idle=len(states) - busy, busy=busy, waiting=len(queue), dispatchers=max(0, others))


def run(connection: Redis, errand: str, *arguments: str, wait_s: int) -> Any:
    """Have a builder run an errand, before the builds that wait, and return its answer.

    Args:
        connection: from ``builds.connect``.
        errand: ``SURVEY`` or ``PRUNE``.
        arguments: the function's.
        wait_s: seconds to wait for the answer.

    Raises:
        FngwError: ``builder_silent``: none came in time; ``errand_failed``: it raised; ``detail`` is the traceback.
    """
    queue = Queue(keys.BUILDS_QUEUE, connection=connection, serializer=JSONSerializer)
    job = queue.enqueue_call(
        func=errand, args=arguments, timeout=wait_s, result_ttl=KEPT_S, failure_ttl=KEPT_S, at_front=True
    )
    result, deadline = None, time.monotonic() + wait_s
    while result is None and time.monotonic() < deadline:
        result = job.latest_result(timeout=min(wait_s, LOOK_S))
    if result is None:
        job.delete()
        raise FngwError(
            f"no builder answered within {wait_s} s",
            code="builder_silent",
            hint="it may be busy, or not run: `fngw doctor` tells, and so does its log",
            status=503,
        )
    if result.type is not Result.Type.SUCCESSFUL:
        raise FngwError(
            "the builder could not do it",
            code="errand_failed",
            hint="its log says more; if it stays, report the traceback as a bug of fngw",
            detail=str(result.exc_string or ""),
        )
    return result.return_value
