"""GPUs as NVIDIA's driver sees them, through NVML (the module ``pynvml`` of the package nvidia-ml-py).

A device on which the driver reports errors is listed with its fault: it gets no new replicas, and those on it move.
Whatever NVML fails with, what was seen last stays known: a driver that is reloaded is no reason to forget.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import dataclasses
import logging
from collections.abc import Iterator
from typing import Any

from fngw_controller.inventory import _nvml_use
from fngw_controller.inventory._nvml_use import text_of
from fngw_controller.inventory.base import InUse, Seen
from fngw_state.resources import MIB, Device

__all__ = ["NvmlGpus"]

log = logging.getLogger(__name__)

#: Errors that programs cause, not devices (NVIDIA's own device plugin for Kubernetes leaves out the same):
#: https://docs.nvidia.com/deploy/xid-errors/
USERS_XIDS = frozenset({13, 31, 43, 45, 68, 109})


#: The driver's own part of NVML; the module loads it by the same name.
DRIVER = "libnvidia-ml.so.1"


class NvmlGpus:
    """The GPUs of this machine, their MIG slices as devices of their own.

    Args:
        library: the module pynvml, or what behaves like it; None: imported on first use.
    """

    def __init__(self, library: Any = None) -> None:
        self._nvml = library
        self._open = False
        self._events: Any = None  # None: nobody tells of critical errors
        self._known: dict[int, tuple[Device, ...]] = {}  # by the number of the GPU
        self._xids: dict[str, int] = {}  # by UUID of the GPU: the last critical error
        self._meter = _nvml_use.Meter()

    async def read(self) -> Seen:
        """Return the devices; none, with the reason, where there is no driver."""
        return await asyncio.to_thread(self._read)

    def _read(self) -> Seen:
        try:
            self._start()
        except ImportError:
            return Seen(reason="nvidia-ml-py is not installed")
        except OSError as error:
            return Seen(reason=f"NVML fails: {error}")  # there is no driver
        except self._nvml.NVMLError as error:
            return self._lost(error)
        try:
            devices = tuple(self._look())
        except self._nvml.NVMLError as error:
            self._stop()
            return self._lost(error)
        return Seen(devices, "" if devices else "NVIDIA's driver lists no GPU, and no MIG slice")

    async def in_use(self) -> InUse | None:
        """Return what is used of the devices that were read last and answer; None when there are none."""
        return await asyncio.to_thread(self._in_use) if self._open and self._known else None

    def _in_use(self) -> InUse | None:
        handles: list[Any] = []
        for number in self._known:
            try:
                handles += self._parts(self._nvml.nvmlDeviceGetHandleByIndex(number))
            except self._nvml.NVMLError as error:  # `read` tells of it
                log.debug("GPU number %d does not answer: %s", number, error)
        return self._meter.read(self._nvml, handles)

    def _start(self) -> None:
        if self._nvml is None:
            ctypes.CDLL(DRIVER)  # without one, importing the module would only cost memory
            import pynvml

            self._nvml = pynvml
        if not self._open:
            self._nvml.nvmlInit()
            self._open, self._events = True, self._subscribe()

    def _stop(self) -> None:
        self._open = False
        self._xids.clear()  # a driver that is loaded anew has reset its devices
        try:
            self._nvml.nvmlShutdown()
        except self._nvml.NVMLError as error:
            log.debug("NVML did not shut down: %s", error)

    def _lost(self, error: Exception) -> Seen:
        fault = f"NVML fails: {error}"
        if not self._known:
            return Seen(reason=fault)
        known = (device for devices in self._known.values() for device in devices)
        return Seen(tuple(dataclasses.replace(device, fault=fault) for device in known))

    # -- devices ------------------------------------------------------------------------------------------

    def _look(self) -> Iterator[Device]:
        count = int(self._nvml.nvmlDeviceGetCount())
        self._hear_events()
        self._known = {number: devices for number, devices in self._known.items() if number < count}
        for number in range(count):
            yield from self._gpu(number)

    def _gpu(self, number: int) -> tuple[Device, ...]:
        """Return one GPU, or its slices; as it was last seen, with a fault, when it does not answer."""
        try:
            found = self._known[number] = tuple(self._devices(self._nvml.nvmlDeviceGetHandleByIndex(number)))
        except self._nvml.NVMLError as error:
            known = self._known.get(number, ())
            if not known:
                log.warning("GPU number %d does not answer: %s", number, error)
            return tuple(dataclasses.replace(device, fault=f"it does not answer: {error}") for device in known)
        return found

    def _devices(self, handle: Any) -> Iterator[Device]:
        fault, mig = self._fault(handle), self._is_sliced(handle)
        for part in self._parts(handle):
            yield dataclasses.replace(self._device(part, fault), mig=mig)

    def _parts(self, handle: Any) -> Iterator[Any]:
        """The GPU itself, or its slices."""
        if not self._is_sliced(handle):
            yield handle
            return
        for number in range(self._nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
            with contextlib.suppress(self._nvml.NVMLError_NotFound):  # as many as could be, not as there are
                yield self._nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, number)

    def _device(self, handle: Any, fault: str) -> Device:
        memory = int(self._nvml.nvmlDeviceGetMemoryInfo(handle).total) // MIB
        uuid, model = self._nvml.nvmlDeviceGetUUID(handle), self._nvml.nvmlDeviceGetName(handle)
        return Device(text_of(uuid), text_of(model), memory, fault=fault)

    def _is_sliced(self, handle: Any) -> bool:
        nvml = self._nvml
        try:
            current, _ = nvml.nvmlDeviceGetMigMode(handle)
        except (nvml.NVMLError_NotSupported, nvml.NVMLError_NoPermission, nvml.NVMLError_FunctionNotFound):
            return False  # an old GPU, part of one in a virtual machine, an old driver
        return bool(current == self._nvml.NVML_DEVICE_MIG_ENABLE)

    # -- faults -------------------------------------------------------------------------------------------

    def _fault(self, handle: Any) -> str:
        xid = self._xids.get(text_of(self._nvml.nvmlDeviceGetUUID(handle)))
        if xid is not None:
            return f"critical error XID {xid}"
        errors = self._ecc_errors(handle)
        return f"{errors} uncorrected ECC error{'s' if errors > 1 else ''}" if errors else ""

    def _ecc_errors(self, handle: Any) -> int:
        """Since the driver was loaded; those that were corrected harm nobody.

        Where they are not told, as of many virtual GPUs, there are none: a GPU in trouble fails what is asked next.
        """
        kinds = self._nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, self._nvml.NVML_VOLATILE_ECC
        try:
            return int(self._nvml.nvmlDeviceGetTotalEccErrors(handle, *kinds))
        except self._nvml.NVMLError:
            return 0

    def _subscribe(self) -> Any:
        """Have critical errors of all GPUs kept for ``_hear_events``; those that cannot tell are left out."""
        try:
            events, count = self._nvml.nvmlEventSetCreate(), self._nvml.nvmlDeviceGetCount()
        except self._nvml.NVMLError as error:  # some sandboxes pass on no events
            log.info("the driver does not tell of critical errors: %s", error)
            return None
        for number in range(count):
            try:
                handle = self._nvml.nvmlDeviceGetHandleByIndex(number)
                self._nvml.nvmlDeviceRegisterEvents(handle, self._nvml.nvmlEventTypeXidCriticalError, events)
            except self._nvml.NVMLError as error:
                log.info("GPU number %d does not tell of critical errors: %s", number, error)
        return events

    def _hear_events(self) -> None:
        while self._events is not None:
            try:
                event = self._nvml.nvmlEventSetWait_v2(self._events, 0)
                if event.eventData not in USERS_XIDS:
                    self._xids[text_of(self._nvml.nvmlDeviceGetUUID(event.device))] = int(event.eventData)
            except self._nvml.NVMLError_Timeout:
                return
            except self._nvml.NVMLError as error:  # the GPU itself tells when it is looked at
                log.debug("a critical error could not be heard: %s", error)
                return
