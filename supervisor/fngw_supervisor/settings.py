"""The ``FNGW_*`` variables of ``fngw up``. The command line sets them from its options."""

from __future__ import annotations

import os
from enum import StrEnum

from pydantic import Field, ValidationError

from fngw.errors import ValidationError as FngwValidationError
from fngw_state.settings import SharedSettings


class EngineChoice(StrEnum):
    AUTO = "auto"
    DOCKER = "docker"
    PROCESS = "process"


class Fsync(StrEnum):
    """When what the embedded Redis wrote is on the disk: within a second, or before each answer."""

    SECOND = "second"
    ALWAYS = "always"


def default_workers() -> int:
    """Half of the processors, at most four: the replicas need the rest."""
    return max(1, min(4, (os.cpu_count() or 1) // 2))


class UpSettings(SharedSettings):
    """What ``fngw up`` starts, and where it listens."""

    host: str = Field(default="127.0.0.1", description="Address to listen on; 0.0.0.0 for all of this machine's.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port to listen on; 0 picks a free one.")
    engine: EngineChoice = Field(
        default=EngineChoice.AUTO,
        description="What replicas run in: auto (Docker when it answers), docker, or process (no isolation).",
    )
    workers: int = Field(
        default_factory=default_workers, ge=1, le=64, description="Gateway processes that share the port."
    )
    dispatchers: int = Field(
        default=1, ge=0, le=64, description="Processes that send queued calls; 0: other machines have them."
    )
    token: str | None = Field(
        default=None, description="The token that clients must send. Default: none is asked for."
    )

    fsync: Fsync = Field(
        default=Fsync.SECOND,
        description="When the embedded Redis' writes are on disk: second (a power cut loses the last one at most),"
        " or always (before each answer: slower). A killed Redis loses none either way.",
    )

    @property
    def external_redis(self) -> str | None:
        """The Redis that was asked for; None when an embedded one is to be started."""
        return self.redis_url if "redis_url" in self.model_fields_set and self.redis_url else None


def load_settings() -> UpSettings:
    """Return the settings from the environment.

    Raises:
        fngw.errors.ValidationError: a variable has a value that cannot work.
    """
    try:
        return UpSettings()
    except ValidationError as error:
        wrong = [f"FNGW_{str(e['loc'][0]).upper()}: {e['msg']} (it is {e['input']!r})" for e in error.errors()]
        raise FngwValidationError("; ".join(wrong), hint="see fngw up --help for the values") from None
