"""Where the gateway is, for this process: what ``connect`` was told, else the environment, else the user's file.

Standard library only, Python >= 3.7: this module is copied into replica images.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Mapping, Optional

from fngw.config_file import ConfigFile, read_config
from fngw.errors import ValidationError
from fngw.protocol import GATEWAY_SOCKET_VARIABLE

__all__ = ["DEFAULT_URL", "TOKEN_VARIABLE", "URL_VARIABLE", "Endpoint", "choose", "current", "resolve"]

DEFAULT_URL = "http://localhost:8000"
URL_VARIABLE = "FNGW_URL"
TOKEN_VARIABLE = "FNGW_TOKEN"


@dataclass(frozen=True)
class Endpoint:
    """How to reach one gateway.

    Args:
        url: its base, without a trailing slash; also what users see in a deployment's ``url``.
        token: sent as a bearer token, or None.
        socket: path of its Unix socket, used instead of the URL's host where it is at hand (in replicas).
    """

    url: str = DEFAULT_URL
    token: Optional[str] = None
    socket: Optional[str] = None

    @property
    def where(self) -> str:
        """For messages."""
        return f"the Unix socket {self.socket}" if self.socket else self.url


_chosen: Optional[Endpoint] = None


def choose(endpoint: Optional[Endpoint]) -> None:
    """Use ``endpoint`` in this process from now on; None: follow the environment again."""
    global _chosen
    _chosen = endpoint


def current() -> Endpoint:
    """Return the endpoint that this process uses now."""
    return _chosen or resolve()


def resolve(
    url: Optional[str] = None, token: Optional[str] = None, environ: Optional[Mapping[str, str]] = None
) -> Endpoint:
    """Return the endpoint for ``url`` and ``token``; the environment, then the user's file fill in what is None.

    The file's token is for the file's URL: with another one chosen, it stays where it is.

    Raises:
        ValidationError: not an ``http://`` or ``https://`` URL, or a file that makes no sense (``config_invalid``).
    """
    environ = os.environ if environ is None else environ
    given = url or environ.get(URL_VARIABLE) or None
    token = token or environ.get(TOKEN_VARIABLE) or None
    replica = GATEWAY_SOCKET_VARIABLE in environ
    file = ConfigFile() if replica or (given and token) else read_config(environ)
    chosen = _checked(given or file.url or DEFAULT_URL, "url" if url else URL_VARIABLE if given else file.path)
    if not token and (file.url is None or chosen == file.url.rstrip("/")):
        token = file.token
    return Endpoint(chosen, token, None if url else environ.get(GATEWAY_SOCKET_VARIABLE) or None)


def _checked(url: str, name: str) -> str:
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # what urlsplit says of a bad port or bracket
        good = False
    if not good or parts.query or parts.fragment:
        raise ValidationError(f"{name}: {url!r} is not a gateway's URL", hint=f"for example {DEFAULT_URL}")
    return url.rstrip("/")
