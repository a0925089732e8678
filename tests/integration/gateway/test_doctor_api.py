"""`GET /doctor` and `POST /prune` on a real Redis; the test plays the builder."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from httpx import ASGITransport, AsyncClient

from fngw.errors import FngwError
from fngw_gateway.api import create_api
from fngw_gateway.api import doctor as api
from fngw_gateway.settings import GatewaySettings
from fngw_state import builds, errands, keys
from fngw_state.resources import Capacity
from fngw_state.store import Store

from .conftest import RedisServer

SURVEY = {
    "cache": {"packages": 0, "uv": 0, "repodata": 0},
    "cache_limit": 1 << 30,
    "stored": {"sources": 0, "environments": 0, "locks": 0},
    "locks": 0,
    "docker": {"problem": "nobody listens"},
    "base": {"problem": "no Python 3.9", "hint": "get one"},
}


@pytest.fixture
async def client(store: Store, redis: RedisServer, tmp_path: Path) -> AsyncIterator[AsyncClient]:
    settings = GatewaySettings(data_dir=tmp_path, run_dir=tmp_path / "run", redis_url=redis.url)
    transport = ASGITransport(create_api(store, settings), client=("127.0.0.1", 1))
    async with AsyncClient(transport=transport, base_url="http://gateway:8000") as client:
        yield client


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """A builder that answers; what it was asked."""
    words: list[tuple[str, ...]] = []

    def run(connection: Any, errand: str, *arguments: str, wait_s: int) -> Any:
        words.append((errand, *arguments))
        return SURVEY if errand == errands.SURVEY else {"freed": 7, "left": {}}

    monkeypatch.setattr(errands, "run", run)
    monkeypatch.setattr(errands, "workers", lambda connection: errands.Workers(1, 0, 0, 1))
    return words


def states(answer: dict[str, Any]) -> dict[str, str]:
    return {check["name"]: check["state"] for check in answer["checks"]}


async def test_an_installation_that_works(store: Store, client: AsyncClient, asked: list[tuple[str, ...]]) -> None:
    await store.lead("host-1-ab")
    await store.put_engine(1, "docker", "27.1", "Docker 27.1")
    await store.redis.set(keys.CAPACITY, Capacity(no_gpus="no driver").to_json())
    await store.applied("g1", 0)
    answer = (await client.get("/-/api/v1/doctor", params={"python": "3.9"})).json()
    assert asked == [(errands.SURVEY, "docker", "3.9")]
    assert set(answer) == {"version", "time", "checks"}
    assert all(set(check) == {"name", "state", "message", "hint"} for check in answer["checks"])
    found = states(answer)
    assert [
        found[n] for n in ("redis", "redis_memory", "controller", "gateways", "builder", "dispatchers", "gpus")
    ] == ["ok"] * 7
    assert (found["engine"], found["base"]) == ("problem", "problem")
    assert found["redis_data"] == "warning", "the test's Redis keeps nothing"


async def test_an_installation_without_its_parts(client: AsyncClient) -> None:
    answer = (await client.get("/-/api/v1/doctor")).json()
    found = states(answer)
    assert [found[name] for name in ("redis", "controller", "engine", "builder")] == ["ok", *["problem"] * 3]
    assert "caches" not in found


async def test_a_builder_that_is_silent(
    client: AsyncClient, asked: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(errands, "workers", lambda connection: errands.Workers(0, 1, 2, 0))
    monkeypatch.setattr(api, "SURVEY_S", 1)
    answer = (await client.get("/-/api/v1/doctor")).json()
    assert states(answer)["builder"] == "warning"


async def test_without_redis(redis: RedisServer, client: AsyncClient) -> None:
    await redis.kill()
    answer = (await client.get("/-/api/v1/doctor")).json()
    assert states(answer) == {"redis": "problem", "disk": states(answer)["disk"], "files": states(answer)["files"]}


async def test_only_versions_of_python_are_asked_about(client: AsyncClient) -> None:
    answer = await client.get("/-/api/v1/doctor", params={"python": "3.9; rm"})
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_error")


async def test_prune(client: AsyncClient, asked: list[tuple[str, ...]]) -> None:
    assert (await client.post("/-/api/v1/prune")).json() == {"freed": 7, "left": {}}
    assert asked == [(errands.PRUNE,)]


async def test_prune_without_a_builder(client: AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "PRUNE_S", 1)
    answer = await client.post("/-/api/v1/prune")
    assert (answer.status_code, answer.json()["code"]) == (503, "builder_silent")


async def test_an_answer_is_waited_for_longer_than_redis_may_be_silent(redis: RedisServer) -> None:
    """redis-py gives a connection up after 5 s without a word."""
    with pytest.raises(FngwError) as failed:
        await asyncio.to_thread(errands.run, builds.connect(redis.url), errands.PRUNE, wait_s=6)
    assert failed.value.code == "builder_silent"
