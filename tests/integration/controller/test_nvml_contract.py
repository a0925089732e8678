"""One suite for NVML: the driver in memory, and the real pynvml on a stand-in for the driver's library."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.nvml_standin.build import build
from tests.nvml_standin.standin import StandIn, StandInGpus

from fngw_controller.inventory.base import GpuProcess, Gpus, InUse
from fngw_controller.inventory.fake_nvml import FakeGpu, FakeNvml, FakeProcess
from fngw_controller.inventory.nvml import NvmlGpus
from fngw_state.resources import Device
from fngw_state.usage import DeviceUse


@pytest.fixture
def library() -> FakeNvml:
    return FakeNvml([FakeGpu("GPU-0"), FakeGpu("GPU-1", "NVIDIA T4", memory=15 << 30, ecc=None)])


@pytest.fixture(scope="module")
def standin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandIn]:
    """A process that has the stand-in where others have the driver's library."""
    found = StandIn(build(tmp_path_factory.mktemp("nvml")))
    yield found
    found.close()


@pytest.fixture(params=["fake", "stand-in"])
def gpus(request: pytest.FixtureRequest, library: FakeNvml) -> Gpus:
    """What the module makes of the GPUs of ``library``, given by it or by the stand-in."""
    if request.param == "fake":
        return NvmlGpus(library)
    return StandInGpus(request.getfixturevalue("standin"), library)


async def faults(gpus: Gpus) -> dict[str, str]:
    return {device.uuid: device.fault for device in (await gpus.read()).devices}


async def test_lists_gpus_by_uuid(gpus: Gpus):
    assert (await gpus.read()).devices == (
        Device("GPU-0", "NVIDIA H100", 81920),
        Device("GPU-1", "NVIDIA T4", 15360),
    )


async def test_mig_slices_are_devices_and_their_gpu_is_none(library: FakeNvml, gpus: Gpus):
    small = FakeGpu("MIG-1", "NVIDIA H100 MIG 1g.10gb", memory=10 << 30)
    library.gpus[0].slices = [None, small, FakeGpu("MIG-2", memory=20 << 30)]
    assert (await gpus.read()).devices[:2] == (
        Device("MIG-1", "NVIDIA H100 MIG 1g.10gb", 10240, mig=True),
        Device("MIG-2", "NVIDIA H100", 20480, mig=True),
    )
    library.gpus = [FakeGpu("GPU-0", slices=[])]
    seen = await gpus.read()
    assert seen.devices == () and "no MIG slice" in seen.reason


async def test_without_a_driver_there_are_none_and_the_reason_is_kept(library: FakeNvml, gpus: Gpus):
    library.failure = library.NVMLError_DriverNotLoaded("Driver Not Loaded")
    seen = await gpus.read()
    assert seen.devices == () and seen.reason == "NVML fails: Driver Not Loaded"
    library.failure = None
    assert len((await gpus.read()).devices) == 2


async def test_a_gpu_that_falls_off_the_bus_keeps_its_name(library: FakeNvml, gpus: Gpus):
    await gpus.read()
    library.gpus[0].lost = True
    assert await faults(gpus) == {"GPU-0": "it does not answer: GPU is lost", "GPU-1": ""}
    library.gpus[0].lost = False
    assert await faults(gpus) == {"GPU-0": "", "GPU-1": ""}


async def test_one_that_was_lost_from_the_start_is_left_out(library: FakeNvml, gpus: Gpus):
    library.gpus[0].lost = True
    assert await faults(gpus) == {"GPU-1": ""}


async def test_one_that_the_driver_lists_no_more_is_gone(library: FakeNvml, gpus: Gpus):
    await gpus.read()
    del library.gpus[1]
    assert await faults(gpus) == {"GPU-0": ""}


async def test_uncorrected_memory_errors_are_a_fault(library: FakeNvml, gpus: Gpus):
    library.gpus[0].ecc = 1
    assert await faults(gpus) == {"GPU-0": "1 uncorrected ECC error", "GPU-1": ""}
    library.gpus[0].ecc = 2
    assert (await faults(gpus))["GPU-0"] == "2 uncorrected ECC errors"


