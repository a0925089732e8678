"""Leases on a real Redis: nothing is given twice, nothing is lost, whatever happens in which order."""

from __future__ import annotations

import asyncio
import dataclasses
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fngw_state.leases import Blocker, Leases, LedgerLost
from fngw_state.resources import Capacity, Device, Lease, Ledger, Request
from fngw_state.store import Fenced, Store, connect

GPU0, GPU1 = Device("GPU-0", "H100", 81559), Device("GPU-1", "A10", 23028)
SLICE = Device("MIG-0", "H100 1g.10gb", 9984, mig=True)
MACHINE = Capacity(memory_mib=16384, milli_cpus=8000, devices=(GPU0, GPU1, SLICE))
ONE_GIB = Request(memory_mib=1024)
ONE_GPU = Request(gpus=1, gpu_milli=1000)


@dataclass
class Place:
    """Leases with a leader and a machine."""

    leases: Leases
    token: int

    async def take(self, replica: str, deployment: str, request: Request, **going: Any) -> Lease | Blocker:
        return await self.leases.take(self.token, replica, deployment, request, **going)

    async def held(self, replica: str, deployment: str, request: Request) -> Lease:
        """Take what must be free."""
        lease = await self.take(replica, deployment, request)
        assert isinstance(lease, Lease)
        return lease


@pytest.fixture
async def place(store: Store) -> Place:
    place = Place(Leases(store), await store.lead("a"))
    await place.leases.declare(place.token, MACHINE)
    return place


def share(gpu: float) -> Request:
    return Request(gpus=1, gpu_milli=round(gpu * 1000))


# -- taking ------------------------------------------------------------------------------------------------


async def test_taken_again_it_is_the_same_lease(place: Place):
    first = await place.held("r1", "A", share(0.5))
    assert await place.held("r1", "A", share(0.25)) == first
    assert (await place.leases.ledger()).leases == {"r1": first}


async def test_a_fraction_goes_to_the_fullest_device_with_room(place: Place):
    assert (await place.held("r1", "A", Request(gpus=1, gpu_mib=40000))).gpus == ("GPU-0",)
    assert (await place.held("r2", "A", share(0.5))).gpus == ("GPU-0",)
    assert (await place.held("r3", "A", share(0.5))).gpus == ("MIG-0",)  # the smallest of the empty ones
    assert (await place.held("r4", "A", share(0.5))).gpus == ("MIG-0",)


async def test_a_fraction_never_spans_two(place: Place):
    for number, device in enumerate(("MIG-0", "GPU-1", "GPU-0")):
        assert (await place.held(f"r{number}", "A", share(0.6))).gpus == (device,)
    assert await place.take("r4", "A", share(0.5)) == Blocker.OTHERS
    assert (await place.held("r5", "A", share(0.4))).gpus == ("MIG-0",)


async def test_several_devices_are_whole_and_no_slices(place: Place):
    assert (await place.held("r1", "A", Request(gpus=2, gpu_milli=1000))).gpus == ("GPU-0", "GPU-1")
    assert await place.take("r2", "B", share(0.001)) != Blocker.OTHERS  # the slice is left
    assert await place.take("r3", "B", ONE_GPU) == Blocker.OTHERS


async def test_fractions_and_memory_on_one_device_oversubscribe_neither(place: Place):
    await place.leases.declare(place.token, Capacity(devices=(GPU1,)))
    assert (await place.held("r1", "A", Request(gpus=1, gpu_mib=10240))).share("GPU-1") == (445, 10240)
    assert (await place.held("r2", "A", share(0.5))).share("GPU-1") == (500, 11514)
    assert await place.take("r3", "A", share(0.056)) == Blocker.OTHERS
    assert await place.take("r3", "A", Request(gpus=1, gpu_mib=1275)) == Blocker.OTHERS
    assert isinstance(await place.take("r3", "A", share(0.055)), Lease)


async def test_a_faulty_device_gets_no_new_leases(place: Place):
    broken = dataclasses.replace(GPU1, fault="an uncorrected ECC error")
    await place.leases.declare(place.token, Capacity(devices=(broken,)))
    assert await place.take("r1", "A", share(0.1)) == Blocker.OTHERS


