"""The page of ``fngw gpus``."""

from __future__ import annotations

from typing import Any

from fngw.cli.gpus import _page

EMPTY: dict[str, Any] = {"gpus": [], "reason": "", "memory_mib": None, "cpus": None}
GPU = {
    "uuid": "GPU-0",
    "model": "H100",
    "memory_mib": 81920,
    "mig": False,
    "fault": "",
    "used": None,
    "leases": [],
}


def page(**found: Any) -> list[str]:
    return "\n".join(_page({**EMPTY, **found})).split("\n")


def lease(deployment: str, share: float, memory_mib: int, used: Any = None) -> dict[str, Any]:
    about = {"deployment": deployment, "replica": deployment.lower(), "used": used}
    return {**about, "share": share, "memory_mib": memory_mib}


def test_a_device_and_each_who_holds_some_of_it():
    leases = [lease("A", 0.5, 40960), lease("B", 0.25, 20480)]
    gpu = {**GPU, "free": {"share": 0.25, "memory_mib": 20480}, "leases": leases}
    assert page(gpus=[gpu]) == [
        "GPU    MODEL  MEMORY  FREE          USED  HELD BY",
        "GPU-0  H100   80 GiB  0.25, 20 GiB  -     A (a): 0.5, 40 GiB",
        "                                          B (b): 0.25, 20 GiB",
    ]


def test_what_is_used_of_a_device():
    leases = [lease("A", 0.5, 40960, {"memory_mib": 30720, "percent": 70}), lease("B", 0.5, 40960)]
    used = {"memory_mib": 31744, "percent": None}
    gpu = {**GPU, "free": {"share": 0, "memory_mib": 0}, "leases": leases, "used": used}
    assert page(gpus=[gpu])[1:] == [
        "GPU-0  H100   80 GiB  -     31 GiB  A (a): 0.5, 40 GiB; uses 30 GiB, 70%",
        "                                    B (b): 0.5, 40 GiB",
    ]


def test_devices_that_are_free_full_or_not_used():
    free = {**GPU, "free": {"share": 1.0, "memory_mib": 81920}}
    full = {**GPU, "uuid": "GPU-1", "free": {"share": 0.0, "memory_mib": 0}, "leases": [lease("A", 1.0, 81920)]}
    broken = {**GPU, "uuid": "GPU-2", "free": {"share": 0.0, "memory_mib": 0}, "fault": "critical error XID 79"}
    assert page(gpus=[free, full, broken])[1:] == [
        "GPU-0  H100   80 GiB  1, 80 GiB                        -     -",
        "GPU-1  H100   80 GiB  -                                -     A (a): 1, 80 GiB",
        "GPU-2  H100   80 GiB  not used: critical error XID 79  -     -",
    ]


def test_why_there_is_none_and_what_else_there_is():
    memory, cpus = {"total": 16384.0, "free": 512.0, "leases": []}, {"total": 8.0, "free": 2.5, "leases": []}
    assert page(reason="NVML fails: no driver", memory_mib=memory, cpus=cpus) == [
        "no GPU: NVML fails: no driver",
        "memory: 512 MiB of 16 GiB free",
        "CPUs: 2.5 of 8 free",
    ]
    assert page() == ["no GPU"]
