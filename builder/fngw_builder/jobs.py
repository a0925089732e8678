"""What the queue calls. Every outcome becomes a ``BuildResult`` under the build's key; no error is lost."""

from __future__ import annotations

import errno
import functools
import logging
import time
import traceback
from typing import Any

from rq import get_current_job
from rq.timeouts import JobTimeoutException

from fngw.errors import BuildFailed, FngwError, to_problem
from fngw_builder import image_build, images, local
from fngw_builder import plan as planning
from fngw_builder.environments import Environments
from fngw_builder.flight import Cancelled, Flight, record, release
from fngw_builder.made import Made
from fngw_builder.report import Report, Throttled
from fngw_builder.settings import BuilderSettings
from fngw_state import builds
from fngw_state.records import BuildRequest, BuildResult

log = logging.getLogger(__name__)

#: How long an engine may keep silent that nobody needs yet.
REHEARSAL_S = 1.0


@functools.cache
def how() -> BuilderSettings:
    """Return this process' settings: a builder reads them before it forks."""
    return BuilderSettings()


def rehearse() -> None:
    """Begin a build, for those that are forked from this process: what it has done before, a fork does in half the
    time, as its code is specialised and its caches are full."""
    request = BuildRequest("docker", "3.11", bundle="", pip=("--index-url https://example.org/simple", "x==1"))
    try:
        Environments(request, how(), Throttled(log.debug, log.debug))
        with images.engine(REHEARSAL_S) as engine:
            engine.find("fngw")
    except Exception as error:  # whatever it is, a build that meets it says so to who waits for it
        log.info("no rehearsal: %s", error)


def build(request_json: str) -> None:
    """Build what a request asks for, unless another builder is at it.

    Args:
        request_json: a ``BuildRequest``.
    """
    job, request = get_current_job(), BuildRequest.from_json(request_json)
    flight = Flight(job.connection, builds.request_key(request), token=job.id)
    with flight.alone() as alone:
        if alone:
            report = Throttled(flight.say, flight.tell)
            flight.finish(attempt(request, how(), report, flight.note))
        else:
            log.info("build %s: another builder is at it", flight.key)


def attempt(request: BuildRequest, settings: BuilderSettings, report: Report, note: images.Note) -> BuildResult:
    """Return how the build ended; never raises."""
    started, key = time.monotonic(), builds.request_key(request)
    try:
        made = make(request, settings, report, note)
    except Exception as error:
        failure = as_failure(error)
        log.warning("build %s for %s failed: %s", key, request.deployment, failure)
        report.say(f"failed: {failure.message}")
        return BuildResult(key, error=to_problem(failure), seconds=time.monotonic() - started)
    seconds = time.monotonic() - started
    what = made.artifact.ref or made.artifact.image
    report.say(f"{'reused' if made.reused else 'built'} {what} in {seconds:.2f} s")
    return BuildResult(key, made.artifact, reused=made.reused, seconds=seconds, layers=made.layers)


def as_failure(error: Exception) -> FngwError:
    """Return what a caller is told about an exception."""
    if isinstance(error, FngwError):
        return error
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return images.no_space(str(error))
    if isinstance(error, Cancelled):
        return BuildFailed(
            "the build was cancelled: nobody waited for it any more",
            code=builds.CANCELLED,
            hint="deploy again; what was downloaded so far is kept",
        )
    if isinstance(error, JobTimeoutException):
        return BuildFailed(
            f"the build took longer than {builds.JOB_TIMEOUT_S} s and was stopped",
            code="build_timeout",
            hint="deploy again; what was downloaded so far is kept",
        )
    return BuildFailed(
        f"the build crashed: {type(error).__name__}: {error}",
        code="build_crashed",
        hint="deploy again; if it stays, report the traceback as a bug of fngw",
        detail="".join(traceback.format_exception(error)),
    )


def make(
    request: BuildRequest, settings: BuilderSettings, report: Report, note: images.Note = lambda tag: None
) -> Made:
    """Build for the engine that the request names.

    Raises:
        BuildFailed: see the codes of ``plan``, ``local`` and ``image_build``.
    """
    planning.check(request)
    if request.engine == "process":
        return local.make(request, settings, report)
    with images.engine(settings.engine_timeout_s, note, settings.registry) as engine:
        return image_build.make(request, settings, engine, report)


def killed(job: Any, pid: int, status: int, usage: object) -> None:
    """Tell who waits that the process of a build was killed; the worker calls this.

    Without it, the build would be asked for again, and an environment that takes more memory than there is would
    kill its builder for ever.
    """
    if job.func_name != builds.JOB:  # an errand: whoever waits for its answer gives up by itself
        return
    request = BuildRequest.from_json(job.args[0])
    error = BuildFailed(
        f"the build's process was killed (wait status {status})",
        code="build_killed",
        hint="most often the machine ran out of memory: look at its kernel log, then deploy again",
    )
    key = builds.request_key(request)
    record(job.connection, BuildResult(key, error=to_problem(error)))
    release(job.connection, key, job.id)
