"""What is used of NVIDIA GPUs: of each device by all, and by each process, as NVML tells it.

Each call may be one that a device does not support, or that a device in trouble fails: then less is told.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fngw_controller.inventory.base import GpuProcess, InUse
from fngw_state.resources import MIB
from fngw_state.usage import DeviceUse

__all__ = ["Meter", "text_of"]


class Meter:
    """Reads what is used; remembers until when a device's samples were read, as only newer ones count."""

    def __init__(self) -> None:
        self._read_until: dict[str, int] = {}  # by UUID; microseconds on the driver's clock

    def read(self, nvml: Any, handles: Iterable[Any]) -> InUse:
        """Return what is used.

        Args:
            nvml: the module pynvml, or what behaves like it.
            handles: of the devices.
        """
        devices: dict[str, DeviceUse] = {}
        processes: list[GpuProcess] = []
        for handle in handles:
            try:
                uuid = text_of(nvml.nvmlDeviceGetUUID(handle))
                devices[uuid] = DeviceUse(_used(nvml, handle), _busy(nvml, handle))
                processes += self._processes(nvml, handle, uuid)
            except nvml.NVMLError:  # the inventory tells of a device that does not answer
                continue
        return InUse(devices, tuple(processes))

    def _processes(self, nvml: Any, handle: Any, uuid: str) -> list[GpuProcess]:
        percents = self._percents(nvml, handle, uuid)
        sizes: dict[int, int] = {}
        for process in _running(nvml, handle):
            sizes[process.pid] = (process.usedGpuMemory or 0) // MIB  # None: the driver does not tell
        told = percents is not None
        return [
            GpuProcess(pid, uuid, mib, (percents or {}).get(pid, 0) if told else None)
            for pid, mib in sorted(sizes.items())
        ]

    def _percents(self, nvml: Any, handle: Any, uuid: str) -> dict[int, int] | None:
        """By process that did something since the last time; None where the device does not tell."""
        try:
            samples = nvml.nvmlDeviceGetProcessUtilization(handle, self._read_until.get(uuid, 0))
        except nvml.NVMLError_NotFound:  # nobody did anything
            return {}
        except nvml.NVMLError:  # a MIG slice, or an old GPU; memory may be told all the same
            return None
        newest = sorted(samples, key=lambda sample: int(sample.timeStamp))
        if newest:
            self._read_until[uuid] = int(newest[-1].timeStamp)
        return {int(sample.pid): int(sample.smUtil) for sample in newest}


def _running(nvml: Any, handle: Any) -> list[Any]:
    """The processes on a device; clients of MPS are listed apart by some drivers.

    By the calls of one version: of a driver too old for them, the others raise what is no ``NVMLError``.
    """
    found = list(nvml.nvmlDeviceGetComputeRunningProcesses_v3(handle))
    try:
        return [*found, *nvml.nvmlDeviceGetMPSComputeRunningProcesses_v3(handle)]
    except nvml.NVMLError:  # a driver or a device without
        return found


def _used(nvml: Any, handle: Any) -> int:
    return int(nvml.nvmlDeviceGetMemoryInfo(handle).used) // MIB


def _busy(nvml: Any, handle: Any) -> int | None:
    try:
        return int(nvml.nvmlDeviceGetUtilizationRates(handle).gpu)
    except nvml.NVMLError:  # a MIG slice, or a virtual GPU; one in trouble has failed before
        return None


def text_of(value: Any) -> str:
    """Return text as text: older versions of pynvml give bytes."""
    return value.decode() if isinstance(value, bytes) else str(value)
