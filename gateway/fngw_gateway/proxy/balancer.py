"""Per deployment: which replica takes a request, or which place in the queue it gets.

Two random choices, the one with fewer requests in flight; never more than a replica's *room*. The room is
``max_concurrent_queries``, until a replica answers that it is full (other gateway processes fill it, too): then
it is what was in flight there, and grows again by one with every answer. A replica with no room left and
nothing in flight is asked again after a pause that doubles.

A replica that does not let us connect is *down*: the same pause, and it does not count as a replica for those
who wait. The queue is first come, first served; a request that comes back to it gets its old place.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from fngw.protocol import ROOT_PATH_HEADER
from fngw_gateway.proxy import problems
from fngw_gateway.proxy.pool import Pool
from fngw_gateway.proxy.tally import Tally
from fngw_state.records import RoutedDeployment, RoutedReplica

__all__ = ["NO_REPLICA_S", "Backend", "Loop", "Replica"]

#: How long a request waits for a first replica to come, unless its own timeout is shorter.
NO_REPLICA_S = 30.0
#: How long a full or unreachable replica is left alone: at first, and at most.
PAUSE_MIN_S = 0.005
PAUSE_MAX_S = 0.2


class Loop(Protocol):
    """What the balancer needs of an event loop (tests pass one with virtual time)."""

    def time(self) -> float: ...
    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any) -> Any: ...
    def create_future(self) -> asyncio.Future[Any]: ...


class Replica:
    """One replica as this process sees it. ``in_flight`` never exceeds ``room``, nor ``room`` ``most``."""

    __slots__ = ("address", "down", "id", "in_flight", "most", "pause_s", "pool", "room", "timer")

    def __init__(self, routed: RoutedReplica, most: int) -> None:
        self.id = routed.id
        self.address = routed.address
        self.pool = Pool(routed.address)
        self.most = self.room = most
        self.in_flight = 0
        self.down = False
        self.pause_s = PAUSE_MIN_S
        self.timer: Any = None

    def resize(self, most: int) -> None:
        self.room = most if self.room == self.most else min(self.room, most)
        self.most = most

    def retire(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
        self.pool.retire()


class _Waiter:
    __slots__ = ("avoid", "future", "since", "timer", "turn")

    def __init__(self, future: asyncio.Future[Replica], turn: float, since: float, avoid: str | None) -> None:
        self.future = future
        self.turn = turn
        self.since = since
        self.avoid = avoid
        self.timer: Any = None


class Backend:
    """The replicas of one deployment and the requests that wait for one.

    Args:
        deployment: its entry in the routing table.
        loop: the event loop.
        rng: returns a float in [0, 1).
    """

    def __init__(self, deployment: RoutedDeployment, loop: Loop, rng: Callable[[], float] = random.random) -> None:
        self.name = deployment.name
        self.route_prefix: str | None = None
        self.root_line = b""  # the header line that tells a replica its root path
        self.request_timeout_s: float | None = None
        self.tally = Tally()
        self.starts = 0  # how often a replica came when none could be reached
        self._deployment: RoutedDeployment | None = None
        self._loop = loop
        self._rng = rng
        self._replicas: dict[str, Replica] = {}
        self._list: list[Replica] = []
        self._waiters: deque[_Waiter] = deque()
        self._max_queued = 0
        self._alone_since = loop.time()  # since when no replica is reachable; read only while none is
        self._closed = False
        self._leaving = False
        self.update(deployment)

    # -- the table ----------------------------------------------------------------------------------------

    def update(self, deployment: RoutedDeployment) -> None:
        """Take over what the routing table says now. Replicas that stay keep their counts and connections."""
        if deployment is self._deployment or deployment == self._deployment:
            return  # nearly all of them, when one of 10,000 changes
        self._deployment = deployment
        was_reachable = self.reachable
        self.route_prefix = deployment.route_prefix
        self.root_line = _root_line(deployment.route_prefix)
        most = deployment.max_concurrent_queries
        self.request_timeout_s = deployment.request_timeout_s
        self._max_queued = deployment.max_queued_requests
        before, self._replicas = self._replicas, {}
        for routed in deployment.replicas:
            replica = before.get(routed.id)
            if replica is None or replica.address != routed.address:
                replica = Replica(routed, most)
            else:
                del before[routed.id]
                replica.resize(most)
            self._replicas[routed.id] = replica
        self._list = list(self._replicas.values())
        for left in before.values():
            left.retire()
        if not was_reachable and self.reachable:
            self.starts += 1
        if was_reachable and not self.reachable:
            self._alone_since = self._loop.time()
        self._dispatch()

    def close(self) -> None:
        """The deployment has left the table: whoever waits is told that it does not exist."""
        self._closed = True
        for replica in self._list:
            replica.retire()
        self._replicas, self._list = {}, []
        for waiter in self._waiters:
            if not waiter.future.done():
                waiter.future.set_exception(problems.deployment_not_found(self.name))

    def leave(self) -> None:
        """This gateway is about to stop: whoever waits, with no replica in reach, is told at once."""
        self._leaving = True
        if self.reachable:
            return
        for waiter in self._waiters:
            if not waiter.future.done():
                waiter.future.set_exception(problems.stopping(self.name))

    @property
    def reachable(self) -> bool:
        """Whether any replica may take requests, now or once it has room."""
        return any(not replica.down for replica in self._list)

    @property
    def queued(self) -> int:
        return len(self._waiters)

    @property
    def in_flight(self) -> dict[str, int]:
        """Requests in flight per replica id."""
        return {replica.id: replica.in_flight for replica in self._list}

    # -- taking a replica ---------------------------------------------------------------------------------

    def take(self) -> Replica | None:
        """Return a replica with room, counting the request, or None: then ``wait``."""
        return None if self._waiters else self._pick(None)

    async def wait(self, turn: float, *, again: bool = False, avoid: str | None = None) -> Replica:
        """Wait in the queue for a replica; the request is then counted there.

        Args:
            turn: when the request arrived, in the loop's time: earlier ones go first.
            again: it was dispatched before, so that it may come in over the queue's limit.
            avoid: id of a replica that just failed it; taken only when there is no other.

        Raises:
            FngwError: the queue is full, no replica came in time, or the deployment left the table.
        """
        if self._closed:
            raise problems.deployment_not_found(self.name)
        if self._leaving and not self.reachable:
            raise problems.stopping(self.name)
        if not again and len(self._waiters) >= self._max_queued:
            raise problems.overloaded(self.name, len(self._waiters))
        waiter = _Waiter(self._loop.create_future(), turn, self._loop.time(), avoid)
        self._enqueue(waiter)
        waiter.timer = self._loop.call_later(NO_REPLICA_S, self._expire, waiter)
        self._dispatch()
        try:
            return await waiter.future
        except asyncio.CancelledError:
            if waiter.future.done() and not waiter.future.cancelled() and waiter.future.exception() is None:
                self.give_back(waiter.future.result())  # granted in the same moment
            raise
        finally:
            waiter.timer.cancel()
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def _enqueue(self, waiter: _Waiter) -> None:
        waiters = self._waiters
        if not waiters or waiters[-1].turn <= waiter.turn:
            waiters.append(waiter)
            return
        place = next(i for i, other in enumerate(waiters) if other.turn > waiter.turn)
        waiters.insert(place, waiter)

    def _expire(self, waiter: _Waiter) -> None:
        """A request has waited for long: give up if there was no replica all the time."""
        if waiter.future.done():
            return
        since = self._loop.time() if self.reachable else max(waiter.since, self._alone_since)
        left = since + NO_REPLICA_S - self._loop.time()
        if left > 1e-3:
            waiter.timer = self._loop.call_later(left, self._expire, waiter)
        else:
            waiter.future.set_exception(problems.no_replicas(self.name, NO_REPLICA_S))

    def _dispatch(self) -> None:
        while self._waiters:
            if self._waiters[0].future.done():
                self._waiters.popleft()
                continue
            replica = self._pick(self._waiters[0].avoid)
            if replica is None:
                return
            self._waiters.popleft().future.set_result(replica)

    def _pick(self, avoid: str | None) -> Replica | None:
        replicas = self._list
        if avoid is not None and len(replicas) > 1:
            replicas = [r for r in replicas if r.id != avoid and not r.down] or replicas
        chosen = _two_choices(replicas, self._rng)
        if chosen is not None:
            chosen.in_flight += 1
        return chosen

    # -- giving it back -----------------------------------------------------------------------------------

    def release(self, replica: Replica) -> None:
        """A request has ended with an answer."""
        replica.in_flight -= 1
        if replica.room < replica.most:
            replica.room += 1
            replica.pause_s = PAUSE_MIN_S
        if self._waiters:
            self._dispatch()

    def give_back(self, replica: Replica) -> None:
        """A request has ended without one."""
        replica.in_flight -= 1
        if self._waiters:
            self._dispatch()

    def refused(self, replica: Replica) -> None:
        """The replica answered that it is full."""
        replica.in_flight -= 1
        replica.room = min(replica.room, replica.in_flight)
        self._pause(replica)

    def unreachable(self, replica: Replica) -> None:
        """The replica did not let us connect."""
        was_reachable = self.reachable
        replica.in_flight -= 1
        replica.room = 0
        replica.down = True
        if was_reachable and not self.reachable:
            self._alone_since = self._loop.time()
        self._pause(replica)

    def reached(self, replica: Replica) -> None:
        """The replica let us connect (again)."""
        replica.down = False

    def _pause(self, replica: Replica) -> None:
        if replica.timer is None and self._replicas.get(replica.id) is replica:
            replica.timer = self._loop.call_later(replica.pause_s, self._resume, replica)
            replica.pause_s = min(replica.pause_s * 2, PAUSE_MAX_S)

    def _resume(self, replica: Replica) -> None:
        replica.timer = None
        replica.room = min(replica.most, max(replica.room, replica.in_flight + 1))
        self._dispatch()


def _root_line(prefix: str | None) -> bytes:
    root = "" if prefix in (None, "/") else prefix
    return f"{ROOT_PATH_HEADER}: {root}\r\n".encode()


def _two_choices(replicas: list[Replica], rng: Callable[[], float]) -> Replica | None:
    """Of two random replicas the one with fewer requests in flight; any with room when both are full."""
    count = len(replicas)
    if count == 1:
        only = replicas[0]
        return only if only.in_flight < only.room else None
    if not count:
        return None
    first = replicas[int(rng() * count)]
    other = replicas[int(rng() * (count - 1))]
    if other is first:
        other = replicas[-1]
    best = first if first.in_flight <= other.in_flight else other
    if best.in_flight < best.room:
        return best
    return min((r for r in replicas if r.in_flight < r.room), key=lambda r: r.in_flight, default=None)
