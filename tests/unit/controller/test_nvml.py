"""GPUs through NVML: a driver in memory, and this machine's own, if it has one."""

from __future__ import annotations

import inspect
import sys

import pytest

from fngw_controller.inventory import nvml
from fngw_controller.inventory.base import GpuProcess, InUse
from fngw_controller.inventory.fake_nvml import FakeGpu, FakeNvml, FakeProcess
from fngw_controller.inventory.nvml import NvmlGpus
from fngw_state.resources import Device
from fngw_state.usage import DeviceUse


@pytest.fixture
def library() -> FakeNvml:
    return FakeNvml([FakeGpu("GPU-0"), FakeGpu("GPU-1", "NVIDIA T4", memory=15 << 30, ecc=None)])


@pytest.fixture
def gpus(library: FakeNvml) -> NvmlGpus:
    return NvmlGpus(library)


async def faults(gpus: NvmlGpus) -> dict[str, str]:
    return {device.uuid: device.fault for device in (await gpus.read()).devices}


async def test_lists_gpus_by_uuid(gpus: NvmlGpus):
    assert (await gpus.read()).devices == (
        Device("GPU-0", "NVIDIA H100", 81920),
        Device("GPU-1", "NVIDIA T4", 15360),
    )


async def test_mig_slices_are_devices_and_their_gpu_is_none(library: FakeNvml, gpus: NvmlGpus):
    small = FakeGpu("MIG-1", "NVIDIA H100 MIG 1g.10gb", memory=10 << 30)
    library.gpus[0].slices = [None, small, FakeGpu("MIG-2", memory=20 << 30)]
    assert (await gpus.read()).devices[:2] == (
        Device("MIG-1", "NVIDIA H100 MIG 1g.10gb", 10240, mig=True),
        Device("MIG-2", "NVIDIA H100", 20480, mig=True),
    )
    library.gpus = [FakeGpu("GPU-0", slices=[])]
    seen = await gpus.read()
    assert seen.devices == () and "no MIG slice" in seen.reason


async def test_without_a_driver_there_are_none_and_the_reason_is_kept(library: FakeNvml, gpus: NvmlGpus):
    library.failure = library.NVMLError_DriverNotLoaded("Driver Not Loaded")
    seen = await gpus.read()
    assert seen.devices == () and seen.reason == "NVML fails: Driver Not Loaded"
    library.failure = None
    assert len((await gpus.read()).devices) == 2


async def test_a_gpu_that_falls_off_the_bus_keeps_its_name(library: FakeNvml, gpus: NvmlGpus):
    await gpus.read()
    library.gpus[0].lost = True
    assert await faults(gpus) == {"GPU-0": "it does not answer: GPU is lost", "GPU-1": ""}
    library.gpus[0].lost = False
    assert await faults(gpus) == {"GPU-0": "", "GPU-1": ""}


async def test_one_that_was_lost_from_the_start_is_left_out(library: FakeNvml, gpus: NvmlGpus):
    library.gpus[0].lost = True
    assert await faults(gpus) == {"GPU-1": ""}


async def test_one_that_the_driver_lists_no_more_is_gone(library: FakeNvml, gpus: NvmlGpus):
    await gpus.read()
    del library.gpus[1]
    assert await faults(gpus) == {"GPU-0": ""}


async def test_uncorrected_memory_errors_are_a_fault(library: FakeNvml, gpus: NvmlGpus):
    library.gpus[0].ecc = 1
    assert await faults(gpus) == {"GPU-0": "1 uncorrected ECC error", "GPU-1": ""}
    library.gpus[0].ecc = 2
    assert (await faults(gpus))["GPU-0"] == "2 uncorrected ECC errors"


async def test_a_faulty_gpus_slices_are_faulty(library: FakeNvml, gpus: NvmlGpus):
    library.gpus[0].slices, library.gpus[0].ecc = [FakeGpu("MIG-1")], 1
    assert (await faults(gpus))["MIG-1"] == "1 uncorrected ECC error"


