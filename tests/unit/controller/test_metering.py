"""What replicas use, who is over what is his, and who is restarted for it."""

from __future__ import annotations

from fngw_controller.inventory.base import GpuProcess, InUse
from fngw_controller.metering import Excess, excesses, most_over, usage
from fngw_controller.processes import Process
from fngw_state.records import Replica, ReplicaState
from fngw_state.resources import Lease
from fngw_state.usage import DeviceUse, ReplicaUse, Usage

MIB = 1 << 20
MAINS = {10: "a", 20: "b"}
PROCESSES = {
    1: Process(0, 1, 5 * MIB),
    10: Process(1, 10, 100 * MIB),
    11: Process(10, 10, 50 * MIB),
    20: Process(1, 20, 30 * MIB),
    99: Process(1, 99, 7 * MIB),
}


def half(mib: int = 1000) -> Lease:
    return Lease("f", {"gpu:GPU-0": 500, "gpu_mib:GPU-0": mib, "memory_mib": 64})


def replica(name: str, state: str = "READY") -> Replica:
    return Replica(name, "f", 1, ReplicaState(state), 0.0)


def test_what_a_replicas_processes_use_is_added_up():
    running = (
        GpuProcess(10, "GPU-0", 300, 20),
        GpuProcess(11, "GPU-0", 200, 90),
        GpuProcess(20, "GPU-0", 50, None),
        GpuProcess(99, "GPU-0", 4000, 100),  # a stranger
        GpuProcess(1234, "GPU-0", 10),  # it ended, or is in a container whose processes this one cannot see
    )
    devices = {"GPU-0": DeviceUse(4560, 100)}
    found = usage(InUse(devices, running), PROCESSES, MAINS, {"a": half(), "b": half(), "gone": half()})
    assert found == Usage(
        devices,
        {
            "a": ReplicaUse("f", 150, {"GPU-0": DeviceUse(500, 100, 1000)}),
            "b": ReplicaUse("f", 30, {"GPU-0": DeviceUse(50, None, 1000)}),
        },
    )
    assert Usage.from_json(found.to_json()) == found


def test_one_without_a_gpu_is_not_measured_and_one_that_does_nothing_uses_nothing():
    found = usage(InUse(), PROCESSES, MAINS, {"a": Lease("f", {"memory_mib": 64}), "b": half()})
    assert found.replicas == {"b": ReplicaUse("f", 30, {"GPU-0": DeviceUse(0, None, 1000)})}


def test_a_device_that_was_never_given_is_excess():
    found = usage(InUse({}, (GpuProcess(10, "GPU-1", 7),)), PROCESSES, MAINS, {"a": half()})
    assert found.replicas["a"].gpus["GPU-1"].excess_mib == 7


def used(mib: int) -> Usage:
    return Usage({}, {"a": ReplicaUse("f", 1, {"GPU-0": DeviceUse(mib, None, 1000)})})


def test_who_is_over_what_is_his_and_for_how_long():
    assert excesses(used(1000), {}) == {}
    first = excesses(used(1500), {})
    text = "over its GPU memory: it uses 1.465 GiB of GPU-0, and 1000 MiB are its own"
    assert first == {"a": Excess(500, text, 1)}
    assert excesses(used(1001), first)["a"].looks == 2
    assert excesses(used(900), first) == {}


def test_the_one_that_is_most_over_is_restarted_first():
    records = [replica("a"), replica("b"), replica("c")]
    over = {"a": Excess(10, "", 2), "b": Excess(20, "", 3), "c": Excess(30, "", 1)}
    assert most_over(records, over, 3) == "b"
    assert most_over(records, {"c": over["c"]}, 3) is None  # it may have been for a moment only
    assert most_over(records, {}, 3) is None


def test_only_one_at_a_time_is_restarted():
    over = {"a": Excess(10, "", 2), "b": Excess(20, "", 2)}
    for state in ("STARTING", "UNHEALTHY", "DRAINING"):
        assert most_over([replica("a"), replica("b"), replica("c", state)], over, 2) is None
    assert most_over([replica("a")], over, 2) is None
