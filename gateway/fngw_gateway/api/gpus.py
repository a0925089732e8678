"""What the machine has for replicas, who holds it, and what is free."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from fngw.spec import DeploymentSpec
from fngw_state import resources
from fngw_state.leases import Leases
from fngw_state.resources import CPUS, MEMORY, WHOLE, Capacity, Device, Ledger
from fngw_state.store import Store
from fngw_state.usage import DeviceUse, Measured, ReplicaUse, Usage

router = APIRouter(tags=["machine"])


@router.get("/gpus")
async def gpus(request: Request) -> dict[str, Any]:
    """The GPUs with their leases, what is free and what is used; the machine's memory and CPUs beside them."""
    store: Store = request.app.state.store
    return describe(await Leases(store).ledger(), await Measured(store).get())


async def check_fits(store: Store, spec: DeploymentSpec) -> None:
    """Refuse what can never run here. While no controller has said what the machine has, nothing is refused.

    Raises:
        ValidationError: code ``does_not_fit`` or ``no_gpu``.
    """
    capacity = (await Leases(store).ledger()).capacity
    error = resources.does_not_fit(capacity, resources.Request.of(spec)) if capacity else None
    if error:
        raise error


def describe(ledger: Ledger, usage: Usage) -> dict[str, Any]:
    """Return the JSON form of who holds what, and uses what."""
    capacity = ledger.capacity or Capacity(no_gpus="no controller has led yet")
    used = ledger.used()
    return {
        "gpus": [_gpu(ledger, device, used, usage) for device in capacity.devices],
        "reason": capacity.no_gpus,
        "memory_mib": _of_host(ledger, MEMORY, capacity.memory_mib, 1),
        "cpus": _of_host(ledger, CPUS, capacity.milli_cpus, WHOLE),
    }


def _gpu(ledger: Ledger, device: Device, used: dict[str, int], usage: Usage) -> dict[str, Any]:
    leases = []
    for replica, lease in sorted(ledger.leases.items()):
        milli, mib = lease.share(device.uuid)
        if milli:
            use = usage.replicas.get(replica)
            share = {
                "share": milli / WHOLE,
                "memory_mib": mib,
                "used": _used(use.gpus.get(device.uuid) if use else None),
            }
            leases.append({"deployment": lease.deployment, "replica": replica, **share})
    free_milli = WHOLE - used.get(resources.gpu_key(device.uuid), 0)
    free_mib = device.memory_mib - used.get(resources.gpu_mib_key(device.uuid), 0)
    free = {"share": max(0, free_milli) / WHOLE, "memory_mib": max(0, free_mib)}
    return {
        "uuid": device.uuid,
        "model": device.model,
        "memory_mib": device.memory_mib,
        "mig": device.mig,
        "fault": device.fault,
        "free": {"share": 0.0, "memory_mib": 0} if device.fault else free,
        "used": _used(usage.devices.get(device.uuid)),
        "leases": leases,
    }


def describe_use(use: ReplicaUse | None) -> dict[str, Any] | None:
    """Return the JSON form of what one replica uses; None where nobody measures."""
    if use is None:
        return None
    gpus = {uuid: {**(_used(part) or {}), "own_mib": part.own_mib} for uuid, part in use.gpus.items()}
    return {"memory_mib": use.memory_mib, "gpus": gpus}


def _used(use: DeviceUse | None) -> dict[str, Any] | None:
    return {"memory_mib": use.memory_mib, "percent": use.percent} if use else None


def _of_host(ledger: Ledger, resource: str, total: int | None, unit: int) -> dict[str, Any] | None:
    """One of the host's resources, in units of so many; None where it is not accounted."""
    if total is None:
        return None
    leases = [
        {"deployment": lease.deployment, "replica": replica, "amount": lease.amounts[resource] / unit}
        for replica, lease in sorted(ledger.leases.items())
        if resource in lease.amounts
    ]
    free = max(0, total - ledger.used().get(resource, 0))
    return {"total": total / unit, "free": free / unit, "leases": leases}
