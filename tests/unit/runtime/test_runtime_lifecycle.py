"""Reconfiguration and health of one object, in this process."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fngw.errors import DeploymentFailed, FngwError
from fngw.protocol import ReplicaConfig
from fngw_runtime.lifecycle import Replica

CONFIG = ReplicaConfig(
    replica_id="r1",
    deployment="tested",
    version=None,
    generation=1,
    app_dir="/",
    shared_dir="/",
    target=f"{__name__}:Configured",
    pickle=None,
    is_class=True,
    python="3.11",
    init=False,
    route_prefix=None,
    user_config={"n": 1},
    config_revision=5,
    max_concurrent_queries=4,
    graceful_shutdown_wait_loop_s=0.1,
    graceful_shutdown_timeout_s=60,
)


class Configured:
    """Keeps the configs it was given."""

    def __init__(self):
        self.configs = []
        self.checks = 0
        self.asked, self.finish = asyncio.Event(), asyncio.Event()

    def reconfigure(self, config):
        if config == "bad":
            raise ValueError("bad config")
        self.configs.append(config)

    async def check_health(self):
        self.checks += 1
        self.asked.set()
        await self.finish.wait()


def no_websockets():
    """There are none to close."""


@pytest.fixture
async def replica():
    replica = Replica(CONFIG, Path("/"))
    replica.start()
    yield replica
    await replica.drain(no_websockets)
    await replica.close()


def instance(replica):
    return replica._target.value


def live(number, config, limit=3):
    options = {"user_config": config, "max_concurrent_queries": limit}
    grace = {"graceful_shutdown_wait_loop_s": 0.2, "graceful_shutdown_timeout_s": 0.3}
    return {"serial": number, "number": number, **options, **grace}


async def test_only_a_changed_user_config_reaches_the_user(replica):
    assert (await replica.settled())["config_number"] == 5
    assert await replica.apply(live(7, {"n": 7})) is None
    assert await replica.apply(live(8, {"n": 7}, limit=9)) is None
    assert await replica.apply(live(6, {"n": 1})) is None  # a deploy that failed is undone
    assert instance(replica).configs == [{"n": 1}, {"n": 7}, {"n": 1}]
    assert replica.config_number == 6
    assert replica.admission.limit == 3


async def test_the_grace_can_change(replica):
    await replica.settled()
    assert await replica.apply({**live(6, {"n": 1}), "graceful_shutdown_timeout_s": 0.05}) is None
    assert replica.admission.admit()
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert not await replica.drain(no_websockets)
    assert loop.time() - began < CONFIG.graceful_shutdown_timeout_s
    replica.admission.end(begun=False)


async def test_a_config_that_is_refused_leaves_the_number(replica):
    await replica.settled()
    with pytest.raises(DeploymentFailed, match="ValueError: bad config") as caught:
        await replica.reconfigure(6, "bad")
    assert caught.value.code == "reconfigure_failed"
    assert replica.config_number == 5
    assert replica.admission.admit()
    await replica.admission.begin()  # requests go on, on the old config
    replica.admission.end(begun=True)


async def test_health_is_checked_once_for_all_that_ask(replica):
    await replica.settled()
    asking = [asyncio.create_task(replica.healthy()) for _ in range(3)]
    await instance(replica).asked.wait()
    instance(replica).finish.set()
    assert [answer["config_number"] for answer in await asyncio.gather(*asking)] == [5, 5, 5]
    assert instance(replica).checks == 1


async def test_a_draining_replica_is_not_ready_but_serves(replica):
    await replica.settled()
    assert await replica.drain(no_websockets)
    assert replica.serving
    with pytest.raises(FngwError) as caught:
        await replica.settled()
    assert (caught.value.code, caught.value.status) == ("not_ready", 503)


async def test_a_drain_ends_in_time(replica):
    await replica.settled()
    assert await replica.apply(live(6, {"n": 1})) is None
    assert replica.admission.admit()
    assert not await replica.drain(no_websockets)
    replica.admission.end(begun=False)
