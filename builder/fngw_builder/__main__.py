"""The builder's process: a stock RQ worker on the queue ``builds``. ``python -m fngw_builder``

It forks for each build. What a build imports is imported here, before the fork: a build that changes only the
code takes less time than these imports.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
import uuid

from redis import Redis
from redis.exceptions import RedisError
from rq import Worker
from rq.serializers import JSONSerializer

from fngw_builder import jobs
from fngw_builder.health import name_prefix
from fngw_builder.settings import BuilderSettings
from fngw_state import builds, keys

log = logging.getLogger(__name__)

#: An idle worker waits for a job this long less 15 s before it looks whether Redis is still the one it knows.
#: RQ's own 420 s would leave it deaf for minutes behind a connection that died silently.
WORKER_TTL_S = 60
REDIS_RETRY_S = 0.5


class BuildWorker(Worker):  # type: ignore[misc]
    """A stock worker whose warm shutdown has an end: RQ itself would wait for the build under way for ever."""

    stop_timeout_s: float = 20
    told_to_stop = False

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


def work(settings: BuilderSettings) -> bool:
    """Build what the queue asks for; return whether that ended because it was told to.

    RQ survives a restart of Redis while it waits for a job, and gives up when one happens at another time.
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
    worker.stop_timeout_s = settings.builder_stop_timeout_s
    log.info("builder %s is ready", worker.name)
    try:
        worker.work(with_scheduler=False, logging_level="WARNING")
    except (RedisError, OSError) as error:
        log.warning("redis: lost (%s)", error)
    return worker.told_to_stop


def main() -> None:
    """Build what the queue asks for, until a signal."""
    settings = BuilderSettings()
    logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s")
    while not work(settings):
        log.warning("starting again")
        time.sleep(REDIS_RETRY_S)


if __name__ == "__main__":
    main()
