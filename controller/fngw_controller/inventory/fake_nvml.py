"""An NVML in memory, for tests: what ``nvml`` uses of the module pynvml, over GPUs that a test breaks.

library = FakeNvml([FakeGpu("GPU-0"), FakeGpu("GPU-1", slices=[FakeGpu("MIG-0", memory=10 << 30)])])
library.gpus[0].lost = True          # it has fallen off the bus
library.xids.append(("GPU-0", 79))   # the driver tells of a critical error
library.failure = library.NVMLError_DriverNotLoaded("Driver Not Loaded")
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace


class NVMLError(Exception):
    """Base of what NVML fails with."""


class NVMLError_NotFound(NVMLError):
    """There is nothing of this number."""


class NVMLError_NotSupported(NVMLError):
    """This GPU cannot do that."""


class NVMLError_NoPermission(NVMLError):
    """That is not for everybody to know."""


class NVMLError_Timeout(NVMLError):
    """No event has come."""


class NVMLError_GpuIsLost(NVMLError):
    """It has fallen off the bus."""


class NVMLError_DriverNotLoaded(NVMLError):
    """There is no driver."""


class NVMLError_FunctionNotFound(NVMLError):
    """The driver is too old for that."""


@dataclass
class FakeProcess:
    """A process on a GPU: bytes of memory (None: not told) and percent of its time (0: it did nothing)."""

    pid: int
    memory: int | None
    percent: int = 0
    mps: bool = False


@dataclass
class FakeGpu:
    """One GPU. ``slices`` not None: MIG is on. ``ecc`` None: it has no such memory. ``memory`` is in bytes.

    ``shy``: a virtual machine's, which tells what it is and no more.
    """

    uuid: str
    model: str = "NVIDIA H100"
    memory: int = 80 << 30
    slices: Sequence[FakeGpu | None] | None = None
    ecc: int | None = 0
    lost: bool = False
    tells: bool = True
    shy: bool = False
    processes: list[FakeProcess] = field(default_factory=list)


@dataclass
class FakeNvml:
    """Behaves as the module pynvml. ``failure`` is raised by every call while it is set.

    ``old``: a driver without calls for MPS; ``deaf``: one without events.
    """

    gpus: list[FakeGpu] = field(default_factory=list)
    xids: list[tuple[str, int]] = field(default_factory=list)
    failure: NVMLError | None = None
    starts: int = 0
    old: bool = False
    deaf: bool = False

    NVMLError = NVMLError
    NVMLError_NotFound = NVMLError_NotFound
    NVMLError_NotSupported = NVMLError_NotSupported
    NVMLError_NoPermission = NVMLError_NoPermission
    NVMLError_Timeout = NVMLError_Timeout
    NVMLError_GpuIsLost = NVMLError_GpuIsLost
    NVMLError_DriverNotLoaded = NVMLError_DriverNotLoaded
    NVMLError_FunctionNotFound = NVMLError_FunctionNotFound
    NVML_DEVICE_MIG_ENABLE = 1
    NVML_MEMORY_ERROR_TYPE_UNCORRECTED = 1
    NVML_VOLATILE_ECC = 0
    nvmlEventTypeXidCriticalError = 8

    def _check(self, gpu: FakeGpu | None = None) -> None:
        if self.failure:
            raise self.failure
        if gpu is not None and gpu.lost:
            raise NVMLError_GpuIsLost("GPU is lost")

    def _check_open(self, gpu: FakeGpu) -> None:
        self._check(gpu)
        if gpu.shy:
            raise NVMLError_NoPermission("Insufficient Permissions")

    def nvmlInit(self) -> None:
        self._check()
        self.starts += 1

    def nvmlShutdown(self) -> None:
        self._check()

    def nvmlDeviceGetCount(self) -> int:
        self._check()
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, number: int) -> FakeGpu:
        self._check(self.gpus[number])
        return self.gpus[number]

    def nvmlDeviceGetUUID(self, gpu: FakeGpu) -> str:
        self._check(gpu)
        return gpu.uuid

    def nvmlDeviceGetName(self, gpu: FakeGpu) -> bytes:
        self._check(gpu)
        return gpu.model.encode()

    def nvmlDeviceGetMemoryInfo(self, gpu: FakeGpu) -> SimpleNamespace:
        self._check(gpu)
        return SimpleNamespace(total=gpu.memory, used=sum(process.memory or 0 for process in gpu.processes))

    def nvmlDeviceGetUtilizationRates(self, gpu: FakeGpu) -> SimpleNamespace:
        self._check_open(gpu)
        if gpu.uuid.startswith("MIG-"):
            raise NVMLError_NotSupported("Not Supported")
        return SimpleNamespace(gpu=min(100, sum(process.percent for process in gpu.processes)))

    def nvmlDeviceGetComputeRunningProcesses_v3(self, gpu: FakeGpu) -> list[SimpleNamespace]:
        return self._listed(gpu, mps=False)

    def nvmlDeviceGetMPSComputeRunningProcesses_v3(self, gpu: FakeGpu) -> list[SimpleNamespace]:
        if self.old:
            raise NVMLError_FunctionNotFound("Function Not Found")
        return self._listed(gpu, mps=True)

    def _listed(self, gpu: FakeGpu, *, mps: bool) -> list[SimpleNamespace]:
        self._check_open(gpu)
        return [SimpleNamespace(pid=p.pid, usedGpuMemory=p.memory) for p in gpu.processes if p.mps == mps]

    def nvmlDeviceGetProcessUtilization(self, gpu: FakeGpu, since: int) -> list[SimpleNamespace]:
        self._check_open(gpu)
        if gpu.uuid.startswith("MIG-"):
            raise NVMLError_NotSupported("Not Supported")
        found = [
            SimpleNamespace(pid=p.pid, smUtil=p.percent, timeStamp=since + 1) for p in gpu.processes if p.percent
        ]
        if not found:
            raise NVMLError_NotFound("Not Found")
        return found

    def nvmlDeviceGetMigMode(self, gpu: FakeGpu) -> tuple[int, int]:
        self._check_open(gpu)
        if gpu.ecc is None:
            raise NVMLError_NotSupported("Not Supported")
        return (0, 0) if gpu.slices is None else (1, 1)

    def nvmlDeviceGetMaxMigDeviceCount(self, gpu: FakeGpu) -> int:
        self._check(gpu)
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, gpu: FakeGpu, number: int) -> FakeGpu:
        self._check(gpu)
        part = gpu.slices[number] if gpu.slices and number < len(gpu.slices) else None
        if part is None:
            raise NVMLError_NotFound("Not Found")
        return part

    def nvmlDeviceGetTotalEccErrors(self, gpu: FakeGpu, kind: int, since: int) -> int:
        self._check_open(gpu)
        if gpu.ecc is None:
            raise NVMLError_NotSupported("Not Supported")
        return gpu.ecc

    def nvmlEventSetCreate(self) -> object:
        self._check()
        if self.deaf:
            raise NVMLError_NotSupported("Not Supported")
        return object()

    def nvmlDeviceRegisterEvents(self, gpu: FakeGpu, kinds: int, events: object) -> None:
        self._check(gpu)
        if not gpu.tells:
            raise NVMLError_NotSupported("Not Supported")

    def nvmlEventSetWait_v2(self, events: object, timeout_ms: int) -> SimpleNamespace:
        self._check()
        if not self.xids:
            raise NVMLError_Timeout("Timeout")
        uuid, xid = self.xids.pop(0)
        gpu = next(gpu for gpu in self.gpus if gpu.uuid == uuid)
        return SimpleNamespace(device=gpu, eventData=xid)
