"""The planner's rules: examples for reading, properties for trust."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fngw.spec import CodeRef, DeploymentSpec
from fngw_controller.plan import START_ATTEMPTS, Plan, Retry, Shortage, World, back_off, plan, surge
from fngw_state.records import DeploymentStatus, Desired, Failure, Replica, ReplicaState, Revision

READY, STARTING, UNHEALTHY = ReplicaState.READY, ReplicaState.STARTING, ReplicaState.UNHEALTHY
DRAINING = ReplicaState.DRAINING
FULL = Shortage("1 GPU: GPU-0 is held by f (replica old)", stop_first=True)


def revision(number: int, replicas: int = 1, generation: int | None = None, config: int | None = None) -> Revision:
    spec = DeploymentSpec(name="f", code=CodeRef("sha256:0"), python="3.11", num_replicas=replicas)
    return Revision(number, generation or number, config or number, spec, deployed_at=0.0)


def replica(name: str, generation: int, state: ReplicaState = READY, config: int | None = None) -> Replica:
    number = generation if config is None else config
    return Replica(name, "f", generation, state, since=0.0, config_number=number, config_sent=number)


def failure(number: int) -> Failure:
    return Failure(number, "constructor_failed", "ValueError: no")


def settled(target: Revision) -> Desired:
    return Desired("f", target, stable=target)


# -- examples ---------------------------------------------------------------------------------------------


def test_starts_all_replicas_of_a_new_deployment():
    todo = plan(Desired("f", revision(1, replicas=3)), World(), now=0)
    assert todo.start == (0, 0, 0)
    assert todo.status == DeploymentStatus.UPDATING


def test_builds_before_it_starts():
    todo = plan(Desired("f", revision(1)), World(has_artifact=False), now=0)
    assert todo.build and not todo.start


def test_settles_when_all_are_ready():
    todo = plan(Desired("f", revision(1)), World((replica("a", 1),)), now=0)
    assert todo.settle and todo.status == DeploymentStatus.HEALTHY


def test_a_successor_is_healthy_before_the_only_replica_leaves():
    desired = Desired("f", revision(2), stable=revision(1))
    first = plan(desired, World((replica("old", 1),)), now=0)
    assert first.start == (0,) and not first.stop
    starting = plan(desired, World((replica("old", 1), replica("new", 2, STARTING))), now=0)
    assert starting.empty
    swapped = plan(desired, World((replica("old", 1), replica("new", 2))), now=0)
    assert swapped.stop == ("old",)


def test_stops_first_when_there_is_no_room_for_a_surge():
    desired = Desired("f", revision(2), stable=revision(1))
    todo = plan(desired, World((replica("old", 1),), shortage=FULL), now=0)
    assert todo.stop == ("old",) and not todo.start
    assert "waiting for 1 GPU" in todo.message


def test_stops_nothing_when_that_would_make_no_room():
    desired = Desired("f", revision(2), stable=revision(1))
    todo = plan(desired, World((replica("old", 1),), shortage=Shortage("1 GPU: GPU-0 is held by A")), now=0)
    assert todo.empty and todo.message == "0 of 1 replicas ready; waiting for 1 GPU: GPU-0 is held by A"


def test_a_fifth_leaves_to_make_room_and_the_next_only_after_the_first_is_replaced():
    desired = Desired("f", revision(2, replicas=10), stable=revision(1, replicas=10))
    old = tuple(replica(f"o{i}", 1) for i in range(10))
    assert plan(desired, World(old, shortage=FULL), now=0).stop == ("o0", "o1")
    assert not plan(desired, World((*old[2:], replica("n", 2, STARTING)), shortage=FULL), now=0).stop
    assert plan(desired, World((*old[2:], replica("n", 2)), shortage=FULL), now=0).stop == ("o2",)


def test_a_sick_replica_leaves_first_when_its_successor_has_no_room():
    alone = plan(settled(revision(1)), World((replica("sick", 1, UNHEALTHY),), shortage=FULL), now=0)
    assert alone.stop == ("sick",)
    desired = Desired("f", revision(2), stable=revision(1))
    beside = plan(desired, World((replica("sick", 2, UNHEALTHY), replica("old", 1)), shortage=FULL), now=0)
    assert beside.stop == ("sick",)


def test_a_plan_tells_whether_all_that_should_be_is_there():
    assert plan(settled(revision(1)), World((replica("a", 1), replica("b", 1, DRAINING))), now=0).complete
    assert not plan(settled(revision(1)), World(), now=0).complete
    assert plan(dataclasses.replace(settled(revision(1)), deleting=True), World(), now=0).complete


def test_a_deploy_that_also_shrinks_touches_nothing_before_the_new_version_serves():
    desired = Desired("f", revision(2, replicas=1), stable=revision(1, replicas=3))
    old = tuple(replica(name, 1) for name in "abc")
    assert not plan(desired, World((*old, replica("new", 2, STARTING))), now=0).stop
    assert set(plan(desired, World((*old, replica("new", 2))), now=0).stop) == set("abc")


def test_scaling_down_keeps_the_oldest():
    records = [dataclasses.replace(replica(name, 1), since=float(i)) for i, name in enumerate("abc")]
    desired = Desired("f", revision(2, replicas=1, generation=1), stable=revision(1, replicas=3))
    assert set(plan(desired, World(tuple(records)), now=0).stop) == {"b", "c"}


def test_gives_up_after_three_failed_starts_in_one_place_and_keeps_the_stable_version():
    desired = Desired("f", revision(2), stable=revision(1))
    world = World((replica("old", 1),), retries=(Retry(START_ATTEMPTS, 0, failure(2)),))
    todo = plan(desired, world, now=0)
    assert todo.fail == failure(2) and not todo.stop
    failed = dataclasses.replace(desired, failure=todo.fail)
    kept = plan(failed, World((replica("old", 1),)), now=0)
    assert kept.empty and kept.status == DeploymentStatus.UNHEALTHY and "ValueError: no" in kept.message


def test_waits_for_the_back_off():
    world = World(retries=(Retry(2, not_before=10, failure=failure(1)),))
    todo = plan(Desired("f", revision(1)), world, now=5)
    assert todo.start == () and todo.wake_at == 10
    assert plan(Desired("f", revision(1)), world, now=10).start == (2,)


def test_a_settled_deployment_is_never_given_up():
    world = World(retries=(Retry(50, not_before=10, failure=failure(1)),))
    todo = plan(settled(revision(1)), world, now=0)
    assert todo.fail is None and todo.status == DeploymentStatus.UNHEALTHY
    assert "crash loop" in todo.message


def test_a_failed_first_deploy_leaves_nothing_running():
    desired = Desired("f", revision(1, replicas=2), failure=failure(1))
    todo = plan(desired, World((replica("a", 1), replica("b", 1, STARTING))), now=0)
    assert set(todo.stop) == {"a", "b"}
    assert todo.status == DeploymentStatus.UNHEALTHY


def test_build_failure_gives_up_the_rollout():
    desired = Desired("f", revision(2), stable=revision(1))
    todo = plan(desired, World((replica("a", 1),), has_artifact=False, failure=failure(2)), now=0)
    assert todo.fail == failure(2)


def test_a_build_failure_of_an_overtaken_revision_is_nobodys():
    desired = Desired("f", revision(3), stable=revision(1))
    assert plan(desired, World(has_artifact=False, failure=failure(2)), now=0).fail is None


def test_deleting_stops_all_and_ends_when_they_are_gone():
    desired = dataclasses.replace(settled(revision(1)), deleting=True)
    todo = plan(desired, World((replica("a", 1), replica("b", 1, DRAINING))), now=0)
    assert todo.stop == ("a",) and not todo.gone
    assert plan(desired, World(), now=0).gone


def test_a_sick_replica_is_replaced_and_serves_only_while_it_is_the_last():
    alone = plan(settled(revision(1)), World((replica("sick", 1, UNHEALTHY),)), now=0)
    assert alone.start == (0,) and not alone.stop
    two = settled(revision(1, replicas=2))
    beside = plan(two, World((replica("sick", 1, UNHEALTHY), replica("ok", 1))), now=0)
    assert beside.start == (0,) and beside.stop == ("sick",)


def test_a_new_user_config_reaches_a_fifth_at_a_time():
    target = revision(5, replicas=10, generation=1, config=5)
    replicas = tuple(replica(f"r{i}", 1, config=5 if i < 3 else 1) for i in range(10))
    todo = plan(Desired("f", target, stable=revision(1, replicas=10)), World(replicas), now=0)
    assert todo.reconfigure == ("r3", "r4") and not todo.settle
    told = [dataclasses.replace(r, config_sent=5) if r.id in todo.reconfigure else r for r in replicas]
    assert plan(Desired("f", target, stable=revision(1, replicas=10)), World(tuple(told)), now=0).empty


def test_a_failed_reconfigure_is_undone_where_it_had_succeeded():
    target = revision(5, replicas=2, generation=1, config=5)
    desired = Desired("f", target, stable=revision(1, replicas=2), failure=failure(5))
    todo = plan(desired, World((replica("a", 1, config=5), replica("b", 1))), now=0)
    assert todo.reconfigure == ("a",)


@pytest.mark.parametrize("attempt", range(20))
def test_the_back_off_grows_and_is_bounded(attempt: int):
    assert back_off(attempt) <= back_off(attempt + 1) <= 60


# -- properties -------------------------------------------------------------------------------------------

STATES = st.sampled_from([READY, STARTING, UNHEALTHY, DRAINING])


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Desired, list[Replica]]:
    """A deployment in any phase of its life, and any replicas of three generations."""
    wanted, before = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    target, stable = revision(20, wanted), draw(st.sampled_from([None, revision(10, before)]))
    phase = draw(st.sampled_from(["rollout", "settled", "failed", "deleting"]))
    desired = Desired("f", target, stable)
    if phase == "settled":
        desired = settled(target)
    elif phase == "failed":
        desired = dataclasses.replace(desired, failure=failure(20))
    elif phase == "deleting":
        desired = dataclasses.replace(desired, deleting=True)
    seen = draw(st.lists(st.tuples(st.sampled_from([5, 10, 20]), STATES), max_size=20))
    return desired, [replica(f"r{i}", generation, state) for i, (generation, state) in enumerate(seen)]


class Simulation:
    """Applies plans to a world as the real thing does, one step at a time, and checks the rules at each."""

    def __init__(self, desired: Desired, replicas: list[Replica]) -> None:
        self.desired = desired
        self.replicas = {r.id: r for r in replicas}
        self.born = 0

    def world(self) -> World:
        return World(tuple(self.replicas.values()))

    def serving(self) -> int:
        return sum(r.state == READY for r in self.replicas.values())

    def live(self) -> int:
        return sum(r.state != DRAINING for r in self.replicas.values())

    def apply(self, todo: Plan) -> None:
        revision = self.desired.effective
        for _ in todo.start:
            assert revision is not None
            self.born += 1
            self.put(replica(f"n{self.born}", revision.generation, STARTING))
        for name in todo.stop:
            self.put(dataclasses.replace(self.replicas[name], state=DRAINING))
        if todo.settle:
            self.desired = dataclasses.replace(self.desired, stable=self.desired.target)

    def put(self, record: Replica) -> None:
        self.replicas[record.id] = record

    def settle_down(self) -> None:
        """What was started becomes ready, what drains is gone."""
        self.replicas = {
            r.id: dataclasses.replace(r, state=READY) if r.state == STARTING else r
            for r in self.replicas.values()
            if r.state != DRAINING
        }


def check_rules(sim: Simulation, todo: Plan) -> None:
    revision = sim.desired.effective
    if revision is None:
        return
    wanted, stable = revision.spec.num_replicas, sim.desired.stable
    size = max(wanted, stable.spec.num_replicas if stable else 0)
    records = sim.replicas.values()
    complete = sum(r.state == READY and r.generation == revision.generation for r in records) >= wanted
    stopped_ready = sum(sim.replicas[name].state == READY for name in todo.stop)
    if stopped_ready:
        floor = wanted if complete or stable is None or stable.generation == revision.generation else size
        assert sim.serving() - stopped_ready >= min(floor, sim.serving()), "fewer than wanted would serve"
        assert sim.serving() - stopped_ready >= 1, "the last healthy replica was stopped"
    if todo.start:
        assert sim.live() + len(todo.start) <= size + surge(size), "over the surge"


@given(worlds())
@settings(max_examples=400)
def test_converges_from_any_world_and_keeps_the_rules_on_the_way(start: tuple[Desired, list[Replica]]):
    sim = Simulation(*start)
    for _ in range(60):
        todo = plan(sim.desired, sim.world(), now=0)
        check_rules(sim, todo)
        if todo.empty and all(r.state == READY for r in sim.replicas.values()):
            break
        sim.apply(todo)
        sim.settle_down()
    revision = sim.desired.effective
    expected = [] if revision is None else [revision.generation] * revision.spec.num_replicas
    assert [r.generation for r in sim.replicas.values()] == expected


class CrowdedSimulation(Simulation):
    """A machine with room for ``room`` replicas, those that drain included."""

    def __init__(self, desired: Desired, replicas: list[Replica], room: int) -> None:
        super().__init__(desired, replicas)
        self.room = room
        self.shortage: Shortage | None = None

    def world(self) -> World:
        return World(tuple(self.replicas.values()), shortage=self.shortage)

    def apply(self, todo: Plan) -> None:
        free = max(0, self.room - len(self.replicas))
        self.shortage = FULL if len(todo.start) > free else self.shortage
        super().apply(dataclasses.replace(todo, start=todo.start[:free]))

    def settle_down(self) -> None:
        before = len(self.replicas)
        super().settle_down()
        if len(self.replicas) < before:
            self.shortage = None


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 4), st.integers(0, 4))
@settings(max_examples=300)
def test_a_replacement_without_room_for_a_surge_ends_and_keeps_four_fifths(
    wanted: int, before: int, dead: int, spare: int
):
    desired = Desired("f", revision(20, wanted), stable=revision(10, before + dead))
    old = [replica(f"o{i}", 10) for i in range(before)]
    sim = CrowdedSimulation(desired, old, max(wanted, before) + spare)
    size = max(wanted, before + dead)
    for _ in range(100):
        todo = plan(sim.desired, sim.world(), now=0)
        sim.apply(todo)
        assert sim.serving() >= min(before - 1, wanted, size - max(1, size // 5))
        assert len(sim.replicas) <= sim.room
        sim.settle_down()
    assert [r.generation for r in sim.replicas.values()] == [20] * wanted
    assert plan(sim.desired, sim.world(), now=0).empty


@given(worlds())
@settings(max_examples=300)
def test_a_second_plan_after_a_perfect_apply_is_empty(start: tuple[Desired, list[Replica]]):
    sim = Simulation(*start)
    for _ in range(60):
        sim.apply(plan(sim.desired, sim.world(), now=0))
        sim.settle_down()
    last = plan(sim.desired, sim.world(), now=0)
    assert last.empty or last.gone


@given(worlds())
@settings(max_examples=300)
def test_no_place_is_filled_twice_before_the_effects_are_seen(start: tuple[Desired, list[Replica]]):
    sim = Simulation(*start)
    revision = sim.desired.effective
    missing = 0
    if revision is not None:
        has = sum(r.generation == revision.generation and r.state in (READY, STARTING) for r in start[1])
        missing = max(0, revision.spec.num_replicas - has)
    for _ in range(5):
        sim.apply(plan(sim.desired, sim.world(), now=0))
    assert sim.born <= missing


@given(worlds(), st.integers(1, 3), st.floats(0, 100))
@settings(max_examples=200)
def test_a_place_in_back_off_is_not_filled_early(start, attempt: int, now: float):
    desired, replicas = start
    revision = desired.effective
    if revision is None or desired.deleting:
        return
    later = tuple(Retry(attempt, now + 1, failure(1)) for _ in range(revision.spec.num_replicas))
    todo = plan(desired, World(tuple(replicas), retries=later), now=now)
    assert not todo.start
    missing = revision.spec.num_replicas - sum(
        r.generation == revision.generation and r.state in (READY, STARTING) for r in replicas
    )
    assert (todo.wake_at is not None) == (missing > 0)


@given(st.integers(1, 1000))
def test_the_surge_is_a_fifth_and_at_least_one(replicas: int):
    assert surge(replicas) == max(1, math.ceil(replicas / 5))
