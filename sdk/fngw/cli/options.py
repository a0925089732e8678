"""The options that commands share, and the gateway that they mean."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from fngw import endpoint
from fngw.cli.report import usage_error
from fngw.errors import ValidationError

if TYPE_CHECKING:
    from fngw.client import Client

Url = Annotated[
    str | None,
    typer.Option(
        "--url", metavar="URL", help="The gateway (FNGW_URL; default http://localhost:8000).", show_default=False
    ),
]
Token = Annotated[
    str | None,
    typer.Option("--token", metavar="TEXT", help="The gateway's token (FNGW_TOKEN).", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]
Wait = Annotated[bool, typer.Option("--no-wait", help="Return as soon as it is accepted.")]
Timeout = Annotated[
    float | None,
    typer.Option("--timeout", min=0, metavar="S", help="Wait at most S seconds.", show_default=False),
]
Upgrade = Annotated[
    bool, typer.Option("--upgrade", help="Solve conda and pip dependencies anew, not from the last lock.")
]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="The lines of the build's log, too.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The deployment.")]


def use_gateway(url: str | None, token: str | None) -> None:
    """Use this gateway from now on: what the flags say, else the environment, else the user's file.

    Raises:
        FngwError: usage: not a URL, or a file that makes no sense.
    """
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            endpoint.choose(endpoint.resolve(url, token))
        except ValidationError as error:
            raise usage_error(error.message, error.hint) from None
    for warning in warned:
        print(f"Warning: {warning.message}", file=sys.stderr)


@contextmanager
def connected(url: str | None, token: str | None) -> Iterator[Client]:
    """Yield a client for the control API of the gateway that is meant."""
    from fngw.client import Client  # httpx: not for `fngw up`, nor for help pages

    use_gateway(url, token)
    with Client() as client:
        yield client
