"""Logs of containers that are being removed while they are asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from aiodocker.exceptions import DockerError

from fngw_controller.engines import docker
from fngw_controller.engines.base import EngineError


async def read(monkeypatch: pytest.MonkeyPatch, status: int) -> list[bytes]:
    """Ask for the logs of a container that the engine finds, and then answers ``status`` for."""

    async def found(*_: Any) -> Any:
        return SimpleNamespace(id="c1")

    @asynccontextmanager
    async def refused(*_: Any) -> AsyncIterator[None]:
        raise DockerError(status, "can not get logs from container which is dead or marked for removal")
        yield

    engine = docker.DockerEngine("ab12")
    monkeypatch.setattr(engine, "_find", found)
    monkeypatch.setattr(engine, "_docker", found)
    monkeypatch.setattr(docker, "stream", refused)
    return [chunk async for chunk in engine.logs("r1", tail=None, since=None, follow=True)]


@pytest.mark.parametrize("status", [404, 409])
async def test_a_container_that_goes_has_no_more_logs(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    assert await read(monkeypatch, status) == []


async def test_other_refusals_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EngineError, match="refused"):
        await read(monkeypatch, 500)
