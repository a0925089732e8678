"""``python -m fngw_dispatcher.health``: exit 0 if a dispatcher on this machine beats, for a health check.

A dispatcher that hangs, or has lost Redis, lets its entry among RQ's workers expire.
"""

from __future__ import annotations

import sys

from redis import Redis
from redis.exceptions import RedisError
from rq.worker import BaseWorker

from fngw_dispatcher.rq_worker import name_prefix
from fngw_dispatcher.settings import DispatcherSettings
from fngw_state import builds, keys


def beating(connection: Redis, prefix: str) -> list[str]:
    """Return the keys of the workers whose names begin with ``prefix`` and whose entries have not expired."""
    mine = [key for key in BaseWorker.all_keys(connection) if key.startswith(keys.RQ_WORKER + prefix)]
    return sorted(key for key in mine if connection.exists(key))


def main() -> int:
    """Print the dispatchers that beat; return the exit code."""
    connection = builds.connect(DispatcherSettings().redis_url)
    try:
        found = beating(connection, name_prefix())
    except (RedisError, OSError) as error:
        print(f"redis: {error}")
        return 1
    finally:
        connection.close()
    print(*found or ["no dispatcher here is known to Redis"], sep="\n")
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(main())