async def test_what_is_not_declared_is_not_accounted(place: Place):
    await place.leases.declare(place.token, Capacity())
    lease = await place.held("r1", "A", Request(memory_mib=1 << 30, milli_cpus=1 << 20))
    assert lease == Lease("A", {})


async def test_a_released_lease_is_free_again_for_others_once_it_is_settled(place: Place):
    all_of_it = Request(memory_mib=16384)
    await place.held("a1", "A", all_of_it)
    assert await place.take("b1", "B", ONE_GIB) == Blocker.OTHERS
    await place.leases.release(place.token, "a1")
    assert await place.take("b1", "B", ONE_GIB) == Blocker.OTHERS  # kept for the next replica of A
    assert await place.leases.settle(place.token, "A")
    assert isinstance(await place.take("b1", "B", ONE_GIB), Lease)
    assert not await place.leases.settle(place.token, "A")


# -- when a replica is replaced ----------------------------------------------------------------------------


async def test_tells_whose_leaving_makes_room(place: Place):
    half = Request(memory_mib=8192)
    await place.held("a1", "A", half)
    await place.held("b1", "B", half)
    assert await place.take("a2", "A", half, leaving=["a1"]) == Blocker.LEAVING
    assert await place.take("a2", "A", half, old=["a1"]) == Blocker.OLD
    assert await place.take("a2", "A", Request(memory_mib=8193), old=["a1"]) == Blocker.OTHERS


async def test_the_room_that_an_old_replica_leaves_is_its_successors(place: Place):
    await place.held("a1", "A", Request(memory_mib=8192))
    wanted = Request(memory_mib=12288)  # more than the old one had: the rest is reserved as well
    assert await place.take("a2", "A", wanted, old=["a1"]) == Blocker.OLD
    assert await place.take("b1", "B", Request(memory_mib=4097)) == Blocker.OTHERS
    await place.leases.release(place.token, "a1")
    assert await place.take("b1", "B", Request(memory_mib=4097)) == Blocker.OTHERS
    assert isinstance(await place.take("a2", "A", wanted), Lease)


async def test_an_old_version_that_held_more_can_come_back(place: Place):
    await place.held("a1", "A", Request(memory_mib=16384))
    await place.leases.release(place.token, "a1")
    await place.held("a2", "A", ONE_GIB)
    assert await place.take("b1", "B", ONE_GIB) == Blocker.OTHERS
    await place.leases.release(place.token, "a2")
    assert isinstance(await place.take("a3", "A", Request(memory_mib=16384)), Lease)


# -- controllers come and go -------------------------------------------------------------------------------


async def test_a_controller_that_was_overtaken_changes_nothing(place: Place, store: Store):
    await place.held("r1", "A", ONE_GIB)
    await store.resign("a")
    await store.lead("b")
    before = await place.leases.ledger()
    for change in (
        place.take("r2", "A", ONE_GIB),
        place.leases.release(place.token, "r1"),
        place.leases.settle(place.token, "A"),
        place.leases.keep(place.token, [], []),
        place.leases.adopt(place.token, "r2", "A", ONE_GIB, []),
        place.leases.declare(place.token, Capacity()),
    ):
        with pytest.raises(Fenced):
            await change
    assert await place.leases.ledger() == before


async def test_keeps_the_leases_of_those_that_are_left(place: Place):
    await place.held("a1", "A", ONE_GIB)
    await place.held("b1", "B", ONE_GIB)
    assert await place.leases.keep(place.token, ["a1"], ["A"]) == ["B", "b1"]
    ledger = await place.leases.ledger()
    assert set(ledger.leases) == {"a1"} and set(ledger.reserved) == {"A"}


