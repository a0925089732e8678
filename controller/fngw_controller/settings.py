"""The controller's ``FNGW_*`` variables."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from fngw_state.settings import SharedSettings, Size


class ControllerSettings(SharedSettings):
    """Settings of the controller. Every field is the variable ``FNGW_<NAME>``."""

    engine: Literal["auto", "docker", "process"] = Field(
        default="auto",
        description="What runs replicas; auto: Docker where an engine answers, else local processes.",
    )
    debug: bool = Field(default=False, description="Put tracebacks of user code into HTTP answers.")
    keep_versions: int = Field(
        default=10,
        ge=1,
        description="Versions of each deployment that stay known, with what a rollback needs; older ones are "
        "cleared away.",
    )
    stop_replicas_on_exit: bool = Field(
        default=True, description="Drain and stop the replicas when the controller is told to stop."
    )
    host_data_dir: Path | None = Field(
        default=None,
        description="The data dir as the Docker host sees it, when the controller runs in a container. Default: "
        "what the engine says of that container's mounts.",
    )
    host_run_dir: Path | None = Field(default=None, description="The run dir as the Docker host sees it, likewise.")
    memory: Size | None = Field(
        default=None,
        gt=0,
        description="Memory for replicas that ask for some, such as '16GiB'. Default: all that the host has.",
    )
    cpus: float | None = Field(
        default=None,
        gt=0,
        description="CPUs for replicas; `num_cpus` is reserved only where this is set. Default: not accounted.",
    )
    gpu_inventory: Path | None = Field(
        default=None, description="A JSON file that lists the GPUs, in place of looking for them."
    )
