"""The builder's process: stock RQ workers on the queue ``builds``, as many as there is work for.
``python -m fngw_builder``

Each forks for each build. What a build imports is imported here, before the forks: a build that changes only the
code takes less time than these imports.
"""

from __future__ import annotations

import gzip  # noqa: F401  # tarfile imports it with the first bundle
import logging
import os
import signal
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

from redis import Redis
from redis.exceptions import RedisError
from rq import Worker
from rq.serializers import JSONSerializer

from fngw_builder import image_build, jobs
from fngw_builder.health import name_prefix
from fngw_builder.pool import Pool, Tell
from fngw_builder.settings import BuilderSettings
from fngw_state import builds, footprint, keys

log = logging.getLogger(__name__)

#: An idle worker waits for a job this long less 15 s before it looks whether Redis is still the one it knows.
#: RQ's own 420 s would leave it deaf for minutes behind a connection that died silently.
WORKER_TTL_S = 60
REDIS_RETRY_S = 0.5
#: How long a builder beyond the first waits for another build.
IDLE_S = 60


class BuildWorker(Worker):  # type: ignore[misc]
    """A stock worker that tells whether it is busy, and whose warm shutdown has an end: RQ itself would wait for
    the build under way for ever."""

    stop_timeout_s: float = 20
    told_to_stop = False
    tell: Tell = staticmethod(lambda busy: None)

    def execute_job(self, job: Any, queue: Any) -> None:
        self.tell(True)
        try:
            super().execute_job(job, queue)
        finally:
            self.tell(False)

    def handle_warm_shutdown_request(self) -> None:
        super().handle_warm_shutdown_request()
        self.told_to_stop = True
        # A second signal is RQ's cold shutdown: it takes the build's process down.
        timer = threading.Timer(self.stop_timeout_s, os.kill, (os.getpid(), signal.SIGTERM))
        timer.daemon = True
        timer.start()


def connected(url: str) -> Redis:
    """Return a client once Redis answers; it may start later than the builder."""
    connection = builds.connect(url)
    while True:
        try:
            connection.ping()
        except (RedisError, OSError) as error:
            log.warning("redis: no answer yet (%s)", error)
            time.sleep(REDIS_RETRY_S)
        else:
            return connection


def work(settings: BuilderSettings, stay: bool, tell: Tell) -> bool:
    """Build what the queue asks for; return whether that ended as it should.

    RQ survives a restart of Redis while it waits for a job, and gives up when one happens at another time.

    Args:
        settings: how to build.
        stay: whether to go on when nothing was to do for a while.
        tell: told whether a build is under way.
    """
    worker = BuildWorker(
        [keys.BUILDS_QUEUE],
        name=f"{name_prefix()}{os.getpid()}-{uuid.uuid4().hex[:6]}",
        connection=connected(settings.redis_url),
        serializer=JSONSerializer,
        worker_ttl=WORKER_TTL_S,
        work_horse_killed_handler=jobs.killed,
        log_job_description=False,
    )
    worker.stop_timeout_s, worker.tell = settings.builder_stop_timeout_s, tell
    log.info("builder %s is ready", worker.name)
    try:
        worker.work(with_scheduler=False, logging_level="WARNING", max_idle_time=None if stay else IDLE_S)
    except (RedisError, OSError) as error:
        log.warning("redis: lost (%s)", error)
        return worker.told_to_stop
    return worker.told_to_stop or not stay


def builder(settings: BuilderSettings) -> Callable[[bool, Tell], None]:
    """Return one builder's life, for a ``Pool``."""

    def live(stay: bool, tell: Tell) -> None:
        while not work(settings, stay, tell):
            log.warning("starting again")
            time.sleep(REDIS_RETRY_S)

    return live


def main() -> None:
    """Build what the queue asks for, until a signal."""
    settings = jobs.how()
    logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s")
    image_build.runtime()  # before the forks, as the imports
    jobs.rehearse()
    footprint.settle()  # what was imported is shared with the forks, until one writes into it
    Pool(builder(settings), settings.builds).work()


if __name__ == "__main__":
    main()
