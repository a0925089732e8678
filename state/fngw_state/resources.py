"""What a machine has, what a replica asks for and holds of it: pure values, and the sums over them.

Amounts are whole numbers by resource: ``memory_mib`` and ``milli_cpus`` of the host; ``gpu:<uuid>`` (thousandths of
a device) and ``gpu_mib:<uuid>`` (MiB of its memory). A share of a GPU is both at once, so that shares asked for as
fractions and as memory can sit on one device and oversubscribe neither.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from fngw.errors import ValidationError
from fngw.spec import DeploymentSpec
from fngw_state.records import Record

__all__ = [
    "CPUS",
    "MEMORY",
    "WHOLE",
    "Capacity",
    "Device",
    "Lease",
    "Ledger",
    "Request",
    "does_not_fit",
    "show_mib",
]

MEMORY = "memory_mib"
CPUS = "milli_cpus"
#: A whole device, in thousandths.
WHOLE = 1000
MIB = 1 << 20

Amounts = Mapping[str, int]


def gpu_key(uuid: str) -> str:
    """The resource of a device's thousandths."""
    return f"gpu:{uuid}"


def gpu_mib_key(uuid: str) -> str:
    """The resource of a device's memory."""
    return f"gpu_mib:{uuid}"


@dataclass(frozen=True)
class Device(Record):
    """One GPU, or one MIG slice of one. A ``fault`` (why it is not to be used) keeps new leases away."""

    uuid: str
    model: str
    memory_mib: int
    mig: bool = False
    fault: str = ""


@dataclass(frozen=True)
class Capacity(Record):
    """What the machine has for replicas.

    Args:
        memory_mib: None: not accounted.
        milli_cpus: None: not accounted, as no one has declared it.
        devices: its GPUs.
        no_gpus: why there are none, for people.
    """

    memory_mib: int | None = None
    milli_cpus: int | None = None
    devices: tuple[Device, ...] = ()
    no_gpus: str = ""

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        return super().from_dict({**data, "devices": tuple(map(Device.from_dict, data["devices"]))})

    def device(self, uuid: str) -> Device | None:
        return next((d for d in self.devices if d.uuid == uuid), None)


@dataclass(frozen=True)
class Request(Record):
    """What one replica asks for.

    Args:
        memory_mib: memory of the host; 0: none reserved.
        milli_cpus: thousandths of a CPU; count only where the machine's are declared.
        gpus: how many devices.
        gpu_milli: thousandths of each; 0: what ``gpu_mib`` comes to.
        gpu_mib: memory of each; 0: what ``gpu_milli`` comes to.

    Example:
        >>> Request.of(spec).gpu_milli      # num_gpus=0.25
        250
    """

    memory_mib: int = 0
    milli_cpus: int = 0
    gpus: int = 0
    gpu_milli: int = 0
    gpu_mib: int = 0

    @classmethod
    def of(cls, spec: DeploymentSpec) -> Self:
        """Return what a replica of ``spec`` asks for."""
        memory, gpu_memory = (math.ceil((size or 0) / MIB) for size in (spec.memory, spec.gpu_memory))
        gpus = int(spec.num_gpus) if spec.num_gpus > 1 else int(spec.num_gpus > 0 or gpu_memory > 0)
        milli = min(WHOLE, round(spec.num_gpus * WHOLE))
        return cls(memory, math.ceil(spec.num_cpus * WHOLE), gpus, milli, gpu_memory)

    def charge(self, device: Device) -> tuple[int, int]:
        """Return what it takes of one device: thousandths and MiB."""
        total = max(1, device.memory_mib)
        milli = self.gpu_milli or math.ceil(self.gpu_mib * WHOLE / total)
        if milli == WHOLE:
            return milli, max(self.gpu_mib, device.memory_mib)
        return milli, self.gpu_mib or device.memory_mib * milli // WHOLE

    def fits_alone(self, device: Device) -> bool:
        """Whether the device, empty, has what it takes of one."""
        milli, mib = self.charge(device)
        return milli <= WHOLE and mib <= device.memory_mib and not (self.gpus > 1 and device.mig)

    def counted(self, capacity: Capacity) -> bool:
        """Whether anything of it is accounted on such a machine."""
        memory = capacity.memory_mib is not None and self.memory_mib
        cpus = capacity.milli_cpus is not None and self.milli_cpus
        return bool(memory or cpus or self.gpus)

    @property
    def gpu_text(self) -> str:
        """The GPU part, for people: ``2 GPUs``, ``0.25 GPU``, ``10 GiB of GPU memory``."""
        if self.gpu_milli == 0:
            return f"{show_mib(self.gpu_mib)} of GPU memory"
        count = f"{self.gpus} GPU{'s' if self.gpus > 1 else ''}"
        share = count if self.gpu_milli == WHOLE else f"{self.gpu_milli / WHOLE:g} GPU"
        return f"{share} with {show_mib(self.gpu_mib)}" if self.gpu_mib else share


@dataclass(frozen=True)
class Lease(Record):
    """What one replica holds."""

    deployment: str
    amounts: Amounts = field(default_factory=dict)

    @property
    def gpus(self) -> tuple[str, ...]:
        """The devices that it has a share of."""
        return tuple(sorted(key.partition(":")[2] for key in self.amounts if key.startswith("gpu:")))

    def share(self, uuid: str) -> tuple[int, int]:
        """Thousandths and MiB of one device."""
        return self.amounts.get(gpu_key(uuid), 0), self.amounts.get(gpu_mib_key(uuid), 0)