async def test_critical_errors_are_a_fault_but_not_those_that_programs_cause(library: FakeNvml, gpus: NvmlGpus):
    await gpus.read()
    library.xids += [("GPU-1", 31), ("GPU-0", 48), ("GPU-0", 79), ("GPU-1", 13)]
    assert await faults(gpus) == {"GPU-0": "critical error XID 79", "GPU-1": ""}
    assert await faults(gpus) == {"GPU-0": "critical error XID 79", "GPU-1": ""}


async def test_a_gpu_that_tells_of_no_errors_is_used_all_the_same(library: FakeNvml, gpus: NvmlGpus):
    library.gpus[0].tells = False
    assert await faults(gpus) == {"GPU-0": "", "GPU-1": ""}


async def test_a_driver_that_fails_midway_is_no_reason_to_forget(library: FakeNvml, gpus: NvmlGpus):
    await gpus.read()
    library.failure = library.NVMLError_DriverNotLoaded("Driver Not Loaded")
    told = "NVML fails: Driver Not Loaded"
    assert await faults(gpus) == {"GPU-0": told, "GPU-1": told}
    assert await faults(gpus) == {"GPU-0": told, "GPU-1": told}
    library.failure = None
    assert await faults(gpus) == {"GPU-0": "", "GPU-1": ""}
    assert library.starts == 2


async def test_without_the_library_there_are_none(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(nvml, "DRIVER", None)  # this process itself: it is there
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert (await NvmlGpus().read()).reason == "nvidia-ml-py is not installed"


async def test_without_a_driver_the_library_is_not_even_imported(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(nvml, "DRIVER", "libno-such-driver.so.1")
    monkeypatch.delitem(sys.modules, "pynvml", raising=False)
    assert (await NvmlGpus().read()).reason.startswith("NVML fails: libno-such-driver.so.1")
    assert "pynvml" not in sys.modules


async def test_what_is_used_of_each_device_and_by_whom(library: FakeNvml, gpus: NvmlGpus):
    library.gpus[0].processes = [
        FakeProcess(10, 3 << 30, 40),
        FakeProcess(11, None),
        FakeProcess(12, 1 << 30, mps=True),
    ]
    await gpus.read()
    found = await gpus.in_use()
    assert found is not None
    assert found.devices["GPU-0"] == DeviceUse(4096, 40)
    assert found.processes == (
        GpuProcess(10, "GPU-0", 3072, 40),
        GpuProcess(11, "GPU-0", 0, 0),
        GpuProcess(12, "GPU-0", 1024, 0),
    )
    library.old = True
    found = await gpus.in_use()
    assert found is not None and [p.pid for p in found.processes] == [10, 11]


async def test_what_is_used_of_slices(library: FakeNvml, gpus: NvmlGpus):
    part = FakeGpu("MIG-0", memory=10 << 30, processes=[FakeProcess(10, 2 << 30, 40)])
    library.gpus[:] = [FakeGpu("GPU-0", slices=[part])]
    await gpus.read()
    found = await gpus.in_use()
    assert found is not None
    assert found.devices == {"MIG-0": DeviceUse(2048, None)}
    assert found.processes == (GpuProcess(10, "MIG-0", 2048, None),)


async def test_of_a_gpu_that_does_not_answer_nothing_is_told(library: FakeNvml, gpus: NvmlGpus):
    await gpus.read()
    library.gpus[0].lost = True
    found = await gpus.in_use()
    assert found is not None and set(found.devices) == {gpu.uuid for gpu in library.gpus[1:]}
    library.failure = library.NVMLError_DriverNotLoaded("Driver Not Loaded")
    assert await gpus.in_use() == InUse()
    await gpus.read()
    assert await gpus.in_use() is None


async def test_this_machines_own_driver_or_its_absence():
    seen = await NvmlGpus().read()
    assert seen.devices or seen.reason
    assert all(device.memory_mib > 0 for device in seen.devices)


def test_the_fake_has_nothing_that_the_library_has_not():
    import pynvml

    own = {name for name in dir(FakeNvml) if name.lower().startswith("nvml")}
    assert {name for name in own if not hasattr(pynvml, name)} == set()
    for name in own:
        if inspect.isfunction(getattr(FakeNvml, name)):
            given = len(inspect.signature(getattr(FakeNvml, name)).parameters) - 1
            inspect.signature(getattr(pynvml, name)).bind(*range(given))
