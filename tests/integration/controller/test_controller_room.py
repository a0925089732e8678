"""What a controller does when replicas do not fit on the machine: real Redis, an engine in memory."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from typing import Any

import pytest

from fngw.errors import DeploymentFailed
from fngw_controller import controller as controllers
from fngw_controller import machine as machines
from fngw_controller.engines.base import StartFailed
from fngw_controller.inventory.base import GpuProcess, InUse, Inventory, Seen
from fngw_controller.inventory.fake_nvml import FakeGpu, FakeNvml
from fngw_controller.inventory.nvml import NvmlGpus
from fngw_controller.processes import Process
from fngw_state import deploys, keys
from fngw_state.records import DeploymentStatus
from fngw_state.resources import Device, Request
from fngw_state.store import Fenced
from fngw_state.usage import DeviceUse, Measured, ReplicaUse

GIB = 1 << 30
GPUS = (Device("GPU-0", "H100", 81920), Device("GPU-1", "H100", 81920))


class Board:
    """GPUs that a test plugs in, breaks and pulls."""

    def __init__(self, *devices: Device) -> None:
        self.devices = devices

    async def read(self) -> Seen:
        return Seen(self.devices, "" if self.devices else "all were pulled")

    async def in_use(self) -> InUse | None:
        return None


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machines, "REFRESH_S", 0.05)
    monkeypatch.setattr(controllers, "SWEEP_S", 0.1)


async def told(site: Any, name: str, text: str) -> str:
    """Wait until the status of a deployment says something; return all that it says."""

    async def says() -> str:
        status = await site.store.status(name)
        return status.message if status and text in status.message else ""

    return str(await site.until(says, f"{name} to say {text!r}"))


async def failed(site: Any, name: str) -> Any:
    """Wait until the last deploy has failed; return why."""

    async def given_up() -> Any:
        desired = await site.store.desired(name)
        return desired and desired.failed and desired.failure

    return await site.until(given_up, f"{name} to fail")


async def restored(site: Any, name: str) -> list[str]:
    """Wait until the version before serves again; return its replicas."""

    async def serves() -> list[str]:
        status, desired = await site.store.status(name), await site.store.desired(name)
        if desired is None or not desired.failed or status is None or status.status != DeploymentStatus.UNHEALTHY:
            return []
        states = {(r.state, r.generation) for r in status.replicas}
        wanted = desired.stable.generation if desired.stable else -1
        return [r.id for r in status.replicas] if states == {("READY", wanted)} else []

    return list(await site.until(serves, f"{name} to serve as before"))


async def balanced(site: Any) -> dict[str, list[str]]:
    """Wait until exactly what runs holds leases, and nothing more is kept; return the replicas by deployment."""

    async def equal() -> bool:
        ledger = await site.leases.ledger()
        kept = all(ledger.kept(name) == ledger.held(name) for name in ledger.reserved)
        return sorted(ledger.leases) == site.running and kept

    await site.until(equal, "leases to be those of what runs")
    found: dict[str, list[str]] = {}
    for replica, lease in (await site.leases.ledger()).leases.items():
        found.setdefault(lease.deployment, []).append(replica)
    return found


# -- memory ------------------------------------------------------------------------------------------------


async def test_with_room_for_a_surge_nothing_stops_first(site):
    await site.control()
    await site.deploy("f", memory=2 * GIB)
    (old,) = await site.settled("f")
    await site.deploy("f", version="2", memory=2 * GIB)
    (new,) = await site.settled("f")
    assert [c for c in site.engine.calls if c[0] in ("start", "stop")][-2:] == [("start", new), ("stop", old)]
    assert await balanced(site) == {"f": [new]}


async def test_without_room_for_a_surge_the_old_one_stops_first(site):
    await site.control()
    await site.deploy("f", memory=4 * GIB)
    (old,) = await site.settled("f")
    await site.deploy("f", version="2", memory=4 * GIB)
    (new,) = await site.settled("f")
    assert [c for c in site.engine.calls if c[0] in ("start", "stop")][-2:] == [("stop", old), ("start", new)]
    assert await balanced(site) == {"f": [new]}


async def test_the_old_version_comes_back_when_the_new_one_fails(site):
    await site.control()
    await site.deploy("f", memory=4 * GIB)
    (old,) = await site.settled("f")
    site.engine.broken.add("f")
    await site.deploy("f", version="2", memory=3 * GIB)
    await site.deploy("greedy", memory=2 * GIB)  # would take what the old one needs, were it not kept
    assert (await failed(site, "f")).code == "constructor_failed"
    site.engine.broken.clear()
    (back,) = await restored(site, "f")
    assert back != old
    await told(site, "greedy", "waiting for 2 GiB of memory")


async def test_a_deploy_that_does_not_fit_waits_and_says_who_holds_what_is_missing(site):
    await site.control()
    await site.deploy("big", memory=3 * GIB)
    (big,) = await site.settled("big")
    await site.deploy("late", memory=2 * GIB)
    message = await told(site, "late", "waiting")
    assert f"2 GiB of memory: 1 GiB of 4 GiB free; held by big (replica {big})" in message
    assert site.running == [big]
    desired = await site.store.desired("big")
    await site.store.put_desired(desired, deleting(desired))
    assert await site.settled("late") == site.running


def deleting(desired: Any) -> Any:
    return dataclasses.replace(desired, deleting=True)


async def test_nothing_stops_where_that_would_make_no_room(site):
    await site.control()
    await site.deploy("other", memory=3 * GIB)
    await site.settled("other")
    await site.deploy("f", memory=1 * GIB)
    (old,) = await site.settled("f")
    await site.deploy("f", version="2", memory=2 * GIB)
    await told(site, "f", "waiting for 2 GiB of memory")
    assert old in site.running and old not in site.stopped
    desired = await site.store.desired("f")
    await site.store.put_desired(desired, deploys.cancel(desired, desired.target.number, "waited long enough"))
    assert await restored(site, "f") == [old]
    assert set(await balanced(site)) == {"other", "f"}


async def test_a_first_deploy_that_is_given_up_leaves_nothing(site):
    await site.control()
    await site.deploy("other", memory=4 * GIB)
    (other,) = await site.settled("other")
    await site.deploy("f", memory=1 * GIB, num_replicas=2)
    await told(site, "f", "waiting")
    desired = await site.store.desired("f")
    await site.store.put_desired(desired, deploys.cancel(desired, desired.target.number, "waited long enough"))
    await failed(site, "f")
    assert await balanced(site) == {"other": [other]}


async def test_as_many_start_as_there_is_room_for(site):
    await site.control()
    await site.deploy("f", memory=1 * GIB, num_replicas=6)
    await told(site, "f", "4 of 6 replicas ready; waiting for 1 GiB of memory")
    assert len((await balanced(site))["f"]) == 4


async def test_a_replica_that_dies_finds_its_room_again(site):
    await site.control()
    await site.deploy("f", memory=4 * GIB)
    (old,) = await site.settled("f")
    await site.deploy("late", memory=1 * GIB)
    await told(site, "late", "waiting")
    site.world.die(old)

    async def replaced() -> bool:
        return len(site.running) == 1 and site.running != [old]

    await site.until(replaced, "a new replica")
    assert set(await balanced(site)) == {"f"}


async def test_a_sick_replica_makes_room_for_its_successor(site):
    await site.control()
    await site.deploy("f", memory=4 * GIB, health_check_period_s=0.02)
    (old,) = await site.settled("f")
    site.engine.sick.add(old)

    async def replaced() -> bool:
        return len(site.running) == 1 and site.running != [old]

    await site.until(replaced, "a new replica")
    assert await site.settled("f") == site.running


# -- what can never be -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "code"),
    [({"memory": 5 * GIB}, "does_not_fit"), ({"num_gpus": 1}, "no_gpu"), ({"gpu_memory": GIB}, "no_gpu")],
)
async def test_more_than_the_machine_has_fails_at_once_and_unbuilt(site, options, code):
    await site.control()
    await site.deploy("f", **options)
    failure = await failed(site, "f")
    assert failure.code == code and failure.error == DeploymentFailed.__name__
    assert not site.images.asked and not site.running


async def test_an_update_that_can_never_fit_leaves_what_runs_alone(site):
    await site.control()
    await site.deploy("f")
    (old,) = await site.settled("f")
    await site.deploy("f", version="2", num_gpus=1)
    assert (await failed(site, "f")).code == "no_gpu"
    assert await restored(site, "f") == [old]


# -- GPUs --------------------------------------------------------------------------------------------------


async def test_two_halves_share_a_device_and_a_third_waits(site):
    site.inventory = Inventory(gpus=Board(GPUS[0]))
    await site.control()
    await site.deploy("pair", num_gpus=0.5, num_replicas=2)
    await site.settled("pair")
    status = await site.store.status("pair")
    assert [r.gpus for r in status.replicas] == [("GPU-0",), ("GPU-0",)]
    specs = [r.spec for r in site.world.replicas.values()]
    assert [s.gpus for s in specs] == [("GPU-0",)] * 2
    assert [s.gpu_shares for s in specs] == [{"GPU-0": (500, 40960)}] * 2
    await site.deploy("late", num_gpus=0.5)
    assert "0.5 GPU: GPU-0 is held by pair (replica " in await told(site, "late", "waiting")
    await site.deploy("pair", num_gpus=0.5, num_replicas=1)
    await site.settled("late")


async def test_replicas_leave_a_device_that_breaks(site):
    board = Board(*GPUS)
    site.inventory = Inventory(gpus=board)
    await site.control()
    await site.deploy("f", num_gpus=1)
    (old,) = await site.settled("f")
    board.devices = (Device("GPU-0", "H100", 81920, fault="an uncorrected ECC error"), GPUS[1])

    async def moved() -> bool:
        status = await site.store.status("f")
        return [r.gpus for r in status.replicas] == [("GPU-1",)] and old not in site.running

    await site.until(moved, "the replica to move")
    await site.deploy("g", num_gpus=1)
    message = await told(site, "g", "waiting for 1 GPU")
    assert "GPU-0 is not used: an uncorrected ECC error" in message and "GPU-1 is held by f" in message
    board.devices = GPUS
    await site.settled("g")


async def test_a_device_that_falls_off_the_bus(site):
    board = Board(*GPUS)
    site.inventory = Inventory(gpus=board)
    await site.control()
    await site.deploy("f", num_gpus=1)
    (old,) = await site.settled("f")
    board.devices = GPUS[1:]

    async def moved() -> bool:
        status = await site.store.status("f")
        return [r.gpus for r in status.replicas] == [("GPU-1",)] and old not in site.running

    await site.until(moved, "the replica to move")
    assert set(await balanced(site)) == {"f"}


async def test_when_the_driver_fails_midway_nobody_is_stopped_and_no_lease_is_lost(site):
    library = FakeNvml([FakeGpu("GPU-0")])
    site.inventory = Inventory(gpus=NvmlGpus(library))
    await site.control()
    await site.deploy("f", num_gpus=0.5)
    (replica,) = await site.settled("f")
    library.failure = library.NVMLError_DriverNotLoaded("Driver Not Loaded")
    message = await told(site, "f", "GPU-0 is not used: NVML fails: Driver Not Loaded")
    assert f"replica {replica}" not in message.partition("waiting for")[0]
    assert site.running == [replica] and not site.stopped
    assert list((await site.leases.ledger()).leases) == [replica]
    library.failure = None
    await site.settled("f")
    assert set(await balanced(site)) == {"f"}


async def test_an_inventory_that_lies_costs_a_failed_deploy_and_no_lease(site):
    site.inventory = Inventory(gpus=Board(GPUS[0]))  # the engine knows no such device
    await site.control()
    site.world.refuse("f", *[StartFailed("unknown device: GPU-0", code="start_failed")] * 3)
    await site.deploy("f", num_gpus=1)
    failure = await failed(site, "f")
    assert (failure.code, failure.message) == ("start_failed", "unknown device: GPU-0")
    assert await balanced(site) == {}
    await site.deploy("g", num_gpus=1)
    await site.settled("g")


async def test_two_controllers_give_one_device_once(site):
    site.inventory = Inventory(gpus=Board(GPUS[0]))
    first = await site.control()
    await site.deploy("f", num_gpus=1)
    (replica,) = await site.settled("f")
    await site.store.redis.delete(keys.LEADER)  # the first one hangs, and its lease of the lead ends
    await site.control()
    await site.deploy("g", num_gpus=1)
    await told(site, "g", f"GPU-0 is held by f (replica {replica})")
    with pytest.raises(BaseExceptionGroup) as caught:
        await first
    assert caught.group_contains(Fenced)
    assert site.running == [replica] and list((await site.leases.ledger()).leases) == [replica]


# -- what is really used -----------------------------------------------------------------------------------


class Meter(Board):
    """GPU-0, of which replicas use as much as a test says: MiB by replica."""

    def __init__(self, site: Any) -> None:
        super().__init__(GPUS[0])
        self._site = site
        self.used: dict[str, int] = {}

    async def in_use(self) -> InUse:
        pids = {r.spec.id: r.instance.pid for r in self._site.world.replicas.values()}
        found = [GpuProcess(pids[name], "GPU-0", mib, 10) for name, mib in self.used.items() if pids.get(name)]
        return InUse({"GPU-0": DeviceUse(sum(self.used.values()), 10)}, tuple(found))


@pytest.fixture
def meter(site: Any, monkeypatch: pytest.MonkeyPatch) -> Meter:
    found = Meter(site)
    site.inventory = Inventory(gpus=found)
    # The replicas of an engine in memory are no processes of this machine.
    table = {pid: Process(1, pid, 64 << 20) for pid in range(1000, 1100)}
    monkeypatch.setattr(machines.processes, "table", lambda: table)
    return found


async def test_what_replicas_use_is_told(site, meter):
    await site.control()
    await site.deploy("f", gpu_memory=10 * GIB)
    (replica,) = await site.settled("f")
    meter.used[replica] = 9000

    async def told_so() -> bool:
        usage = await Measured(site.store).get()
        return usage.replicas.get(replica) == ReplicaUse("f", 64, {"GPU-0": DeviceUse(9000, 10, 10240)})

    await site.until(told_so, "the use to be told")


async def test_one_that_is_over_its_memory_is_reported_and_serves_on(site, meter):
    await site.control()
    await site.deploy("f", gpu_memory=10 * GIB)
    (replica,) = await site.settled("f")
    meter.used[replica] = 12 * 1024
    text = await told(site, "f", "over its GPU memory")
    assert text == f"replica {replica} is over its GPU memory: it uses 12 GiB of GPU-0, and 10 GiB are its own"
    assert (await site.store.status("f")).status == DeploymentStatus.HEALTHY
    meter.used[replica] = 10 * 1024

    async def silent() -> bool:
        return (await site.store.status("f")).message == ""

    await site.until(silent, "the report to end")
    assert site.running == [replica] and not site.stopped


async def test_one_that_is_over_its_memory_is_restarted_where_that_is_asked_for(site, meter):
    await site.control()
    await site.deploy("f", num_gpus=0.25, num_replicas=2)
    replicas = await site.settled("f")
    meter.used |= {replicas[0]: 30000, replicas[1]: 40000}
    await told(site, "f", "over its GPU memory")
    started = len(site.engine.calls)
    await site.deploy("f", num_gpus=0.25, num_replicas=2, gpu_policy="restart")  # in place: it is live

    async def replaced() -> bool:
        return not set(site.running) & set(replicas) and len(site.running) == 2

    await site.until(replaced, "both to be replaced")
    await site.settled("f")
    calls = [call for call in site.engine.calls[started:] if call[0] in ("start", "stop")]
    stops = [place for place, (method, _) in enumerate(calls) if method == "stop"]
    assert [calls[place][1] for place in stops] == [replicas[1], replicas[0]]  # the greater evil first
    assert "start" in [method for method, _ in calls[: stops[1]]]  # not before the first one's successor is there


async def test_the_only_one_serves_until_its_successor_does(site, meter):
    await site.control()
    await site.deploy("f", num_gpus=0.25, gpu_policy="restart")
    (replica,) = await site.settled("f")
    meter.used[replica] = 30000

    async def replaced() -> bool:
        return len(site.running) == 1 and site.running != [replica]

    await site.until(replaced, "a new replica")
    calls = [call for call in site.engine.calls if call[0] in ("start", "stop")]
    assert calls[-2:] == [("start", site.running[0]), ("stop", replica)]


async def test_without_room_for_a_successor_it_is_stopped_first(site, meter):
    await site.control()
    await site.deploy("f", num_gpus=0.75, gpu_policy="restart")
    (replica,) = await site.settled("f")
    meter.used[replica] = 70000

    async def replaced() -> bool:
        return len(site.running) == 1 and site.running != [replica]

    await site.until(replaced, "a new replica")
    assert set(await balanced(site)) == {"f"}


# -- controllers and Redis come and go ---------------------------------------------------------------------


async def test_a_new_leader_finds_the_leases_of_what_runs(site):
    site.inventory = Inventory(memory_mib=4096, gpus=Board(*GPUS))
    first = await site.control()
    await site.deploy("f", memory=2 * GIB, num_gpus=0.5)
    await site.deploy("gone", memory=2 * GIB)
    await site.settled("f")
    (gone,) = await site.settled("gone")
    before = (await site.leases.ledger()).leases
    await site.kill(first)
    site.world.die(gone)
    await site.control()

    async def replaced() -> bool:
        return len(site.running) == 2 and gone not in site.running

    await site.until(replaced, "a new replica")
    assert set(await balanced(site)) == {"f", "gone"}
    (kept,) = await site.settled("f")
    assert (await site.leases.ledger()).leases[kept] == before[kept]


async def test_on_a_smaller_machine_what_fits_no_more_keeps_nobody_out(site):
    first = await site.control()
    await site.deploy("big", memory=3 * GIB)
    await site.deploy("small", memory=1 * GIB)
    for name in ("big", "small"):
        await site.settled(name)
    await site.kill(first)
    for replica in site.running:
        site.world.die(replica)
    site.inventory = Inventory(memory_mib=2048)
    await site.control()
    await told(site, "big", "waiting for 3 GiB of memory")

    async def started() -> bool:
        return len(site.running) == 1

    await site.until(started, "the small one to start")
    assert set(await balanced(site)) == {"small"}


async def test_leases_come_back_when_redis_was_emptied(site):
    site.inventory = Inventory(memory_mib=4096, gpus=Board(*GPUS))
    controller = await site.control()
    await site.deploy("f", memory=2 * GIB, num_gpus=0.5)
    await site.settled("f")
    before = await site.leases.ledger()
    await site.store.redis.flushall()

    async def known() -> bool:
        ledger = await site.leases.ledger()
        return ledger.leases == before.leases and ledger.capacity == before.capacity

    await site.until(known, "the leases to be written down again")
    await site.kill(controller)
    await site.store.redis.flushall()
    await site.control()  # this one knows them from what runs
    await site.until(known, "the leases to be written down again")


async def test_a_lease_that_nobody_minds_is_dropped(site):
    await site.control()
    await site.deploy("f", memory=1 * GIB)
    await site.settled("f")
    leader = await site.store.lead("controller-1")
    await site.leases.take(leader, "lost", "f", Request(memory_mib=1024))
    await site.leases.take(leader, "lost2", "nobody", Request(memory_mib=1024))
    assert set(await balanced(site)) == {"f"}


# A controller that is cut off in the middle of a probe leaves the test's own HTTP server with half a connection.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("seed", range(6))
async def test_whatever_happens_nothing_is_given_twice_and_nothing_leaks(site, seed):
    """Deploys, deletes, deaths, failures and changes of controllers, in any order."""
    chance = random.Random(seed)
    site.inventory = Inventory(memory_mib=4096, gpus=Board(*GPUS))
    controller = await site.control()
    for step in range(25):
        name = chance.choice("abc")
        match chance.randrange(6):
            case 0 | 1 | 2:
                options = {"memory": chance.choice([None, 1, 2, 3]), "num_gpus": chance.choice([0, 0.3, 0.5, 1, 2])}
                options["memory"] = options["memory"] and options["memory"] * GIB
                site.engine.broken.symmetric_difference_update({name} if chance.random() < 0.2 else ())
                await site.deploy(name, version=str(step), num_replicas=chance.randint(1, 3), **options)
            case 3 if site.running:
                site.world.die(chance.choice(site.running))
            case 4:
                desired = await site.store.desired(name)
                if desired is not None:
                    await site.store.put_desired(desired, deleting(desired))
            case 5:
                await site.kill(controller)
                controller = await site.control()
        for _ in range(chance.randint(0, 20)):
            await asyncio.sleep(0.001)
            ledger = await site.leases.ledger()
            used = ledger.used()
            assert used.get("memory_mib", 0) <= 4096
            assert all(used.get(f"gpu:{d.uuid}", 0) <= 1000 for d in GPUS)
    for name in "abc":
        desired = await site.store.desired(name)
        if desired is not None:
            await site.store.put_desired(desired, deleting(desired))

    async def gone() -> bool:
        return not await site.store.all_desired()

    await site.until(gone, "all to be deleted")
    assert await balanced(site) == {}
    site.engine.broken.clear()
    for name in "abc":
        await site.deploy(name, version="end", memory=1 * GIB, num_gpus=0.3)
        await site.settled(name)
    assert {name: len(found) for name, found in (await balanced(site)).items()} == {"a": 1, "b": 1, "c": 1}
