"""The room that one deployment's replicas take up on the machine, and what the next one of them lacks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from fngw.errors import DeploymentFailed
from fngw_controller.live import failure_of
from fngw_controller.machine import Machine
from fngw_controller.metering import Excess, most_over
from fngw_controller.plan import Shortage
from fngw_state.leases import Blocker
from fngw_state.records import Failure, Replica, ReplicaState, Revision
from fngw_state.resources import Lease, Request

__all__ = ["Owner", "Room"]

_SERVES = (ReplicaState.STARTING, ReplicaState.READY)
_LEAVES = (ReplicaState.DRAINING, ReplicaState.FAILED)


class Owner(Protocol):
    """Whom the room is for: the reconciler."""

    name: str

    def wake(self) -> None: ...

    async def emit(self, number: int, kind: str, message: str, **more: Any) -> None: ...


class Room:
    """Room for the replicas of one deployment.

    Args:
        owner: is woken when there may be more of it.
        machine: has it, or has it not.
    """

    def __init__(self, owner: Owner, machine: Machine) -> None:
        self._owner = owner
        self._machine = machine
        self._out_of_date = False  # something became free since room was asked for
        self._told: tuple[int, str] | None = None
        self.shortage: Shortage | None = None

    async def take(self, replica_id: str, revision: Revision, records: Iterable[Replica]) -> Lease | None:
        """Take room for one more replica; None, and ``shortage`` says why, when there is none.

        Args:
            replica_id: its id.
            revision: what it is to run.
            records: the deployment's replicas.
        """
        name, request = self._owner.name, Request.of(revision.spec)
        leaving, old = those_that_go(self._machine.holders(name), records, revision.generation)
        self._out_of_date = False
        self._machine.wait(name, self._look_again)  # before it is asked: what becomes free meanwhile counts, too
        found = await self._machine.take(replica_id, name, request, leaving, old)
        if isinstance(found, Lease):
            self._machine.wait_no_more(name)
            return found
        missing = (await self._machine.ledger()).missing(request)
        await self._tell(revision.number, f"waiting for {missing}")
        if not self._out_of_date:
            self.shortage = Shortage(missing, stop_first=found is Blocker.OLD)
        return None

    async def _tell(self, number: int, text: str) -> None:
        if self._told != (number, text):
            await self._owner.emit(number, "waiting", text)
            self._told = (number, text)

    def _look_again(self) -> None:
        self.forget_shortage()
        self._owner.wake()

    def forget_shortage(self) -> None:
        """Try again at the next chance: what is asked for has changed, or what there is."""
        self.shortage, self._out_of_date = None, True
        self._machine.wait_no_more(self._owner.name)

    def unfit(self, records: Iterable[Replica], revision: Revision | None) -> dict[str, str]:
        """Return the replicas that are to be replaced for what they hold, or use, of the machine; and why.

        Args:
            records: the deployment's replicas.
            revision: the one that is to serve.
        """
        records = list(records)
        serving = [r.id for r in records if r.state == ReplicaState.READY]
        found = {replica: fault for replica in serving if (fault := self._machine.faults(replica))}
        if not found and revision is not None and revision.spec.gpu_policy == "restart":
            over = self._over(records)
            replica_id = most_over(records, over, revision.spec.num_replicas)
            found = {replica_id: over[replica_id].text} if replica_id else {}
        return found

    def told_over(self, records: Iterable[Replica]) -> tuple[str, ...]:
        """Tell of each replica that serves and uses more of a GPU than is its own."""
        return tuple(f"replica {replica} is {excess.text}" for replica, excess in self._over(records).items())

    def _over(self, records: Iterable[Replica]) -> dict[str, Excess]:
        serving = [r.id for r in records if r.state == ReplicaState.READY]
        return {replica: excess for replica in serving if (excess := self._machine.over(replica))}

    def impossible(self, revision: Revision) -> Failure | None:
        """Return why a revision's replicas cannot ever run here; None when they can."""
        error = self._machine.impossible(revision.spec)
        if error is None:
            return None
        what = f"{revision.spec.name}: {error.message}"
        return failure_of(revision.number, DeploymentFailed(what, code=error.code, hint=error.hint))

    async def settle(self) -> None:
        """All that should be is there: keep nothing more."""
        await self._machine.settle(self._owner.name)


def those_that_go(holders: Iterable[str], records: Iterable[Replica], generation: int) -> tuple[set[str], set[str]]:
    """Return the replicas that leave by themselves, and those that are to be replaced by others of a generation.

    Args:
        holders: the deployment's replicas that hold a lease; those without a record are being cleared away.
        records: the deployment's replicas.
        generation: the one that is to serve.
    """
    known = {r.id: r for r in records}
    leaving = {i for i, r in known.items() if r.state in _LEAVES} | {i for i in holders if i not in known}
    kept = {i for i, r in known.items() if r.generation == generation and r.state in _SERVES}
    return leaving, set(known) - leaving - kept