async def test_adopts_what_runs_whether_or_not_there_is_room(place: Place):
    await place.held("a1", "A", ONE_GPU)
    taken = (await place.leases.ledger()).leases["a1"].gpus
    request = Request(memory_mib=20000, gpus=1, gpu_milli=500)
    lease = await place.leases.adopt(place.token, "b1", "B", request, taken)
    assert lease.gpus == taken and lease.amounts["memory_mib"] == 20000
    assert await place.leases.adopt(place.token, "b1", "B", ONE_GIB, []) == lease
    gone = await place.leases.adopt(place.token, "c1", "C", ONE_GPU, ["GPU-of-old"])
    assert gone.gpus == ()


async def test_an_emptied_redis_gives_nothing_away(place: Place, store: Store):
    lease = await place.held("r1", "A", ONE_GIB)
    await store.redis.flushall()
    with pytest.raises(LedgerLost):
        await place.take("r2", "A", ONE_GIB)
    await place.leases.declare(place.token, MACHINE, {"r1": lease})
    assert (await place.leases.ledger()).leases == {"r1": lease}


async def test_of_many_at_the_same_time_as_many_win_as_there_is_room_for(place: Place):
    wanted = Request(memory_mib=1000, gpus=1, gpu_milli=300)
    takes = [place.take(f"r{i}", f"D{i % 7}", wanted) for i in range(60)]
    won = [x for x in await asyncio.gather(*takes) if isinstance(x, Lease)]
    assert len(won) == 9  # three on each of three devices
    check(await place.leases.ledger())


# -- any history -------------------------------------------------------------------------------------------


def check(ledger: Ledger) -> None:
    """Nothing is given twice."""
    assert ledger.capacity is not None
    used = ledger.used()
    assert used.get("memory_mib", 0) <= (ledger.capacity.memory_mib or 0)
    assert used.get("milli_cpus", 0) <= (ledger.capacity.milli_cpus or 0)
    for device in ledger.capacity.devices:
        assert used.get(f"gpu:{device.uuid}", 0) <= 1000
        assert used.get(f"gpu_mib:{device.uuid}", 0) <= device.memory_mib


@dataclass
class Model:
    """The same decisions in plain Python: what the script has to come to."""

    leases: dict[str, Lease] = field(default_factory=dict)
    reserved: dict[str, dict[str, int]] = field(default_factory=dict)

    def free(self, mine: str, without: set[str]) -> dict[str, int]:
        free = {"memory_mib": MACHINE.memory_mib or 0, "milli_cpus": MACHINE.milli_cpus or 0}
        for device in MACHINE.devices:
            free |= {f"gpu:{device.uuid}": 1000, f"gpu_mib:{device.uuid}": device.memory_mib}
        left = {r: lease for r, lease in self.leases.items() if r not in without}
        names = {lease.deployment for lease in left.values()} | set(self.reserved)
        for name in names:
            ledger = Ledger(None, left, {} if name == mine else self.reserved)
            for key, amount in ledger.kept(name).items():
                free[key] -= amount
        return free

    def place(self, mine: str, request: Request, without: set[str]) -> dict[str, int] | None:
        free = self.free(mine, without)
        take = {"memory_mib": request.memory_mib, "milli_cpus": request.milli_cpus}
        take = {k: n for k, n in take.items() if n}
        if any(n > free[k] for k, n in take.items()):
            return None
        fitting = []
        for device in MACHINE.devices:
            total = device.memory_mib
            milli = request.gpu_milli or math.ceil(request.gpu_mib * 1000 / total)
            mib = max(total, request.gpu_mib) if milli == 1000 else request.gpu_mib or total * milli // 1000
            room = milli <= free[f"gpu:{device.uuid}"] and mib <= free[f"gpu_mib:{device.uuid}"]
            if room and not (device.mig and request.gpus > 1):
                fitting.append((free[f"gpu:{device.uuid}"], total, device.uuid, milli, mib))
        if len(fitting) < request.gpus:
            return None
        for _, _, uuid, milli, mib in sorted(fitting)[: request.gpus]:
            take |= {f"gpu:{uuid}": milli, f"gpu_mib:{uuid}": mib}
        return take

    def reserve(self, mine: str, take: dict[str, int], without: set[str]) -> None:
        left = {r: lease for r, lease in self.leases.items() if r not in without}
        held = Ledger(None, left).held(mine)
        before = self.reserved.get(mine, {})
        after = {k: max(before.get(k, 0), held.get(k, 0) + take.get(k, 0)) for k in {*before, *held, *take}}
        if after:
            self.reserved[mine] = after

    def take(self, replica: str, mine: str, request: Request, leaving: set[str], old: set[str]) -> Lease | Blocker:
        if replica in self.leases:
            return self.leases[replica]
        take = self.place(mine, request, set())
        if take is not None:
            self.leases[replica] = Lease(mine, take)
            self.reserve(mine, {}, set())
            return self.leases[replica]
        for blocker, without in ((Blocker.LEAVING, leaving), (Blocker.OLD, leaving | old)):
            later = self.place(mine, request, without)
            if later is not None:
                self.reserve(mine, later, without)
                return blocker
        return Blocker.OTHERS

    def settle(self, name: str) -> None:
        held = Ledger(None, self.leases).held(name)
        self.reserved.pop(name, None)
        if held:
            self.reserved[name] = held


