"""Redis as the parts meet it: started here or given, and answering."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fngw.errors import FngwError
from fngw_state.layout import Layout
from fngw_supervisor import embedded
from fngw_supervisor.crew import Crew, Keeper
from fngw_supervisor.datadir import redis_password
from fngw_supervisor.diagnosis import diagnose
from fngw_supervisor.say import Say
from fngw_supervisor.settings import Fsync

_START_S = 60.0
_POLL_S = 0.01
_PING_S = 5.0


async def start_embedded(crew: Crew, layout: Layout, fsync: Fsync, say: Say) -> str:
    """Start the embedded Redis, wait until it answers, and return its URL.

    Raises:
        FngwError: there is no server, or it would not start (see ``diagnosis``).
    """
    server = embedded.find_server()
    password = redis_password(layout.data)
    keeper = crew.start(embedded.redis_part(server, layout, password, fsync))
    url = embedded.redis_url(layout, password)
    if not await _answers(password, keeper, layout.redis_socket, say):
        raise _failed(keeper, server, layout)
    keeper.ready = True
    say("redis", f"{server.version}, embedded")
    return url


def _failed(keeper: Keeper, server: embedded.Server, layout: Layout) -> FngwError:
    how = keeper.outcome or f"did not answer within {_START_S:g} s"
    return diagnose(keeper.last_lines, server.path, layout.redis, how)


async def _answers(password: str, keeper: Keeper, socket: Path, say: Say) -> bool:
    """Wait until it answers; False when it ended instead, or neither happened in time. Loading has no limit."""
    loading, deadline = False, time.monotonic() + _START_S
    while not keeper.task.done() and (loading or time.monotonic() < deadline):
        answer = await ping(socket, password)
        if answer.startswith("+PONG"):
            return True
        if answer.startswith("-LOADING"):
            if not loading:
                say("redis", "is loading its data")
            loading = True
        else:
            loading = False  # not there yet, or gone: the next round tells
        await asyncio.sleep(_POLL_S)
    return False


async def ping(socket: Path, password: str) -> str:
    """Return what the Redis at a socket answers to a PING, empty when nobody does.

    Two commands of its protocol by hand: its client would cost this process 8 MiB for as long as it lives.
    """
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(_PING_S):
            reader, writer = await asyncio.open_unix_connection(str(socket))
            try:
                writer.write(_command(b"AUTH", password.encode()) + _command(b"PING"))
                await reader.readline()
                return (await reader.readline()).decode(errors="replace").rstrip()
            finally:
                writer.close()
    return ""


def _command(*words: bytes) -> bytes:
    """Return a command as RESP has it: an array of strings with their lengths."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


async def use_external(url: str, say: Say) -> str:
    """Check that a given Redis answers and is new enough; return its URL.

    Raises:
        FngwError: ``redis_url``, ``redis_unreachable``, ``redis_denied`` or ``redis_too_old``.
    """
    from redis.exceptions import RedisError  # heavy, and not needed for the embedded one

    from fngw_state.store import connect

    shown = without_password(url)
    try:
        client: Any = connect(url)
    except ValueError as error:
        hint = "such as redis://:password@host:6379/0 or unix://:password@/path/redis.sock"
        raise FngwError(f"{shown} is not a Redis URL: {error}", code="redis_url", hint=hint) from None
    try:
        info = await client.info("server")
    except (RedisError, OSError) as error:
        raise _refused(shown, error) from None
    finally:
        await client.aclose()
    version = str(info["redis_version"])
    if int(version.split(".")[0]) < embedded.OLDEST:
        raise FngwError(
            f"Redis at {shown} is version {version}",
            code="redis_too_old",
            hint=f"version {embedded.OLDEST} or newer is needed",
        )
    say("redis", f"Redis {version} at {shown}")
    return url


def _refused(shown: str, error: BaseException) -> FngwError:
    from redis.exceptions import AuthenticationError

    # redis-py wraps it in a plain ConnectionError while it connects.
    if isinstance(error, AuthenticationError) or isinstance(error.__cause__, AuthenticationError):
        hint = "put the password into the URL: redis://:password@host:6379/0"
        return FngwError(f"Redis at {shown} denies access: {error}", code="redis_denied", hint=hint)
    hint = "start it, correct --redis-url (or FNGW_REDIS_URL), or leave it out to have one started"
    return FngwError(f"no Redis answers at {shown}: {error}", code="redis_unreachable", hint=hint)


def without_password(url: str) -> str:
    """Return a URL fit to be shown.

    Example:
        >>> without_password("redis://:secret@db:6379/0?password=also")
        'redis://db:6379/0'
    """
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
