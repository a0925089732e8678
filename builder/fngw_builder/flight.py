"""One build in Redis: that somebody does it, what it says, how it ended, and that nobody wants it any more.

While a builder works on a key it holds the key's beat, a value that expires soon and is renewed by a thread. So
two builders never build the same at once, and a dead one is noticed by the missing beat.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from fngw_state import builds, keys
from fngw_state.records import BuildProgress, BuildResult

log = logging.getLogger(__name__)

# KEYS beat; ARGV token, TTL ms. A beat that is gone (Redis lost it) is taken again; another's is left alone.
_RENEW = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""

# KEYS beat; ARGV token
_RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
"""


class Cancelled(Exception):
    """Nobody waits for this build any more."""


#: Between looks at a beat that somebody else holds.
POLL_S = 0.1
#: Builds that have ended by then need no thread with a connection of its own: those of code alone, mostly.
SHORT_S = 0.5


class Flight:
    """One try at one build.

    Args:
        connection: from ``fngw_state.builds.connect``.
        key: the build's ``request_key``.
        token: tells this builder from others.
        beat_ttl_ms: how long the beat of a builder that died stays.
    """

    def __init__(self, connection: Redis, key: str, token: str, beat_ttl_ms: int = keys.BUILD_BEAT_TTL_MS) -> None:
        self.connection = connection
        self.key = key
        self.token = token
        self.beat_ttl_ms = beat_ttl_ms
        self._steps: dict[str, dict[str, Any]] = {}  # as far as each is, in the order of their beginnings
        self._landed = threading.Event()
        self._listening = False  # for a cancel
        self._heard = False  # of one
        self._renew = connection.register_script(_RENEW)

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Hold the beat; the value tells whether it could be had. If not, another builder is at it.

        The beat of a builder that died is waited for, which takes at most its TTL; that of a living one is
        recognised as such when it is renewed, within a third of that.

        Raises:
            Cancelled: in the block, at any point of it, when the build is cancelled.
        """
        if not self._take():
            yield False
            return
        self.connection.delete(keys.BUILD_CANCEL + self.key)  # meant for an earlier one
        before = signal.signal(signal.SIGUSR1, self._hear)
        thread = threading.Thread(target=self._beat, name=f"beat {self.key}", daemon=True)
        thread.start()
        try:
            yield True
        finally:
            self._landed.set()
            if self._listening:
                self._wake()
            thread.join()
            signal.signal(signal.SIGUSR1, before)
            release(self.connection, self.key, self.token)

    def _take(self) -> bool:
        beat, left = keys.BUILD_BEAT + self.key, self.beat_ttl_ms
        while not self.connection.set(beat, self.token, nx=True, px=self.beat_ttl_ms):
            before, left = left, int(self.connection.pttl(beat))
            if left > before:
                return False
            time.sleep(POLL_S)
        return True

    def _beat(self) -> None:
        if self._landed.wait(min(SHORT_S, self.beat_ttl_ms / 3000)):
            return
        self._listening = True
        while not self._landed.is_set():
            try:
                if self._cancelled():
                    self._interrupt()
                    return
                if not self._renew(keys=[keys.BUILD_BEAT + self.key], args=[self.token, self.beat_ttl_ms]):
                    log.warning("build %s: another builder took over; both will come to the same", self.key)
                    return
            except (RedisError, OSError) as error:
                log.warning("build %s: could not renew the beat (%s); trying again", self.key, error)
                self._landed.wait(POLL_S)

    def _interrupt(self) -> None:
        """Have the main thread, which builds, raise `Cancelled`. A signal that comes in the moment before it begins
        to wait in a system call does not end that wait; another one does."""
        while not (self._heard or self._landed.is_set()):
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
            self._landed.wait(POLL_S)

    def _hear(self, number: int, frame: object) -> None:
        if not self._heard:
            self._heard = True
            raise Cancelled

    def _cancelled(self) -> bool:
        """Wait until the next beat is due, or for less if the build is cancelled."""
        return self.connection.blpop([keys.BUILD_CANCEL + self.key], timeout=self.beat_ttl_ms / 3000) is not None

    def _wake(self) -> None:
        """End the beat's wait for a cancel. Without Redis it does not wait."""
        try:
            builds.interrupt(self.connection, self.key)
        except (RedisError, OSError) as error:
            log.warning("build %s: %s", self.key, error)

    def say(self, text: str) -> None:
        """Add a line to the build's log, or several. What cannot be stored fails no build."""
        where = keys.BUILD_LOG + self.key
        try:
            with self.connection.pipeline() as pipe:
                pipe.rpush(where, *text.splitlines())
                pipe.ltrim(where, -keys.BUILD_LOG_LINES, -1)
                pipe.expire(where, keys.BUILD_TTL_S)
                pipe.execute()
        except (RedisError, OSError) as error:
            log.warning("build %s: could not log %r (%s)", self.key, text, error)

    def tell(self, progress: BuildProgress) -> None:
        """Store how far a step is. What cannot be stored fails no build."""
        self._steps[progress.step] = dataclasses.asdict(progress)
        text = json.dumps(list(self._steps.values()))
        try:
            self.connection.set(keys.BUILD_PROGRESS + self.key, text, ex=keys.BUILD_TTL_S)
        except (RedisError, OSError) as error:
            log.warning("build %s: could not tell %s (%s)", self.key, progress, error)

    def note(self, image: str) -> None:
        """Remember when an image was last asked for: what nothing needs is cleared away an hour after that."""
        self.connection.zadd(keys.IMAGES, {image: time.time()})

    def finish(self, result: BuildResult) -> None:
        """Store how it ended, and nudge who waits for it."""
        record(self.connection, result)


def release(connection: Redis, key: str, token: str) -> None:
    """End the beat of one builder, if it is still that one's."""
    connection.register_script(_RELEASE)(keys=[keys.BUILD_BEAT + key], args=[token])


def record(connection: Redis, result: BuildResult) -> None:
    """Store how a build ended, and nudge who waits for it."""
    with connection.pipeline() as pipe:
        pipe.set(keys.BUILD + result.key, result.to_json(), ex=keys.BUILD_TTL_S)
        pipe.publish(keys.BUILT_CHANNEL, result.key)
        pipe.execute()
