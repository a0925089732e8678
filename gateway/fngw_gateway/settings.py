"""The gateway's settings: ``FNGW_*`` variables, on top of those that all rooms share."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from fngw.listening import ACCEPTS
from fngw_state.call_settings import CallSettings
from fngw_state.settings import Size


def _or_none(value: Any) -> Any:
    """An empty variable sets nothing: it must not ask for an empty token."""
    return value or None


class GatewaySettings(CallSettings):
    """One gateway process. Every field is the variable ``FNGW_<NAME>``."""

    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port to listen on; 0 picks a free one.")
    fd: int | None = Field(default=None, description="An inherited listening TCP socket, instead of host and port.")
    unix_fd: int | None = Field(default=None, description="An inherited listening Unix socket, for the replicas.")
    accepts: int = Field(
        default=ACCEPTS,
        ge=1,
        le=256,
        description="Connections accepted at once; fewer spread better over gateways that share a socket.",
    )
    max_body: Size = Field(
        default=8 * 2**30, gt=0, description="Largest request body: bytes, or a size such as '8GiB'."
    )
    max_bundle: Size = Field(
        default=2**29,
        gt=0,
        description="Largest bundle of sources or constructor arguments that a deploy may upload.",
    )
    token: Annotated[str | None, BeforeValidator(_or_none)] = Field(
        default=None, repr=False, description="Token for the control API and for calls by handle."
    )
    public_url: str | None = Field(
        default=None, description="Base URL under which users reach it. Default: http://localhost:<port>."
    )

    @property
    def base_url(self) -> str:
        """The public base URL, without a trailing slash."""
        return (self.public_url or f"http://localhost:{self.port}").rstrip("/")
