"""What changes a deployment without its code: ``fngw scale``, ``fngw config``, ``fngw rollback``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fngw.cli import report
from fngw.cli.options import AsJson, Name, Timeout, Token, Url, Wait, connected
from fngw.cli.values import json_value

if TYPE_CHECKING:
    from fngw.client import Accepted, Client

EXAMPLES = {
    "scale": ("fngw scale Greeter 3",),
    "config": ("fngw config Greeter '{\"threshold\": 0.7}'",),
    "rollback": ("fngw rollback Greeter", "fngw rollback Greeter v1"),
}


def scale(
    name: Name,
    number: Annotated[int, typer.Argument(metavar="N", min=1, help="How many replicas.")],
    timeout: Timeout = None,
    no_wait: Wait = False,
    url: Url = None,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Change the number of replicas. Those that stay are not touched."""
    with connected(url, token) as client:
        _carry_out(client, name, lambda: client.adjust(name, {"num_replicas": number}), timeout, no_wait, as_json)


def config(
    name: Name,
    value: Annotated[str, typer.Argument(metavar="JSON", help="The new user_config.")],
    timeout: Timeout = None,
    no_wait: Wait = False,
    url: Url = None,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Change the user_config: every replica's reconfigure is called, without a restart."""
    changes = {"user_config": json_value(value, "JSON")}
    with connected(url, token) as client:
        _carry_out(client, name, lambda: client.adjust(name, changes), timeout, no_wait, as_json)


def rollback(
    name: Name,
    version: Annotated[
        str | None,
        typer.Argument(
            metavar="[VERSION]", help="A version or number, see `fngw versions`; default: the one before."
        ),
    ] = None,
    timeout: Timeout = None,
    no_wait: Wait = False,
    url: Url = None,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Deploy an earlier version again, from its image. The number of replicas stays."""
    with connected(url, token) as client:
        _carry_out(client, name, lambda: client.rollback(name, version), timeout, no_wait, as_json)


def _carry_out(
    client: Client, name: str, change: Callable[[], Accepted], timeout: float | None, no_wait: bool, as_json: bool
) -> None:
    """Ask for a change, and follow it to its end unless told otherwise."""
    from fngw.deploying import OUTCOMES, finish
    from fngw.progress import Progress, progress_for

    progress = Progress() if as_json else progress_for()
    accepted = change()
    progress.step(OUTCOMES.get(accepted.outcome, "{name} is accepted").format(name=name))
    if not no_wait:
        finish(client, name, accepted.revision, progress, timeout)
    status: dict[str, Any] = client.deployment(name)
    if as_json:
        shown = {"revision": accepted.revision, "outcome": accepted.outcome}
        report.show_json({"deployments": [{k: status[k] for k in ("name", "version", "url")} | shown]})
    elif not no_wait:
        progress.success(
            f"{name} is healthy: version {status['version'] or '-'}, {status['num_replicas']} replicas"
        )
