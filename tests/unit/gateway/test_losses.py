"""What a gateway finds out about a replica that it lost."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from fngw_gateway import losses
from fngw_gateway.losses import Losses
from fngw_state.records import DeploymentStatus, Lost, Replica, ReplicaState, Status

DEATH = Lost("r1", 1.0, "out_of_memory", "replica r1 was killed: out of memory (it may have 64 MiB)")


class Controller:
    """Tells one state after the other, the last one for ever; an error is raised."""

    def __init__(self, *told: Any) -> None:
        self.told = list(told)
        self.asked = 0

    async def status(self, name: str) -> Any:
        self.asked += 1
        found = self.told.pop(0) if len(self.told) > 1 else self.told[0]
        if isinstance(found, Exception):
            raise found
        return found


def status(state: str = "", *lost: Lost) -> Status:
    replicas = (Replica("r1", "f", 1, ReplicaState(state), 0.0),) if state else ()
    return Status("f", DeploymentStatus.HEALTHY, "", 1, None, None, replicas, lost)


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "POLL_S", 0.001)
    monkeypatch.setattr(losses, "WAIT_S", 60)


async def why(*told: Any) -> str:
    return await Losses(Controller(*told)).why("f", "r1")  # type: ignore[arg-type]


async def test_the_controller_is_given_a_moment_to_notice():
    other = Lost("r0", 0.5, "replica_died", "replica r0 died")
    assert await why(status("READY"), status("READY", other), status("STARTING", other, DEATH)) == DEATH.message


@pytest.mark.parametrize("told", [None, status(), status("DRAINING"), RedisConnectionError("away")])
async def test_nobody_is_waited_for_who_will_tell_nothing(told: Any):
    controller = Controller(told)
    assert await Losses(controller).why("f", "r1") == ""  # type: ignore[arg-type]
    assert controller.asked == 1


async def test_one_that_lives_on_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(losses, "WAIT_S", 0.05)
    assert await why(status("READY")) == ""


async def test_all_requests_of_one_replica_ask_once_and_one_that_leaves_takes_nobody_along():
    controller = Controller(status("READY"), status("READY"), status("READY", DEATH))
    found = Losses(controller)  # type: ignore[arg-type]
    first, *others = [asyncio.create_task(found.why("f", "r1")) for _ in range(50)]
    await asyncio.sleep(0)
    first.cancel()
    assert set(await asyncio.gather(*others)) == {DEATH.message}
    assert controller.asked == 3
    assert not found._asked
