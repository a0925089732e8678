"""What the queue calls. Every outcome becomes a ``BuildResult`` under the build's key; no error is lost."""

from __future__ import annotations

import errno
import logging
import tempfile
import time
import traceback
from collections.abc import Callable
from typing import Any

from rq import get_current_job
from rq.timeouts import JobTimeoutException

from fngw.errors import BuildFailed, FngwError, to_problem
from fngw_builder import bundle, code_layer, images, local
from fngw_builder import plan as planning
from fngw_builder.flight import Flight, record, release
from fngw_builder.settings import BuilderSettings
from fngw_state import builds
from fngw_state.records import Artifact, BuildRequest, BuildResult

log = logging.getLogger(__name__)

Say = Callable[[str], None]
Outcome = tuple[Artifact, bool]  # and whether it was there already


def build(request_json: str) -> None:
    """Build what a request asks for, unless another builder is at it.

    Args:
        request_json: a ``BuildRequest``.
    """
    settings = BuilderSettings()
    request = BuildRequest.from_json(request_json)
    connection = builds.connect(settings.redis_url)
    flight = Flight(connection, builds.request_key(request), token=get_current_job().id)
    try:
        with flight.alone() as alone:
            if alone:
                flight.finish(attempt(request, settings, flight.say))
            else:
                log.info("build %s: another builder is at it", flight.key)
    finally:
        connection.close()


def attempt(request: BuildRequest, settings: BuilderSettings, say: Say) -> BuildResult:
    """Return how the build ended; never raises."""
    started, key = time.monotonic(), builds.request_key(request)
    try:
        artifact, reused = make(request, settings, say)
    except Exception as error:
        failure = as_failure(error)
        log.warning("build %s for %s failed: %s", key, request.deployment, failure)
        say(f"failed: {failure.message}")
        return BuildResult(key, error=to_problem(failure), seconds=time.monotonic() - started)
    seconds = time.monotonic() - started
    say(f"{'reused' if reused else 'built'} {artifact.ref or artifact.image} in {seconds:.2f} s")
    return BuildResult(key, artifact=artifact, reused=reused, seconds=seconds)


def as_failure(error: Exception) -> FngwError:
    """Return what a caller is told about an exception."""
    if isinstance(error, FngwError):
        return error
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return images.no_space(str(error))
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


def make(request: BuildRequest, settings: BuilderSettings, say: Say) -> Outcome:
    """Build for the engine that the request names.

    Raises:
        BuildFailed: see the codes of ``plan``, ``bundle``, ``images`` and ``local``.
    """
    planning.check(request)
    if request.engine == "process":
        return local.make(request, settings.layout)
    with images.engine(settings.engine_timeout_s) as engine:
        return make_image(request, settings, engine, say)


def make_image(request: BuildRequest, settings: BuilderSettings, engine: images.Images, say: Say) -> Outcome:
    """Return the image that answers a request, made of its base and the layers above, or found made.

    Raises:
        BuildFailed: see the codes of ``plan``, ``bundle`` and ``images``.
    """
    name = settings.runtime_image.format(python=request.python)
    base = engine.find(name)
    if base is None:
        present = [tag[2:] for tag in engine.tags(name.rpartition(":")[0]) if tag.startswith("py")]
        raise planning.base_missing(request.python, name, present)
    plan = planning.plan(request, name, base.id)
    image = engine.find(plan.tag)
    if image is not None and image.labels.get(planning.KEY_LABEL) == plan.key:
        return Artifact(image=image.id, ref=plan.tag), True
    for line in str(plan).splitlines():
        say(line)
    (code,) = plan.layers
    blob = bundle.locate(settings.layout, code.bundle)
    with tempfile.TemporaryFile(prefix="fngw-layer-") as file:
        layer = code_layer.write(blob, code.target, file)
        say(f"layer {layer.diff_id}: {layer.files} files, {layer.size} bytes")
        image = engine.add(base, [layer], plan.tag, plan.labels, say)
    return Artifact(image=image.id, ref=plan.tag), False


def killed(job: Any, pid: int, status: int, usage: object) -> None:
    """Tell who waits that the process of a build was killed; the worker calls this.

    Without it, the build would be asked for again, and an environment that takes more memory than there is would
    kill its builder for ever.
    """
    request = BuildRequest.from_json(job.args[0])
    error = BuildFailed(
        f"the build's process was killed (wait status {status})",
        code="build_killed",
        hint="most often the machine ran out of memory: look at its kernel log, then deploy again",
    )
    key = builds.request_key(request)
    record(job.connection, BuildResult(key, error=to_problem(error)))
    release(job.connection, key, job.id)