async def test_a_faulty_gpus_slices_are_faulty(library: FakeNvml, gpus: Gpus):
    library.gpus[0].slices, library.gpus[0].ecc = [FakeGpu("MIG-1")], 1
    assert (await faults(gpus))["MIG-1"] == "1 uncorrected ECC error"


async def test_critical_errors_are_a_fault_but_not_those_that_programs_cause(library: FakeNvml, gpus: Gpus):
    await gpus.read()
    library.xids += [("GPU-1", 31), ("GPU-0", 48), ("GPU-0", 79), ("GPU-1", 13)]
    assert await faults(gpus) == {"GPU-0": "critical error XID 79", "GPU-1": ""}
    assert await faults(gpus) == {"GPU-0": "critical error XID 79", "GPU-1": ""}


async def test_a_gpu_that_tells_of_no_errors_is_used_all_the_same(library: FakeNvml, gpus: Gpus):
    library.gpus[0].tells = False
    assert await faults(gpus) == {"GPU-0": "", "GPU-1": ""}


async def test_a_driver_that_fails_midway_is_no_reason_to_forget(library: FakeNvml, gpus: Gpus):
    await gpus.read()
    library.failure = library.NVMLError_DriverNotLoaded("Driver Not Loaded")
    told = "NVML fails: Driver Not Loaded"
    assert await faults(gpus) == {"GPU-0": told, "GPU-1": told}
    assert await faults(gpus) == {"GPU-0": told, "GPU-1": told}
    library.failure = None
    assert await faults(gpus) == {"GPU-0": "", "GPU-1": ""}
    assert library.starts == 2


async def test_what_is_used_of_each_device_and_by_whom(library: FakeNvml, gpus: Gpus):
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


async def test_what_is_used_of_slices(library: FakeNvml, gpus: Gpus):
    part = FakeGpu("MIG-0", memory=10 << 30, processes=[FakeProcess(10, 2 << 30, 40)])
    library.gpus[:] = [FakeGpu("GPU-0", slices=[part])]
    await gpus.read()
    found = await gpus.in_use()
    assert found is not None
    assert found.devices == {"MIG-0": DeviceUse(2048, None)}
    assert found.processes == (GpuProcess(10, "MIG-0", 2048, None),)


async def test_of_a_gpu_that_does_not_answer_nothing_is_told(library: FakeNvml, gpus: Gpus):
    await gpus.read()
    library.gpus[0].lost = True
    found = await gpus.in_use()
    assert found is not None and set(found.devices) == {gpu.uuid for gpu in library.gpus[1:]}
    library.failure = library.NVMLError_DriverNotLoaded("Driver Not Loaded")
    assert await gpus.in_use() == InUse()
    await gpus.read()
    assert await gpus.in_use() is None


async def test_a_virtual_gpu_that_tells_little_is_used_all_the_same(library: FakeNvml, gpus: Gpus):
    library.gpus[0].shy = True
    assert await faults(gpus) == {"GPU-0": "", "GPU-1": ""}
    found = await gpus.in_use()
    assert found is not None and found.devices == {"GPU-0": DeviceUse(0, None), "GPU-1": DeviceUse(0, 0)}


async def test_a_driver_that_tells_of_no_errors_is_used_all_the_same(library: FakeNvml, gpus: Gpus):
    library.deaf = True
    assert await faults(gpus) == {"GPU-0": "", "GPU-1": ""}
    assert await faults(gpus) == {"GPU-0": "", "GPU-1": ""}
    assert library.starts == 1


async def test_one_of_two_falls_off_the_bus_and_the_others_slices_stay(library: FakeNvml, gpus: Gpus):
    library.gpus[0].slices = [FakeGpu("MIG-0", memory=10 << 30, processes=[FakeProcess(10, 1 << 30)])]
    await gpus.read()
    library.gpus[1].lost = True
    assert await faults(gpus) == {"MIG-0": "", "GPU-1": "it does not answer: GPU is lost"}
    found = await gpus.in_use()
    assert found is not None and found.devices == {"MIG-0": DeviceUse(1024, None)}
