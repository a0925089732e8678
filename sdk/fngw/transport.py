"""How calls reach the gateway: one background event loop per process, with a pool of kept-alive connections.

Callers are in any thread, or in any event loop; the loop here is nobody else's, so a ``Ref`` can be waited for
from all of them. A forked child starts anew: the parent's connections and thread are not its own.

Calls are not idempotent, so a request is sent again only where it is certain that nobody read it: a kept-alive
connection that the gateway closed before (``http1.NeverRead``).

Standard library only, Python >= 3.7: this module is copied into replica images.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import time
from collections import deque
from concurrent.futures import Future
from typing import Any, Coroutine, Deque, Dict, List, Optional, Sequence, Tuple, TypeVar

from fngw.endpoint import Endpoint
from fngw.errors import Unreachable
from fngw.http1 import Connection, NeverRead, Reply, connect

__all__ = ["close", "request", "submit"]

CONNECT_TIMEOUT_S = 10.0
SOCKET_PATIENCE_S = 5.0  # in a replica: for a gateway that is being restarted
IDLE_S = 4.0  # a kept-alive connection is not used after that: servers close theirs after 5 s
MOST_CONNECTIONS = 2048
START_HINT = "start one with `fngw up`, or say where it is with FNGW_URL or fngw.connect(url)"
LOST_HINT = "the call may have run; it is not repeated, as that might run it twice"

#: What a lost connection, or an answer that is not HTTP, raises.
LOST = (OSError, EOFError, ValueError, asyncio.LimitOverrunError)

T = TypeVar("T")

_lock = threading.Lock()
_state: Optional[_Background] = None
#: Of parents, in forked children: kept, as collecting them would touch what is still the parent's.
_abandoned: List[_Background] = []


def submit(work: Coroutine[Any, Any, T]) -> Future[T]:
    """Run ``work`` on this process's background loop; its future can be waited for anywhere."""
    return asyncio.run_coroutine_threadsafe(work, _background().loop)


async def request(
    endpoint: Endpoint, method: str, path: str, headers: Dict[str, str], body: Sequence[bytes] = ()
) -> Reply:
    """Send a request and return its answer, whatever its status. To be awaited on the background loop.

    Cancelling it closes its connection, which cancels the request at the gateway.

    Raises:
        Unreachable: nobody listens there, or the connection was lost (code ``connection_lost``).
    """
    pool = _background().pools.setdefault(endpoint, _Pool(endpoint))
    if endpoint.token:
        headers = {**headers, "authorization": f"Bearer {endpoint.token}"}
    return await pool.request(method, path, headers, body)


def close() -> None:
    """Stop the background loop and close its connections; the next call starts another."""
    global _state
    with _lock:
        state, _state = _state, None
    if state is not None:
        state.stop()


# -- the pool ---------------------------------------------------------------------------------------------


def _most_connections() -> int:
    """Half of the files that this process may open, within bounds."""
    try:
        import resource
    except ImportError:  # not a Unix
        return 256
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_CONNECTIONS if soft < 0 else max(64, min(MOST_CONNECTIONS, soft // 2))


class _Pool:
    """The connections to one endpoint; more requests than there may be connections wait."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._idle: Deque[Tuple[float, Connection]] = deque()
        self._slots: Optional[asyncio.Semaphore] = None

    async def request(self, method: str, path: str, headers: Dict[str, str], body: Sequence[bytes]) -> Reply:
        if self._slots is None:  # made on its loop: before Python 3.10 it belongs to the one it is made on
            self._slots = asyncio.Semaphore(_most_connections())
        async with self._slots:
            while True:
                kept = self._kept()
                connection = kept or await self._connect()
                try:
                    reply = await connection.exchange(method, path, headers, body)
                except BaseException as error:
                    connection.close()
                    if kept and isinstance(error, NeverRead):
                        continue
                    if isinstance(error, LOST):
                        raise self._lost(error) from error
                    raise
                self._keep(connection)
                return reply

    def close(self) -> None:
        while self._idle:
            self._idle.pop()[1].close()

    def _kept(self) -> Optional[Connection]:
        """Take the youngest idle connection that is still good; close those that are not."""
        while self._idle:
            since, connection = self._idle.pop()
            if connection.reusable and time.monotonic() - since < IDLE_S:
                return connection
            connection.close()
        return None

    def _keep(self, connection: Connection) -> None:
        now = time.monotonic()
        while self._idle and now - self._idle[0][0] > IDLE_S:
            self._idle.popleft()[1].close()
        if connection.reusable:
            self._idle.append((now, connection))
        else:
            connection.close()

    async def _connect(self) -> Connection:
        deadline = time.monotonic() + (SOCKET_PATIENCE_S if self._endpoint.socket else 0)
        while True:
            try:
                connection = await _within(CONNECT_TIMEOUT_S, connect(self._endpoint))
            except OSError as error:
                if time.monotonic() > deadline:
                    raise self._unreachable(error.strerror or str(error)) from error
                await asyncio.sleep(0.05)
            else:
                if connection is None:
                    raise self._unreachable(f"no answer within {CONNECT_TIMEOUT_S:g} s")
                return connection

    def _unreachable(self, why: str) -> Unreachable:
        return Unreachable(f"no gateway answers at {self._endpoint.where}: {why}", hint=START_HINT)

    def _lost(self, error: BaseException) -> Unreachable:
        why = str(error) or type(error).__name__
        message = f"lost the connection to {self._endpoint.where} during a call: {why}"
        return Unreachable(message, code="connection_lost", hint=LOST_HINT)


async def _within(seconds: float, connecting: Coroutine[Any, Any, Connection]) -> Optional[Connection]:
    """Return the connection, or None when it takes longer. One that nobody is left to use is closed.

    Not wait_for: before Python 3.12 it loses a cancellation that comes with the result (bpo-37658).
    """
    task = asyncio.ensure_future(connecting)
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
    except asyncio.CancelledError:
        _give_up(task)
        raise
    if done:
        return task.result()
    _give_up(task)
    return None


def _give_up(task: asyncio.Future[Connection]) -> None:
    task.cancel()
    task.add_done_callback(_close_unused)


def _close_unused(task: asyncio.Future[Connection]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().close()


# -- one loop per process ---------------------------------------------------------------------------------


class _Background:
    """An event loop in a daemon thread, and what belongs to it."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.pools: Dict[Endpoint, _Pool] = {}
        self._thread = threading.Thread(target=self.loop.run_forever, name="fngw-calls", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self.loop).result(CONNECT_TIMEOUT_S)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(CONNECT_TIMEOUT_S)
        self.loop.close()

    async def _close(self) -> None:
        tasks = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for pool in self.pools.values():
            pool.close()
        await asyncio.sleep(0)  # aborted transports close their sockets in the loop's next round


def _background() -> _Background:
    global _state
    state = _state
    if state is None:
        with _lock:
            if _state is None:
                _state = _Background()
            state = _state
    return state


def _after_fork() -> None:
    global _lock, _state
    if _state is not None:
        _abandoned.append(_state)
    _lock, _state = threading.Lock(), None


os.register_at_fork(after_in_child=_after_fork)
atexit.register(close)
