"""What the controller does when it is told to stop."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from fngw_controller.controller import DEFAULT_GRACE_S, Controller
from fngw_controller.engines.base import EngineError


class Rooms:
    """Three replicas, the first of which cannot be stopped."""

    def __init__(self) -> None:
        self.stopped: list[tuple[str, float]] = []
        self.cleaned = False
        self.routes = SimpleNamespace(without_replicas=lambda: None, publish_and_wait=self._nothing)
        self.store = SimpleNamespace(all_desired=self._nothing_known, all_status=self._nothing_known)
        self.engine = SimpleNamespace(list=self._list, cleanup=self._cleanup)
        self.lifecycle = SimpleNamespace(retire=self._retire)

    async def _nothing(self) -> None:
        """There are no gateways."""

    async def _nothing_known(self) -> dict[str, Any]:
        return {}

    async def _list(self) -> list[Any]:
        return [SimpleNamespace(id=id, deployment="D") for id in ("r1", "r2", "r3")]

    async def _retire(self, id: str, deployment: str, grace_s: float) -> None:
        if id == "r1":
            raise EngineError("the engine refused")
        self.stopped.append((id, grace_s))

    async def _cleanup(self) -> None:
        self.cleaned = True


async def test_a_replica_that_cannot_be_stopped_keeps_no_other_running(caplog: pytest.LogCaptureFixture) -> None:
    rooms: Any = Rooms()
    await Controller(rooms, leader=None, collector=None).stop_replicas()  # type: ignore[arg-type]
    assert rooms.stopped == [("r2", DEFAULT_GRACE_S), ("r3", DEFAULT_GRACE_S)]
    assert rooms.cleaned
    assert "replica r1 of D was not stopped" in caplog.text
