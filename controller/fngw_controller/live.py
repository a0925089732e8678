"""One replica in the controller's memory, and why one failed."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from dataclasses import dataclass, field

from fngw.errors import BuildFailed, FngwError
from fngw_controller.engines.base import Exited
from fngw_state.records import Failure, Replica, ReplicaState, Revision
from fngw_state.resources import Lease


@dataclass
class Live:
    """A replica in the controller's memory: its record, and what the record does not tell."""

    record: Replica
    revision: Revision
    attempt: int
    secret: str
    lease: Lease
    serial: int = 0  # of the live configuration that it was told to apply and has not answered to
    exited: asyncio.Event = field(default_factory=asyncio.Event)
    exit: Exited | None = None
    started: asyncio.Event = field(default_factory=asyncio.Event)  # the engine is through with starting it

    @property
    def leaving(self) -> bool:
        return self.record.state == ReplicaState.DRAINING

    @property
    def id(self) -> str:
        return self.record.id

    def move(self, state: ReplicaState, message: str = "") -> None:
        self.record = dataclasses.replace(self.record, state=state, since=time.time(), message=message)

    def configured(self, number: int) -> None:
        self.record = dataclasses.replace(self.record, config_number=number, config_sent=number)


def failure_of(number: int, error: FngwError) -> Failure:
    """Return why revision ``number`` failed, as a record."""
    kind = "BuildFailed" if isinstance(error, BuildFailed) else "DeploymentFailed"
    return Failure(number, error.code, error.message, detail=error.detail, hint=error.hint, error=kind)
