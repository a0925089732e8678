"""The builder's ``FNGW_*`` variables."""

from __future__ import annotations

from pydantic import Field

from fngw_state.settings import SharedSettings


class BuilderSettings(SharedSettings):
    """How builds are made. Every field is the variable ``FNGW_<NAME>``. Docker's own variables, such as
    ``DOCKER_HOST``, say which engine."""

    runtime_image: str = Field(
        default="fngw/runtime:py{python}",
        description="The image under functions without an environment of their own; {python} is X.Y.",
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