REQUESTS = st.builds(
    Request,
    memory_mib=st.sampled_from([0, 1, 4000, 9000, 16384, 20000]),
    milli_cpus=st.sampled_from([0, 500, 3000, 8000]),
) | st.one_of(
    st.builds(Request, gpus=st.integers(1, 3), gpu_milli=st.just(1000)),
    st.builds(Request, gpus=st.just(1), gpu_milli=st.sampled_from([1, 250, 333, 500, 700])),
    st.builds(Request, gpus=st.just(1), gpu_mib=st.sampled_from([1, 5000, 9984, 20000, 81559, 90000])),
    st.builds(Request, st.just(4000), st.just(500), st.just(1), st.just(500), st.sampled_from([0, 9000])),
)
STEPS = st.lists(
    st.tuples(st.sampled_from(["take"] * 5 + ["release", "settle", "crash"]), st.sampled_from("ABC"), REQUESTS),
    max_size=40,
)


@pytest.fixture
def loop() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@given(steps=STEPS, chance=st.randoms(use_true_random=False))
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_any_history_comes_to_what_the_model_says(
    redis_url: str, loop: asyncio.Runner, steps: list[Any], chance: random.Random
):
    loop.run(_live_through(redis_url, steps, chance))


async def _live_through(redis_url: str, steps: list[Any], chance: random.Random) -> None:
    store = Store(connect(redis_url))
    try:
        await _live(store, steps, chance)
    finally:
        await store.close()


async def _live(store: Store, steps: list[Any], chance: random.Random) -> None:
    await store.redis.flushall()
    model = Model()
    place = Place(Leases(store), await store.lead("model"))
    await place.leases.declare(place.token, MACHINE)
    for number, (act, name, request) in enumerate(steps):
        own = sorted(r for r, lease in model.leases.items() if lease.deployment == name)
        if act == "take":
            leaving, old = set(chance.sample(own, len(own) // 3)), set(chance.sample(own, len(own) // 2))
            found = await place.take(f"r{number}", name, request, leaving=leaving, old=old)
            assert found == model.take(f"r{number}", name, request, leaving, old)
        elif act == "release" and own:
            await place.leases.release(place.token, own[0])
            del model.leases[own[0]]
        elif act == "settle":
            await place.leases.settle(place.token, name)
            model.settle(name)
        elif act == "crash":  # some replicas died while no controller was there to see it
            left = set(chance.sample(sorted(model.leases), len(model.leases) // 2))
            place.token = await _overtake(store)
            await place.leases.keep(place.token, left, {"A", "B"})
            model.leases = {r: lease for r, lease in model.leases.items() if r in left}
            model.reserved.pop("C", None)
        ledger = await place.leases.ledger()
        check(ledger)
        assert ledger.leases == model.leases and ledger.reserved == model.reserved
    await place.leases.keep(place.token, [], [])
    ledger = await place.leases.ledger()
    assert not ledger.leases and not ledger.reserved


async def _overtake(store: Store) -> int:
    await store.resign("model")
    return await store.lead("model")
