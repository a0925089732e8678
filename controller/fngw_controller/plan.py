"""The planner: what to do next for one deployment, as a pure function of what is wanted, what is seen, and now.

The rules, each held by a property test:

1. A new replica is healthy before an old one leaves: while old ones are replaced, at least ``num_replicas`` serve
   (of the stable revision or of the new one, whichever are more; fewer only when fewer served before, or when there
   is no room for a surge).
2. Never more than that number + surge replicas are started (surge: a fifth of them, at least one). When a start
   does not fit on the machine, and would once old replicas have left, sick ones leave first, else a fifth of the
   old ones (at least one). When even that would not help, nothing leaves, and the start waits.
3. A replica whose start failed is tried again after a back-off, three times in a rollout; then the rollout is given
   up and the stable revision is kept. Outside a rollout it is tried for ever, ever more slowly.
4. A second plan after a perfect apply is empty.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fngw_state.records import DeploymentStatus, Desired, Failure, Replica, ReplicaState, Revision

#: How often a replica's start is tried in a rollout.
START_ATTEMPTS = 3
#: Seconds before the next try, by the number of failures so far; the last one repeats.
BACK_OFF_S = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)
#: Share of the replicas that may be in surplus, or down when there is no room for a surplus.
SURGE = 0.2


@dataclass(frozen=True)
class Retry:
    """A replica that did not start, or died: its place is to be filled again, not before ``not_before``.

    ``attempt`` counts the tries that failed so far in this place.
    """

    attempt: int
    not_before: float
    failure: Failure


@dataclass(frozen=True)
class Shortage:
    """The next replica does not fit on the machine now.

    Args:
        message: what is missing, and who holds it.
        stop_first: whether it fits once replicas that are to be replaced have left.
    """

    message: str
    stop_first: bool = False


@dataclass(frozen=True)
class World:
    """What is seen of one deployment.

    Args:
        replicas: those that exist, dead ones excluded.
        has_artifact: whether what the effective revision runs from is known to be there.
        retries: places left by replicas of the effective generation that did not start or died.
        failure: why the target cannot be rolled out: its image, or its ``user_config``.
        shortage: why the last start did not fit, until something has changed that may make room.
        over: of each replica that uses more of a GPU than is its own, how far, for people.
    """

    replicas: tuple[Replica, ...] = ()
    has_artifact: bool = True
    retries: tuple[Retry, ...] = ()
    failure: Failure | None = None
    shortage: Shortage | None = None
    over: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What to do next. ``start`` has, for each replica to start, how many tries failed in its place before.

    ``complete``: the replicas that there are to be are there, and no others but those that leave.
    """

    status: DeploymentStatus
    message: str
    build: bool = False
    start: tuple[int, ...] = ()
    stop: tuple[str, ...] = ()
    reconfigure: tuple[str, ...] = ()
    fail: Failure | None = None
    settle: bool = False
    gone: bool = False
    complete: bool = False
    wake_at: float | None = None

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do."""
        acts = (self.build, self.start, self.stop, self.reconfigure, self.fail, self.settle, self.gone)
        return not any(acts)

    @property
    def summary(self) -> str:
        """What there is to do, for the log."""
        acts = [
            "build" if self.build else "",
            f"start {len(self.start)}" if self.start else "",
            f"stop {', '.join(self.stop)}" if self.stop else "",
            f"reconfigure {len(self.reconfigure)}" if self.reconfigure else "",
            f"give up: {self.fail.message}" if self.fail else "",
            "rolled out" if self.settle else "",
            "gone" if self.gone else "",
        ]
        return "; ".join(a for a in acts if a) or "nothing to do"


def back_off(attempt: int) -> float:
    """Return the seconds to wait before a place is filled again after ``attempt`` failures in a row."""
    return BACK_OFF_S[min(attempt, len(BACK_OFF_S) - 1)]


def surge(num_replicas: int) -> int:
    """Return how many replicas may be in surplus during a rollout."""
    return max(1, math.ceil(num_replicas * SURGE))


def plan(desired: Desired, world: World, now: float) -> Plan:
    """Return what to do next for one deployment.

    Args:
        desired: what should run.
        world: what is seen.
        now: Unix seconds.

    Example:
        >>> plan(desired, World(), now=0.0).start      # nothing runs, one replica wanted
        (0,)
    """
    give_up = _give_up(desired, world)
    if give_up:
        return Plan(DeploymentStatus.UPDATING, give_up.message, fail=give_up)
    revision = desired.effective
    if revision is None:
        return _wind_down(desired, world)
    return _advance(desired, revision, world, now)


def _give_up(desired: Desired, world: World) -> Failure | None:
    """The reason to end the rollout of the target, if there is one."""
    if desired.deleting or desired.failed or desired.settled:
        return None
    if world.failure and world.failure.number == desired.target.number:
        return world.failure
    spent = [r for r in world.retries if r.attempt >= START_ATTEMPTS and r.failure.number == desired.target.number]
    return spent[0].failure if spent else None


def _wind_down(desired: Desired, world: World) -> Plan:
    stop = tuple(r.id for r in world.replicas if r.state != ReplicaState.DRAINING)
    if desired.deleting:
        return Plan(DeploymentStatus.DELETING, "deleting", stop=stop, gone=not world.replicas, complete=True)
    message = desired.failure.message if desired.failure else "nothing to run"
    return Plan(DeploymentStatus.UNHEALTHY, message, stop=stop, complete=True)


@dataclass(frozen=True)
class _Groups:
    """The replicas of one world, by what they are to the effective revision."""

    ready: list[Replica]  # of the wanted generation, serving
    starting: list[Replica]
    sick: list[Replica]
    old_ready: list[Replica]  # of another generation, serving
    old_other: list[Replica]

    @property
    def total(self) -> int:
        parts = (self.ready, self.starting, self.sick, self.old_ready, self.old_other)
        return sum(map(len, parts))

    @property
    def serving(self) -> int:
        return len(self.ready) + len(self.old_ready)


def _group(revision: Revision, replicas: Sequence[Replica]) -> _Groups:
    live = [r for r in replicas if r.state not in (ReplicaState.DRAINING, ReplicaState.FAILED)]
    new = [r for r in live if r.generation == revision.generation]
    old = [r for r in live if r.generation != revision.generation]
    return _Groups(
        ready=[r for r in new if r.state == ReplicaState.READY],
        starting=[r for r in new if r.state == ReplicaState.STARTING],
        sick=[r for r in new if r.state == ReplicaState.UNHEALTHY],
        old_ready=[r for r in old if r.state == ReplicaState.READY],
        old_other=[r for r in old if r.state != ReplicaState.READY],
    )


def _advance(desired: Desired, revision: Revision, world: World, now: float) -> Plan:
    """One step towards ``num_replicas`` ready replicas of the wanted generation and none of another."""
    wanted = revision.spec.num_replicas
    groups = _group(revision, world.replicas)
    size = _size(desired, revision)
    start, wake_at = _starts(revision, groups, world, size, now)
    stop = _stops(wanted, groups, size, world.shortage)
    reconfigure = _reconfigurations(revision, groups, stop)
    complete = len(groups.ready) == wanted and groups.total == wanted and not start and not stop
    applied = all(r.config_number == revision.config_number for r in groups.ready)
    settle = complete and applied and world.has_artifact and not desired.settled and not desired.failed
    status, message = _describe(desired, world, groups, wanted, complete and applied)
    return Plan(
        status,
        message,
        build=not world.has_artifact,
        start=start,
        stop=stop,
        reconfigure=reconfigure,
        settle=settle,
        complete=complete,
        wake_at=wake_at,
    )


def _size(desired: Desired, revision: Revision) -> int:
    """How many replicas are to serve while old ones are replaced: a deploy that also shrinks does so in the end."""
    wanted, stable = revision.spec.num_replicas, desired.stable
    if stable is None or stable.generation == revision.generation:
        return wanted
    return max(wanted, stable.spec.num_replicas)


def _starts(
    revision: Revision, groups: _Groups, world: World, size: int, now: float
) -> tuple[tuple[int, ...], float | None]:
    """Which replicas to start now, and when to look again because of a back-off."""
    if not world.has_artifact:
        return (), None
    wanted = revision.spec.num_replicas
    missing = max(0, wanted - len(groups.ready) - len(groups.starting))
    free = max(0, size + surge(size) - groups.total)
    retries = sorted(world.retries, key=lambda r: r.not_before)[:missing]
    due = [r.attempt for r in retries if r.not_before <= now]
    waiting = [r.not_before for r in retries if r.not_before > now]
    fresh = [0] * (missing - len(retries))
    starts = () if world.shortage else (due + fresh)[:free]
    return tuple(starts), min(waiting, default=None)


def _stops(wanted: int, groups: _Groups, size: int, shortage: Shortage | None) -> tuple[str, ...]:
    """Which replicas to drain now."""
    youngest_first = sorted(groups.ready, key=lambda r: (r.since, r.id), reverse=True)
    surplus_new = max(0, len(groups.ready) + len(groups.starting) - wanted)
    stop = [*groups.starting, *youngest_first][:surplus_new]
    stop += groups.old_other
    make_room = shortage is not None and shortage.stop_first
    # Sick replicas serve on only while no other does, and never take up the room of their successors.
    stop += groups.sick if groups.serving or make_room else groups.sick[wanted:]
    kept_ready = groups.serving - sum(r.state == ReplicaState.READY for r in stop)
    floor = _floor(wanted, groups, size, make_room and not groups.sick)
    stop += groups.old_ready[: max(0, kept_ready - floor)]
    return tuple(r.id for r in stop)


def _floor(wanted: int, groups: _Groups, size: int, make_room: bool) -> int:
    """How many replicas are to go on serving."""
    if len(groups.ready) >= wanted:
        return wanted
    if not make_room:
        return size
    floor = size - _down(size)
    if groups.starting:
        return floor
    # What serves may be less than that already, as some have died; nothing could go on then unless one left.
    return min(floor, max(groups.serving - 1, wanted - _down(wanted) if groups.ready else 0))


def _down(replicas: int) -> int:
    """How many replicas may be missing while others are replaced without room for a surplus."""
    return max(1, math.floor(replicas * SURGE))


def _reconfigurations(revision: Revision, groups: _Groups, stop: Sequence[str]) -> tuple[str, ...]:
    """Which replicas to tell of the newest live configuration: a fifth of them at a time, at least one."""
    number = revision.config_number
    behind = [r for r in groups.ready if r.config_number != number and r.id not in stop]
    under_way = [r for r in behind if r.config_sent == number]
    free = max(1, math.floor(revision.spec.num_replicas * SURGE)) - len(under_way)
    return tuple(r.id for r in behind if r.config_sent != number)[: max(0, free)]


def _describe(
    desired: Desired, world: World, groups: _Groups, wanted: int, complete: bool
) -> tuple[DeploymentStatus, str]:
    if complete:
        return _status(desired, DeploymentStatus.HEALTHY), _message(desired, "; ".join(world.over))
    progress = f"{len(groups.ready)} of {wanted} replicas ready"
    if not world.has_artifact:
        progress += "; building"
    if world.shortage:
        progress += f"; waiting for {world.shortage.message}"
    if world.retries:
        worst = max(world.retries, key=lambda r: r.attempt)
        tries = f"{worst.attempt} failed starts: " if worst.attempt > 1 else ""
        progress += f"; {tries}{worst.failure.message}"
        if worst.attempt > 1 and (desired.settled or desired.failed):
            return DeploymentStatus.UNHEALTHY, f"crash loop, backing off: {progress}"
    if groups.sick:
        progress += f"; {len(groups.sick)} to be replaced: {groups.sick[0].message}"
    progress += "".join(f"; {text}" for text in world.over)
    return DeploymentStatus.UPDATING, _message(desired, progress)


def _status(desired: Desired, status: DeploymentStatus) -> DeploymentStatus:
    """A deployment whose last deploy failed says so, though its stable revision serves."""
    return DeploymentStatus.UNHEALTHY if desired.failed and status == DeploymentStatus.HEALTHY else status


def _message(desired: Desired, text: str) -> str:
    if not (desired.failed and desired.failure):
        return text
    kept = f"the last deploy failed, the version before it serves: {desired.failure.message}"
    return f"{kept} ({text})" if text else kept
