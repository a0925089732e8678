"""``python -m fngw_builder.health``: exit 0 if a builder on this machine beats, for a container's health check.

A builder that hangs, or has lost Redis, lets its record in Redis expire.
"""

from __future__ import annotations

import socket
import sys

from redis import Redis
from redis.exceptions import RedisError

from fngw_builder.settings import BuilderSettings
from fngw_state import builds

#: Where RQ keeps its workers: the set of their records' keys. A record that is not refreshed expires.
RQ_WORKERS = "rq:workers"


def name_prefix() -> str:
    """Return how the names of all builders on this machine begin."""
    return f"builder-{socket.gethostname()}-"


def beating(connection: Redis, prefix: str) -> list[str]:
    """Return the keys of the workers whose names begin with ``prefix`` and whose records have not expired."""
    members: set[bytes] = connection.smembers(RQ_WORKERS)  # type: ignore[assignment]  # RQ's clients do not decode
    mine = sorted(m for m in members if m.startswith(f"rq:worker:{prefix}".encode()))
    return [m.decode() for m in mine if connection.exists(m)]


def main() -> int:
    """Print the builders that beat; return the exit code."""
    connection = builds.connect(BuilderSettings().redis_url)
    try:
        found = beating(connection, name_prefix())
    except (RedisError, OSError) as error:
        print(f"redis: {error}")
        return 1
    finally:
        connection.close()
    print(*found or ["no builder here is known to Redis"], sep="\n")
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(main())
