"""The ``FNGW_*`` variables of calls that wait, which gateways and dispatchers must read alike."""

from __future__ import annotations

from pydantic import Field, field_validator

from fngw_state import callback_urls
from fngw_state.call_records import CallLimits
from fngw_state.callback_urls import Network
from fngw_state.settings import SharedSettings, Size


class CallSettings(SharedSettings):
    """How many calls wait, how large they are, and how long they are kept."""

    max_call_body: Size = Field(
        default=8 * 2**20, gt=0, description="Largest body of a queued call, and of its result."
    )
    max_queued_calls: int = Field(
        default=100_000, ge=1, description="Most calls of one deployment that have not ended."
    )
    max_call_payloads: Size = Field(
        default=16 * 2**30, ge=0, description="Most bytes on disk for the bodies and results of queued calls."
    )
    call_result_ttl: int = Field(
        default=24 * 3600, ge=1, description="Seconds for which the result of a queued call is kept."
    )
    dead_ttl: int = Field(
        default=7 * 24 * 3600, ge=1, description="Seconds for which a queued call that failed is kept."
    )

    callback_allow: str = Field(
        default="",
        description="Networks to which callbacks may go besides public addresses: '10.0.0.0/8, fd00::/8'.",
    )

    @field_validator("callback_allow")
    @classmethod
    def _are_networks(cls, value: str) -> str:
        callback_urls.networks(value)
        return value

    @property
    def callback_networks(self) -> tuple[Network, ...]:
        """The networks of ``callback_allow``."""
        return callback_urls.networks(self.callback_allow)

    @property
    def call_limits(self) -> CallLimits:
        """The same as a plain value."""
        return CallLimits(
            max_body=self.max_call_body,
            max_queued=self.max_queued_calls,
            max_payloads=self.max_call_payloads,
            result_ttl_s=self.call_result_ttl,
            dead_ttl_s=self.dead_ttl,
        )
