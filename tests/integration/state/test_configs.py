"""Live configuration on a real Redis: a replica sees its own and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import redis.asyncio as aioredis
from redis.exceptions import AuthenticationError, ConnectionError, NoPermissionError, ResponseError

from fngw.spec import CodeRef, DeploymentSpec
from fngw_state import keys
from fngw_state.configs import Configs, user_of
from fngw_state.records import Ack, LiveConfig, Revision
from fngw_state.store import Store

Login = Callable[[str], Awaitable[Any]]


@pytest.fixture
async def login(store: Store, redis_url: str) -> AsyncIterator[Login]:
    """Log in as a replica."""
    clients: list[Any] = []
    granted: list[str] = []

    async def connect(replica: str) -> Any:
        await Configs(store).grant({replica: "secret"})
        granted.append(replica)
        client: Any = aioredis.from_url(
            redis_url, username=user_of(replica), password="secret", decode_responses=True
        )
        clients.append(client)
        return client

    yield connect
    for client in clients:
        await client.aclose()
    for replica in granted:
        await Configs(store).revoke(replica)


async def test_a_replica_reads_its_configuration_and_answers(store: Store, login: Login):
    configs, token = Configs(store), await store.lead("a")
    replica = await login("r1")
    spec = DeploymentSpec("f", CodeRef("sha256:a"), python="3.11", user_config={"threshold": 0.5})
    revision = Revision(number=3, generation=1, config_number=3, spec=spec, deployed_at=0.0)
    config = LiveConfig.of(revision, serial=5)
    subscription = replica.pubsub()
    await subscription.subscribe(keys.CONFIG + "r1")
    await configs.send(token, {"r1": config})
    assert LiveConfig.from_json(await replica.get(keys.CONFIG + "r1")) == config
    nudge = None
    while nudge is None or nudge["type"] != "message":
        nudge = await subscription.get_message(timeout=5)
    assert nudge["data"] == "5"
    ack = Ack(serial=5, number=3)
    await replica.set(keys.ACK + "r1", ack.to_json())
    await replica.publish(keys.ACKED_CHANNEL, "r1")
    assert await configs.acks(["r1", "r2"]) == {"r1": ack}
    await subscription.aclose()


@pytest.mark.parametrize(
    "command",
    [
        ("GET", keys.CONFIG + "r2"),
        ("SET", keys.CONFIG + "r1", "{}"),
        ("SET", keys.ACK + "r2", "{}"),
        ("GET", keys.ACK + "r1"),
        ("PUBLISH", keys.CONFIG + "r2", "1"),
        ("PUBLISH", keys.ROUTES_CHANNEL, "1"),
        ("GET", keys.ROUTES),
        ("HGETALL", keys.DESIRED),
        ("KEYS", "*"),
        ("ACL", "LIST"),
        ("EVAL", "return 1", "0"),
        ("FLUSHALL",),
    ],
)
async def test_a_replica_can_do_nothing_else(login: Login, command: tuple[str, ...]):
    replica = await login("r1")
    with pytest.raises((NoPermissionError, ResponseError), match=r"(?i)no permissions|NOPERM"):
        await replica.execute_command(*command)


async def test_a_replica_cannot_listen_to_another(login: Login):
    replica = await login("r1")
    subscription = replica.pubsub()
    with pytest.raises(NoPermissionError):
        await subscription.subscribe(keys.CONFIG + "r2")
        await subscription.get_message(timeout=5)
    await subscription.aclose()


async def test_a_deleted_replica_is_cut_off_at_once(store: Store, login: Login):
    replica = await login("r1")
    subscription = replica.pubsub()
    await subscription.subscribe(keys.CONFIG + "r1")
    await subscription.get_message(timeout=5)
    await Configs(store).revoke("r1")
    with pytest.raises((ConnectionError, AuthenticationError)):
        while True:
            await subscription.get_message(timeout=5)
    await subscription.aclose()


async def test_granting_again_disturbs_nobody(store: Store, login: Login):
    replica = await login("r1")
    assert await replica.get(keys.CONFIG + "r1") is None
    await Configs(store).grant({"r1": "secret"})
    assert await replica.get(keys.CONFIG + "r1") is None
