"""What replicas really use, and which use more of a GPU than is theirs: sums over what was seen. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fngw_controller.inventory.base import GpuProcess, InUse
from fngw_controller.processes import Process, owner
from fngw_state.records import Replica, ReplicaState
from fngw_state.resources import MIB, Lease, show_mib
from fngw_state.usage import DeviceUse, ReplicaUse, Usage

__all__ = ["Excess", "excesses", "most_over", "usage"]

#: A replica that is over what is its own is restarted when two looks in a row say so.
LOOKS = 2


@dataclass(frozen=True)
class Excess:
    """How far a replica is over its GPU memory: ``mib``, told in ``text``, for so many looks in a row."""

    mib: int
    text: str
    looks: int = 1


def usage(
    in_use: InUse, processes: Mapping[int, Process], mains: Mapping[int, str], leases: Mapping[str, Lease]
) -> Usage:
    """Return what each replica uses.

    Args:
        in_use: what the driver tells.
        processes: what runs on the machine.
        mains: replicas by their main processes.
        leases: what replicas hold; one that holds no part of a GPU is left out.
    """
    by_replica: dict[str, list[GpuProcess]] = {}
    for process in in_use.processes:
        by_replica.setdefault(owner(process.pid, processes, mains) or "", []).append(process)
    memory: dict[str, int] = {}
    for pid, found in processes.items():
        replica = owner(pid, processes, mains) or ""
        memory[replica] = memory.get(replica, 0) + found.memory
    replicas = {
        replica: ReplicaUse(
            lease.deployment, memory.get(replica, 0) // MIB, _gpus(by_replica.get(replica, []), lease)
        )
        for replica, lease in leases.items()
        if lease.gpus and replica in mains.values()
    }
    return Usage(in_use.devices, replicas)


def _gpus(processes: Iterable[GpuProcess], lease: Lease) -> dict[str, DeviceUse]:
    found = {uuid: DeviceUse(own_mib=lease.share(uuid)[1]) for uuid in lease.gpus}
    for process in processes:
        before = found.get(process.uuid, DeviceUse(own_mib=0))
        mib = before.memory_mib + process.memory_mib
        found[process.uuid] = DeviceUse(mib, _together(before.percent, process.percent), before.own_mib)
    return found


def _together(one: int | None, other: int | None) -> int | None:
    return None if one is None and other is None else min(100, (one or 0) + (other or 0))


def excesses(found: Usage, before: Mapping[str, Excess]) -> dict[str, Excess]:
    """Return the replicas that are over what is theirs, and how far.

    Args:
        found: what was measured now.
        before: what this returned the last time.
    """
    over = {}
    for replica, use in found.replicas.items():
        parts = {uuid: gpu for uuid, gpu in use.gpus.items() if gpu.excess_mib}
        if parts:
            looks = before[replica].looks + 1 if replica in before else 1
            text = "; ".join(_told(uuid, gpu) for uuid, gpu in sorted(parts.items()))
            over[replica] = Excess(sum(gpu.excess_mib for gpu in parts.values()), text, looks)
    return over


def _told(uuid: str, gpu: DeviceUse) -> str:
    own = show_mib(gpu.own_mib or 0)
    return f"over its GPU memory: it uses {show_mib(gpu.memory_mib)} of {uuid}, and {own} are its own"


def most_over(records: Iterable[Replica], over: Mapping[str, Excess], wanted: int) -> str | None:
    """Return the replica to restart now: of several one at a time, and only while all that should serve do.

    Args:
        records: the deployment's replicas.
        over: those that are over what is theirs.
        wanted: how many are to serve.
    """
    records = list(records)
    if len(records) != wanted or any(r.state != ReplicaState.READY for r in records):
        return None
    due = [r.id for r in records if r.id in over and over[r.id].looks >= LOOKS]
    return max(due, key=lambda replica: (over[replica].mib, replica), default=None)
