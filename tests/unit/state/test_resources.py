"""What replicas ask for, what that comes to on a device, and how a shortage is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fngw.spec import CodeRef, DeploymentSpec
from fngw_state.resources import Capacity, Device, Lease, Ledger, Request, does_not_fit, show_mib

GPU = Device("GPU-0", "H100", 81920)
SMALL = Device("GPU-1", "A10", 24576)
SLICE = Device("MIG-0", "H100 1g.10gb", 10240, mig=True)


def request(**options: object) -> Request:
    return Request.of(DeploymentSpec(name="f", code=CodeRef("sha256:0"), python="3.11", **options))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "share"),
    [
        ({"num_gpus": 0.25}, (250, 20480)),
        ({"num_gpus": 1}, (1000, 81920)),
        ({"num_gpus": 2}, (1000, 81920)),
        ({"gpu_memory": 10 << 30}, (125, 10240)),
        ({"gpu_memory": (10 << 30) + 1}, (126, 10241)),
        ({"gpu_memory": 80 << 30}, (1000, 81920)),
        ({"num_gpus": 0.5, "gpu_memory": 10 << 30}, (500, 10240)),
        ({"num_gpus": 1, "gpu_memory": 10 << 30}, (1000, 81920)),
    ],
)
def test_what_a_share_comes_to(options: dict[str, float], share: tuple[int, int]):
    assert request(**options).charge(GPU) == share


def test_whole_devices_are_counted_and_fractions_are_of_one():
    assert [request(num_gpus=n).gpus for n in (0, 0.001, 0.5, 1, 2)] == [0, 1, 1, 1, 2]
    assert request(gpu_memory=1).gpus == 1


def test_memory_and_cpus_are_rounded_up():
    asked = request(memory=(512 << 20) + 1, num_cpus=0.5)
    assert (asked.memory_mib, asked.milli_cpus) == (513, 500)


def test_cpus_count_only_where_they_are_declared():
    assert not request().counted(Capacity(memory_mib=1024))
    assert request().counted(Capacity(milli_cpus=2000))
    assert request(memory=1).counted(Capacity(memory_mib=1024))
    assert not request(memory=1).counted(Capacity())


@given(st.integers(1, 1000), st.integers(1, 200_000))
def test_fractions_that_add_up_to_one_fit_on_one_device(milli: int, total: int):
    asked, device = Request(gpus=1, gpu_milli=milli), Device("GPU-0", "", total)
    share, mib = asked.charge(device)
    assert share * (1000 // milli) <= 1000
    assert mib * (1000 // milli) <= total


@given(st.integers(1, 200_000), st.integers(1, 200_000))
def test_what_fits_alone_takes_no_more_than_the_device(mib: int, total: int):
    asked, device = Request(gpus=1, gpu_mib=mib), Device("GPU-0", "", total)
    assert asked.fits_alone(device) == (mib <= total)


# -- what can never be -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"memory": 32 << 30}, "does_not_fit"),
        ({"num_cpus": 9}, "does_not_fit"),
        ({"num_gpus": 3}, "does_not_fit"),
        ({"gpu_memory": 81 << 30}, "does_not_fit"),
        ({"num_gpus": 2, "gpu_memory": 40 << 30}, "does_not_fit"),
    ],
)
def test_more_than_the_machine_has(options: dict[str, float], code: str):
    capacity = Capacity(memory_mib=16384, milli_cpus=8000, devices=(GPU, SMALL, SLICE))
    error = does_not_fit(capacity, request(**options))
    assert error is not None and error.code == code
    assert next(iter(options)) in error.message


def test_all_that_the_machine_has():
    capacity = Capacity(memory_mib=16384, milli_cpus=8000, devices=(GPU, SMALL, SLICE))
    assert does_not_fit(capacity, request(memory=16 << 30, num_cpus=8, num_gpus=2)) is None
    assert does_not_fit(Capacity(), request(memory=16 << 40, num_cpus=800)) is None


def test_a_gpu_where_there_is_none():
    error = does_not_fit(Capacity(no_gpus="no driver"), request(num_gpus=0.5))
    assert error is not None and error.code == "no_gpu"
    assert "no driver" in error.message and "FNGW_GPU_INVENTORY" in error.hint


# -- how a shortage is told --------------------------------------------------------------------------------


def test_names_what_is_missing_and_who_holds_it():
    ledger = Ledger(
        Capacity(memory_mib=16384, devices=(GPU,)),
        {
            "a1": Lease("A", {"gpu:GPU-0": 1000, "gpu_mib:GPU-0": 81920, "memory_mib": 12288}),
            "b1": Lease("B", {"memory_mib": 1024}),
        },
    )
    assert ledger.missing(request(num_gpus=1)) == "1 GPU: GPU-0 is held by A (replica a1)"
    told = "8 GiB of memory: 3 GiB of 16 GiB free; held by A (replica a1), B (replica b1)"
    assert ledger.missing(request(memory=8 << 30)) == told
    assert ledger.missing(request(memory=3 << 30)) == "room"


def test_names_what_is_left_of_a_device_that_is_shared():
    ledger = Ledger(Capacity(devices=(GPU,)), {"a1": Lease("A", {"gpu:GPU-0": 750, "gpu_mib:GPU-0": 61440})})
    told = "0.5 GPU: GPU-0 is held by A (replica a1) (0.25 and 20 GiB free)"
    assert ledger.missing(request(num_gpus=0.5)) == told


def test_names_a_device_that_is_not_used_and_what_is_kept():
    faulty = Device("GPU-1", "H100", 81920, fault="an uncorrected ECC error")
    ledger = Ledger(
        Capacity(memory_mib=1024, devices=(faulty,)), {"a1": Lease("A", {})}, {"A": {"memory_mib": 1024}}
    )
    assert ledger.missing(request(num_gpus=1)) == "1 GPU: GPU-1 is not used: an uncorrected ECC error"
    told = "1 MiB of memory: 0 MiB of 1 GiB free; held by A (kept for a replica that is being replaced)"
    assert ledger.missing(request(memory=1)) == told


@pytest.mark.parametrize(("mib", "text"), [(1, "1 MiB"), (1024, "1 GiB"), (1536, "1.5 GiB"), (81559, "79.65 GiB")])
def test_sizes_read_well(mib: int, text: str):
    assert show_mib(mib) == text
