"""The ``FNGW_*`` variables that all server rooms share. Each room's settings class extends this one."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from fngw_state.layout import Layout, default_run_dir


class SharedSettings(BaseSettings):
    """Where the state lies. Every field is the variable ``FNGW_<NAME>``."""

    model_config = SettingsConfigDict(env_prefix="FNGW_", extra="ignore")

    data_dir: Path = Field(default=Path(".fngw"), description="Directory for everything that survives a restart.")
    run_dir: Path | None = Field(
        default=None,
        description="Directory for sockets; a short path. Default: derived from the data dir.",
    )
    redis_url: str = Field(
        default="redis://127.0.0.1:6379/0", description="Redis, with its password (redis:// or unix://)."
    )
    log_level: str = Field(default="INFO", description="DEBUG, INFO, WARNING or ERROR.")

    @property
    def layout(self) -> Layout:
        data = self.data_dir.resolve()
        return Layout(data=data, run=self.run_dir or default_run_dir(data))
