"""The protocol between the controller and whatever knows the machine's GPUs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from fngw.errors import FngwError
from fngw_state.resources import Capacity, Device
from fngw_state.usage import DeviceUse

__all__ = ["GpuProcess", "Gpus", "InUse", "Inventory", "InventoryError", "NoGpus", "Seen"]


class InventoryError(FngwError):
    """What was declared of the machine cannot be used: code ``gpu_inventory_invalid``."""

    default_code = "gpu_inventory_invalid"


@dataclass(frozen=True)
class Seen:
    """The devices that there are; ``reason``: why there are none, for people."""

    devices: tuple[Device, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class GpuProcess:
    """What one process uses of one device: MiB of its memory, and percent of its time (None: not told)."""

    pid: int
    uuid: str
    memory_mib: int
    percent: int | None = None


@dataclass(frozen=True)
class InUse:
    """What is used of the devices, by all and by each process."""

    devices: Mapping[str, DeviceUse] = field(default_factory=dict)
    processes: tuple[GpuProcess, ...] = ()


class Gpus(Protocol):
    """Knows the GPUs."""

    async def read(self) -> Seen:
        """Look at them.

        Raises:
            InventoryError: what was declared cannot be used, and never could.
        """
        ...

    async def in_use(self) -> InUse | None:
        """Look at what is used of them; None where that cannot be known."""
        ...


@dataclass(frozen=True)
class NoGpus:
    """Knows of none."""

    reason: str = ""

    async def read(self) -> Seen:
        return Seen(reason=self.reason)

    async def in_use(self) -> InUse | None:
        return None


@dataclass(frozen=True)
class Inventory:
    """What the machine has.

    Args:
        memory_mib: memory for replicas that ask for some; None: not accounted.
        milli_cpus: thousandths of CPUs; None: not accounted.
        gpus: knows the GPUs.
    """

    memory_mib: int | None = None
    milli_cpus: int | None = None
    gpus: Gpus = NoGpus()

    async def read(self) -> Capacity:
        """Look at all of it.

        Raises:
            InventoryError: what was declared cannot be used.
        """
        seen = await self.gpus.read()
        return Capacity(self.memory_mib, self.milli_cpus, seen.devices, seen.reason)
