"""The queue of builds as both of its ends see it: what a build is called, how to ask for one, who works on it.

The controller asks, a builder answers under ``keys.BUILD`` and nudges on ``keys.BUILT_CHANNEL``. The job names the
builder's function by a string, so that asking imports nothing of the builder.

A builder may die at any point. So whoever waits for a result calls ``ensure`` from time to time: it asks again
when nobody works on the build any more, and does nothing otherwise.

All of this is synchronous, because RQ is; call it with ``asyncio.to_thread`` from a loop.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import uuid
from typing import TYPE_CHECKING, Any

from redis import Redis

from fngw.spec import DeploymentSpec
from fngw_state import keys
from fngw_state.records import BuildRequest

if TYPE_CHECKING:
    from rq import Queue

#: The builder's function.
JOB = "fngw_builder.jobs.build"
#: The code of the error of a build that was cancelled.
CANCELLED = "build_cancelled"
#: A cold solve and download of a large environment takes minutes; an hour is a hang.
JOB_TIMEOUT_S = 3600
#: RQ's own record of a finished job. The result that matters is under ``keys.BUILD``.
JOB_KEPT_S = 60
FAILED_JOB_KEPT_S = 24 * 3600


def request_for(spec: DeploymentSpec, engine: str) -> BuildRequest:
    """Return what a deployment is built from.

    Args:
        spec: the deployment.
        engine: the name of the engine that is to run it.
    """
    return BuildRequest(
        engine="process" if engine == "process" else "docker",
        python=spec.python,
        bundle=spec.code.bundle,
        conda=spec.conda,
        pip=spec.pip,
        lock=spec.lock,
        upgrade=spec.upgrade,
        deployment=spec.name,
    )


def canonical(request: BuildRequest, **more: Any) -> bytes:
    """Return what decides a build as canonical JSON: sorted, without spaces, without what is only for log lines.

    Args:
        request: what to build.
        more: further members that decide the outcome, such as the base image's id.
    """
    decisive = {f.name: getattr(request, f.name) for f in dataclasses.fields(request) if f.compare}
    return json.dumps({**decisive, **more}, sort_keys=True, separators=(",", ":")).encode()


def request_key(request: BuildRequest) -> str:
    """Return the name of a build: 32 hex digits that depend on nothing but the request.

    Example:
        >>> request_key(BuildRequest("docker", "3.11", "sha256:…"))
        '5f0c…'
    """
    return hashlib.sha256(canonical(request)).hexdigest()[:32]


def connect(url: str) -> Redis:
    """Return a synchronous client as RQ wants it (it stores bytes, so answers are not decoded).

    Args:
        url: ``redis://[:password@]host:port/db`` or ``unix://[:password@]/path``.
    """
    over_tcp: dict[str, Any] = {} if url.startswith("unix:") else {"socket_keepalive": True}
    # To tell its version, redis-py looks it up among all installed packages: 3 ms of each connection.
    return Redis.from_url(url, socket_connect_timeout=5, driver_info=None, **over_tcp)


def _queue(connection: Redis) -> Queue:
    """Return the queue of builds. RQ is 6 MiB: a controller has it from its first build on."""
    from rq import Queue
    from rq.serializers import JSONSerializer

    return Queue(keys.BUILDS_QUEUE, connection=connection, serializer=JSONSerializer)


def enqueue(connection: Redis, request: BuildRequest, attempt: str | None = None) -> str:
    """Ask for a build, whether or not one is under way; return the job's id.

    Args:
        connection: from ``connect``.
        request: what to build.
        attempt: what tells this try from earlier ones of the same build; by default a random word.
    """
    key = request_key(request)
    # What an earlier build said is not about this one.
    connection.delete(keys.BUILD_LOG + key, keys.BUILD_PROGRESS + key)
    _queue(connection).enqueue_call(
        func=JOB,
        args=[request.to_json()],
        timeout=JOB_TIMEOUT_S,
        result_ttl=JOB_KEPT_S,
        failure_ttl=FAILED_JOB_KEPT_S,
        description=f"build for {request.deployment or 'no deployment'}",
        job_id=(job_id := f"build-{key}-{attempt or uuid.uuid4().hex[:12]}"),
    )
    return job_id


def queued(connection: Redis, key: str) -> bool:
    """Whether a job for this build waits for a builder."""
    return any(job_id.startswith(f"build-{key}-") for job_id in _queue(connection).get_job_ids())


def under_way(connection: Redis, key: str) -> bool:
    """Whether a job for this build waits, or a living builder works on it.

    It may say no for the moment between a job's leaving the queue and its first beat. Asking again then does no
    harm: the second job finds the build under way, or done.
    """
    return queued(connection, key) or bool(connection.exists(keys.BUILD_BEAT + key))


def cancel(connection: Redis, key: str) -> None:
    """Stop a build that nobody waits for any more, whether it waits for a builder or is under way."""
    queue = _queue(connection)
    for job_id in queue.get_job_ids():
        if job_id.startswith(f"build-{key}-"):
            queue.remove(job_id)
    interrupt(connection, key)


def interrupt(connection: Redis, key: str) -> None:
    """Wake the builder that holds a build's beat; unless it has landed, it stops there."""
    with connection.pipeline() as pipe:
        pipe.lpush(keys.BUILD_CANCEL + key, "")
        pipe.pexpire(keys.BUILD_CANCEL + key, keys.BUILD_BEAT_TTL_MS)
        pipe.execute()


def ensure(connection: Redis, request: BuildRequest) -> bool:
    """Ask for a build unless it is under way; tell whether it had to be asked for."""
    if under_way(connection, request_key(request)):
        return False
    enqueue(connection, request)
    return True
