"""The dispatcher's settings: ``FNGW_*`` variables, on top of those of calls."""

from __future__ import annotations

from pydantic import Field

from fngw_state.call_settings import CallSettings


class DispatcherSettings(CallSettings):
    """One dispatcher process. Every field is the variable ``FNGW_<NAME>``."""

    dispatcher_calls: int = Field(default=500, ge=1, description="Most calls that one dispatcher has under way.")
    call_lease_s: float = Field(
        default=9.0, gt=0, description="Seconds after which the calls of a silent dispatcher are taken over."
    )
    call_share: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="Share of a deployment's concurrent requests that queued calls may take; always at least one.",
    )
    callback_secret: str | None = Field(
        default=None,
        repr=False,
        description="What callbacks are signed with. Default: the data dir's callback-secret, made when needed.",
    )
    dispatcher_stop_timeout_s: float = Field(
        default=10.0, ge=0, description="Seconds that a stopping dispatcher waits for its calls to end."
    )
