"""The builder's ``FNGW_*`` variables."""

from __future__ import annotations

from pydantic import Field, field_validator

from fngw.options import parse_bytes
from fngw_state.settings import SharedSettings


class BuilderSettings(SharedSettings):
    """How builds are made. Every field is the variable ``FNGW_<NAME>``. Docker's own variables, such as
    ``DOCKER_HOST``, say which engine."""

    runtime_image: str = Field(
        default="fngw/runtime:py{python}",
        description="The image under functions without an environment of their own; {python} is X.Y.",
    )
    base_image: str = Field(
        default="fngw/base:py{python}",
        description="The image under environments; {python} is X.Y.",
    )
    cache_size: str = Field(
        default="20GiB",
        description="How much of downloaded packages is kept; what was not used for longest goes first.",
    )
    conda_channels: str = Field(
        default="conda-forge", description="The channels of `conda` when it names none, separated by commas."
    )
    conda_alias: str = Field(
        default="https://conda.anaconda.org",
        description="The address under which conda's channels lie that are named by a word.",
    )
    cuda: str = Field(
        default="auto",
        description="The CUDA that environments may ask for, as `12.4`; empty: none; `auto`: the driver's.",
    )
    glibc: str = Field(
        default="",
        description="The C library that packages must run with, as `2.28`; empty: that of the base image.",
    )
    registry: str = Field(
        default="",
        description="A registry's `HOST/REPOSITORY`: images are pushed there, and looked for there first.",
    )
    engine_timeout_s: float = Field(
        default=120, gt=0, description="Seconds that the engine may keep silent before a build is given up."
    )
    builder_stop_timeout_s: float = Field(
        default=20,
        ge=2,
        description="Seconds that a build under way may take to end when the builder is stopped.",
    )
    builds: int = Field(
        default=8,
        ge=1,
        description="Builds at once. Each takes a process; environments are built one per CPU at a time.",
    )

    @field_validator("cache_size")
    @classmethod
    def _check_size(cls, value: str) -> str:
        if parse_bytes(value) <= 0:
            raise ValueError("must be > 0")
        return value

    @property
    def cache_bytes(self) -> int:
        return parse_bytes(self.cache_size)

    @property
    def default_channels(self) -> tuple[str, ...]:
        return tuple(name.strip() for name in self.conda_channels.split(",") if name.strip())
