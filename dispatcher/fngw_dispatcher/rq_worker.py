"""This dispatcher as RQ knows its workers, so that RQ's command line and dashboards show it.

Of RQ's worker only the registration is used. Its loop runs one job at a time; the dispatcher's runs hundreds.
"""

from __future__ import annotations

import math
import os
import socket
import uuid
from collections.abc import Sequence

from rq.serializers import JSONSerializer
from rq.worker import WorkerStatus
from rq.worker.base import BaseWorker

from fngw_state import builds

__all__ = ["RqWorker", "name_prefix", "new_name"]


def name_prefix() -> str:
    """Return how the names of all dispatchers on this machine begin."""
    return f"dispatcher-{socket.gethostname()}-"


def new_name() -> str:
    """Return a name that no other dispatcher has: a container's processes all have the same number."""
    return f"{name_prefix()}{os.getpid()}-{uuid.uuid4().hex[:4]}"


class RqWorker(BaseWorker):  # type: ignore[misc]
    """A worker's entry in RQ. All of this blocks: call it in a thread.

    Args:
        redis_url: of Redis, which must answer.
        name: unique.
        queues: the names of those it works on.
        lease_s: seconds that its entry outlives its last beat, at least.
    """

    def __init__(self, redis_url: str, name: str, queues: Sequence[str], lease_s: float) -> None:
        connection = builds.connect(redis_url)
        super().__init__(list(queues), name=name, connection=connection, serializer=JSONSerializer)
        self._kept_s = math.ceil(3 * lease_s) + 1

    def beat(self, busy: bool) -> None:
        """Say that it lives; and that it was born, if Redis has forgotten."""
        if not self.connection.hexists(self.key, "birth"):
            self.connection.delete(self.key)
            self.register_birth()
        self.set_state(WorkerStatus.BUSY if busy else WorkerStatus.IDLE)
        self.heartbeat(self._kept_s)

    def leave(self) -> None:
        """Say that it is gone."""
        self.register_death()
        self.connection.close()
