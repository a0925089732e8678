"""``fngw build`` and ``fngw prune``: what deployments run from, without deploying; and what building leaves."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from fngw.cli import report
from fngw.cli.options import AsJson, Token, Upgrade, Url, Verbose, connected
from fngw.cli.report import usage_error
from fngw.cli.values import option_changes

EXAMPLES = {
    "build": (
        "fngw build app.py:Greeter",
        "fngw build model.py:Model --upgrade",
        "fngw build model.py:Model --set 'pip=[\"numpy\"]' --json",
    ),
    "prune": ("fngw prune", "fngw prune --yes --json"),
}


def build(
    target: Annotated[str, typer.Argument(metavar="FILE:ATTR", help="A deployment.")],
    upgrade: Upgrade = False,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="OPTION=VALUE", help="Any option: JSON, else text.", show_default=False),
    ] = None,
    verbose: Verbose = False,
    url: Url = None,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Build what a deployment runs from, without deploying it: its environment is solved, downloaded and put
    together, and a deploy of the same finds it made. Ctrl-C stops the build.

    With --json: {"image", "ref", "lock", "python", "app_dir", "environment", "layers": [{"what", "digest", "size",
    "reused"}], "reused", "seconds"}; sizes in bytes.
    """
    from fngw.building import build as build_one
    from fngw.cli.deploy import changed
    from fngw.cli.load import load
    from fngw.progress import Progress, progress_for

    deployments = load([target])
    if len(deployments) > 1:
        names = ", ".join(d.name for d in deployments)
        raise usage_error(f"{target} has {len(deployments)} deployments: {names}", "name one: FILE:ATTR")
    deployment = changed(deployments[0], option_changes(set_ or ()))
    with connected(url, token) as client:
        progress = Progress() if as_json else progress_for(verbose=verbose)
        result = build_one(deployment, client, progress, upgrade=upgrade)
    if as_json:
        report.show_json(result)
    else:
        print("\n".join(page(result)))


def page(result: dict[str, Any]) -> Iterator[str]:
    """Yield the lines that tell what was built."""
    from fngw.progress import size_text

    if result["layers"]:
        rows = [
            (layer["what"], size_text(layer["size"]), _made(layer), layer["digest"]) for layer in result["layers"]
        ]
        yield report.table(("LAYER", "SIZE", "", "DIGEST"), rows)
        yield ""
    shown = ("image", "ref", "lock", "environment", "python")
    for key in shown:
        if result.get(key):
            yield f"{key:<13}{result[key]}"
    yield f"{'reused' if result['reused'] else 'built'} in {result['seconds']:.2f} s"


def _made(layer: dict[str, Any]) -> str:
    return "reused" if layer["reused"] else "built"


def prune(
    yes: Annotated[bool, typer.Option("-y", "--yes", help="Do not ask.")] = False,
    url: Url = None,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Empty the builder's caches: conda packages, wheels, their byte-code, channels' indexes.

    What is deployed, its environments and images, and locks stay; what builds under way use stays, too. The next
    environment is downloaded again.

    With --json: {"freed", "left"}: bytes, and bytes by kind.
    """
    from fngw.progress import size_text

    if not yes:
        _confirm()
    with connected(url, token) as client:
        done = client.prune()
    if as_json:
        report.show_json(done)
        return
    left = sum(done["left"].values())
    rest = f"; {size_text(left)} are in use by builds under way" if left else ""
    print(f"freed {size_text(done['freed'])}{rest}")


def _confirm() -> None:
    """Ask a person.

    Raises:
        FngwError: usage: there is none.
        typer.Exit: they do not want it.
    """
    if not sys.stdin.isatty():
        raise usage_error("nobody is there to be asked", "give --yes")
    if not typer.confirm("Empty the builder's caches? What comes next is downloaded again.", err=True):
        print("nothing was removed", file=sys.stderr)
        raise typer.Exit(report.FAILED)
