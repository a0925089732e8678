"""What ``GET /-/api/v1/gpus`` says of a ledger."""

from __future__ import annotations

from fngw_gateway.api.gpus import describe, describe_use
from fngw_state.resources import Capacity, Device, Lease, Ledger
from fngw_state.usage import DeviceUse, ReplicaUse, Usage

LEASES = {
    "a1": Lease("A", {"gpu:GPU-0": 500, "gpu_mib:GPU-0": 40960, "memory_mib": 1024, "milli_cpus": 1500}),
    "b1": Lease("B", {"memory_mib": 2048}),
}
USAGE = Usage(
    {"GPU-0": DeviceUse(700, 90)}, {"a1": ReplicaUse("A", 512, {"GPU-0": DeviceUse(600, 80, own_mib=40960)})}
)


def test_names_devices_leases_and_what_is_free():
    faulty = Device("GPU-1", "H100", 81920, fault="critical error XID 79")
    capacity = Capacity(16384, 4000, (Device("GPU-0", "H100", 81920), faulty))
    found = describe(Ledger(capacity, LEASES, {"A": {"gpu:GPU-0": 750, "gpu_mib:GPU-0": 61440}}), USAGE)
    assert found["gpus"][0] == {
        "uuid": "GPU-0",
        "model": "H100",
        "memory_mib": 81920,
        "mig": False,
        "fault": "",
        "free": {"share": 0.25, "memory_mib": 20480},
        "used": {"memory_mib": 700, "percent": 90},
        "leases": [
            {
                "deployment": "A",
                "replica": "a1",
                "share": 0.5,
                "memory_mib": 40960,
                "used": {"memory_mib": 600, "percent": 80},
            }
        ],
    }
    assert (found["gpus"][1]["free"], found["gpus"][1]["leases"]) == ({"share": 0.0, "memory_mib": 0}, [])
    assert found["memory_mib"] == {
        "total": 16384,
        "free": 13312,
        "leases": [
            {"deployment": "A", "replica": "a1", "amount": 1024},
            {"deployment": "B", "replica": "b1", "amount": 2048},
        ],
    }
    assert (found["cpus"]["total"], found["cpus"]["free"]) == (4, 2.5)
    assert (found["reason"], found["gpus"][1]["used"]) == ("", None)


def test_what_a_replica_uses():
    gpu = {"memory_mib": 600, "percent": 80, "own_mib": 40960}
    assert describe_use(USAGE.replicas["a1"]) == {"memory_mib": 512, "gpus": {"GPU-0": gpu}}
    assert describe_use(None) is None


def test_nothing_is_known_before_a_controller_has_led():
    found = describe(Ledger(), Usage())
    assert found == {"gpus": [], "reason": "no controller has led yet", "memory_mib": None, "cpus": None}