@dataclass(frozen=True)
class Ledger:
    """All leases at one moment.

    Args:
        capacity: the machine; None while no controller has said what it has.
        leases: by replica.
        reserved: by deployment, what is kept for it even while it holds less: a replica of it is being replaced.
    """

    capacity: Capacity | None = None
    leases: Mapping[str, Lease] = field(default_factory=dict)
    reserved: Mapping[str, Amounts] = field(default_factory=dict)

    def held(self, deployment: str) -> dict[str, int]:
        """What the replicas of a deployment hold together."""
        return _sum(lease.amounts for lease in self.leases.values() if lease.deployment == deployment)

    def kept(self, deployment: str) -> dict[str, int]:
        """What no other deployment can have: what it holds, or what is reserved for it, whichever is more."""
        held, reserved = self.held(deployment), self.reserved.get(deployment, {})
        return {k: max(held.get(k, 0), reserved.get(k, 0)) for k in {*held, *reserved}}

    def used(self) -> dict[str, int]:
        """What is taken of each resource."""
        names = {lease.deployment for lease in self.leases.values()} | set(self.reserved)
        return _sum(self.kept(name) for name in names)

    def holders(self, resource: str) -> list[str]:
        """Who has some of a resource, for people: ``A (replica a1b2)``, most first."""
        shares = [(lease.amounts.get(resource, 0), replica) for replica, lease in self.leases.items()]
        found = [f"{self.leases[r].deployment} (replica {r})" for n, r in sorted(shares, reverse=True) if n]
        spare = [d for d in sorted(self.reserved) if self.kept(d).get(resource, 0) > self.held(d).get(resource, 0)]
        return found + [f"{deployment} (kept for a replica that is being replaced)" for deployment in spare]

    def missing(self, request: Request) -> str:
        """Return what of a request is not free now and who holds it, in one line."""
        parts = [self._missing_of_host(key, getattr(request, key)) for key in (MEMORY, CPUS)]
        if request.gpus:
            parts.append(self._missing_gpus(request))
        return "; ".join(filter(None, parts)) or "room"

    def _missing_of_host(self, resource: str, wanted: int) -> str:
        total = getattr(self.capacity, resource, None)
        if total is None or not wanted:
            return ""
        free = total - self.used().get(resource, 0)
        if wanted <= free:
            return ""
        show, what = (show_mib, "of memory") if resource == MEMORY else (_show_cpus, "CPUs")
        who = ", ".join(self.holders(resource))
        return f"{show(wanted)} {what}: {show(max(0, free))} of {show(total)} free; held by {who or 'nobody'}"

    def _missing_gpus(self, request: Request) -> str:
        devices = self.capacity.devices if self.capacity else ()
        used = self.used()
        fitting = [d for d in devices if request.fits_alone(d) and not d.fault]
        enough = [d for d in fitting if _has_room(d, request, used)]
        if len(enough) >= request.gpus:
            return ""
        full = [d for d in devices if d not in enough and request.fits_alone(d)]
        return f"{request.gpu_text}: " + "; ".join(self._occupied(d, used) for d in full)

    def _occupied(self, device: Device, used: Amounts) -> str:
        if device.fault:
            return f"{device.uuid} is not used: {device.fault}"
        free = (WHOLE - used.get(gpu_key(device.uuid), 0)) / WHOLE
        free_mib = device.memory_mib - used.get(gpu_mib_key(device.uuid), 0)
        rest = f" ({free:g} and {show_mib(free_mib)} free)" if free > 0 else ""
        return f"{device.uuid} is held by {', '.join(self.holders(gpu_key(device.uuid)))}{rest}"


def does_not_fit(capacity: Capacity, request: Request) -> ValidationError | None:
    """Return why one replica cannot ever run on this machine, be it empty; None when it can."""
    for key, option, show in ((MEMORY, "memory", show_mib), (CPUS, "num_cpus", _show_cpus)):
        total, wanted = getattr(capacity, key), getattr(request, key)
        if total is not None and wanted > total:
            return _impossible(f"{option}: a replica asks for {show(wanted)}, and this machine has {show(total)}")
    if not request.gpus:
        return None
    if not capacity.devices:
        hint = "install NVIDIA's driver, or name the GPUs in a file: FNGW_GPU_INVENTORY"
        text = f"a replica asks for {request.gpu_text}, and this machine has no GPU"
        reason = f" ({capacity.no_gpus})" if capacity.no_gpus else ""
        return ValidationError(f"num_gpus, gpu_memory: {text}{reason}", code="no_gpu", hint=hint)
    if sum(map(request.fits_alone, capacity.devices)) >= request.gpus:
        return None
    what = ", ".join(f"{d.uuid} with {show_mib(d.memory_mib)}" for d in capacity.devices)
    return _impossible(f"num_gpus, gpu_memory: a replica asks for {request.gpu_text}, and this machine has {what}")


def _impossible(message: str) -> ValidationError:
    return ValidationError(message, code="does_not_fit", hint="ask for less; `fngw gpus` shows what there is")


def _has_room(device: Device, request: Request, used: Amounts) -> bool:
    milli, mib = request.charge(device)
    fits = milli <= WHOLE - used.get(gpu_key(device.uuid), 0)
    return fits and mib <= device.memory_mib - used.get(gpu_mib_key(device.uuid), 0)


def _sum(parts: Iterable[Amounts]) -> dict[str, int]:
    total: dict[str, int] = {}
    for amounts in parts:
        for key, amount in amounts.items():
            total[key] = total.get(key, 0) + amount
    return total


def show_mib(mib: int) -> str:
    """Return an amount of memory for people.

    Example:
        >>> show_mib(1536), show_mib(100)
        ('1.5 GiB', '100 MiB')
    """
    return f"{mib / 1024:.4g} GiB" if mib >= 1024 else f"{mib} MiB"


def _show_cpus(milli: int) -> str:
    return f"{milli / WHOLE:g}"
