"""``fngw deploy`` and ``fngw delete``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fngw.cli import report
from fngw.cli.options import AsJson, Timeout, Token, Upgrade, Url, Verbose, Wait, connected
from fngw.cli.report import usage_error
from fngw.cli.values import json_or_text, json_value, option_changes, pairs
from fngw.errors import DeploymentNotFound, ValidationError

if TYPE_CHECKING:
    from fngw.client import Client
    from fngw.deployments import Deployment
    from fngw.progress import Progress

EXAMPLES = {
    "deploy": (
        "fngw deploy app.py",
        "fngw deploy app.py:Greeter --version v2 --num-replicas 3",
        "fngw deploy app.py:Greeter --arg 'Hello world!' --kwarg loud=true",
        "fngw deploy model.py --set num_gpus=0.5 --set 'pip=[\"numpy\"]' --timeout 300",
        "fngw deploy model.py --upgrade",
    ),
    "delete": ("fngw delete Greeter", "fngw delete Greeter Translator"),
}

#: They mean one deployment, not several at once.
_SINGULAR = ("name", "route_prefix", "arg", "kwarg")


def deploy(
    targets: Annotated[
        list[str], typer.Argument(metavar="FILE[:ATTR]...", help="All deployments of a file, or one.")
    ],
    name: Annotated[str | None, typer.Option("--name", help="Another name.", show_default=False)] = None,
    version: Annotated[str | None, typer.Option("--version", help="Its version.", show_default=False)] = None,
    num_replicas: Annotated[
        int | None, typer.Option("--num-replicas", metavar="N", help="How many replicas.", show_default=False)
    ] = None,
    route_prefix: Annotated[
        str | None,
        typer.Option("--route-prefix", metavar="PATH", help="Where it is served.", show_default=False),
    ] = None,
    user_config: Annotated[
        str | None, typer.Option("--user-config", metavar="JSON", help="For reconfigure.", show_default=False)
    ] = None,
    arg: Annotated[
        list[str] | None,
        typer.Option("--arg", metavar="V", help="A constructor argument: JSON, else text.", show_default=False),
    ] = None,
    kwarg: Annotated[
        list[str] | None,
        typer.Option("--kwarg", metavar="K=V", help="One by its name: JSON, else text.", show_default=False),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="OPTION=VALUE", help="Any option: JSON, else text.", show_default=False),
    ] = None,
    upgrade: Upgrade = False,
    timeout: Timeout = None,
    no_wait: Wait = False,
    verbose: Verbose = False,
    url: Url = None,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Deploy the functions and classes that are decorated with @fngw.deployment in a file.

    Progress goes to stderr. With --json: {"deployments": [{"name", "version", "revision", "outcome", "url"}]}.
    """
    from fngw.cli.load import load
    from fngw.progress import Progress, progress_for

    changes = {**option_changes(set_ or ()), **_flags(name, version, num_replicas, route_prefix)}
    if user_config is not None:
        changes["user_config"] = json_value(user_config, "--user-config")
    args, kwargs = [json_or_text(a) for a in arg or ()], pairs(kwarg or (), "--kwarg")
    deployments = load(targets)
    _refuse_plural(deployments, {"name": name, "route_prefix": route_prefix, "arg": arg, "kwarg": kwarg})
    wanted = [changed(d, changes) for d in deployments]
    for deployment in wanted:
        _check_arguments(deployment, args, kwargs)
    with connected(url, token) as client:
        progress = Progress() if as_json else progress_for(verbose=verbose)
        done = [_deploy(client, d, args, kwargs, not no_wait, timeout, upgrade, progress) for d in wanted]
    if as_json:
        report.show_json({"deployments": done})


def _flags(name: str | None, version: str | None, num_replicas: int | None, route: str | None) -> dict[str, Any]:
    given = {"name": name, "version": version, "num_replicas": num_replicas, "route_prefix": route}
    return {k: v for k, v in given.items() if v is not None}


def _refuse_plural(deployments: Sequence[Deployment], given: dict[str, Any]) -> None:
    wrong = [k for k in _SINGULAR if given[k]]
    if len(deployments) > 1 and wrong:
        names = ", ".join(d.name for d in deployments)
        option = "--" + wrong[0].replace("_", "-")
        raise usage_error(
            f"{option} goes with one deployment, but there are {len(deployments)}: {names}", "name one: FILE:ATTR"
        )


def changed(deployment: Deployment, changes: dict[str, Any]) -> Deployment:
    """Return the deployment with the options of the command line.

    Raises:
        FngwError: usage: an unknown option, or a value that cannot work.
    """
    try:
        return deployment.options(**changes) if changes else deployment
    except ValidationError as error:
        raise usage_error(error.message, error.hint) from None
    except TypeError as error:
        raise usage_error(str(error)) from None


def _check_arguments(deployment: Deployment, args: list[Any], kwargs: dict[str, Any]) -> None:
    """Refuse constructor arguments that do not fit, before anything is packed.

    Raises:
        FngwError: usage.
    """
    from fngw.deploying import constructor_arguments

    try:
        constructor_arguments(deployment, tuple(args), kwargs)
    except ValidationError as error:
        raise usage_error(f"{deployment.name}: {error.message}", "leave --arg and --kwarg out") from None
    except TypeError as error:
        raise usage_error(f"{deployment.name}: {error}", "give them with --arg and --kwarg") from None


def _deploy(
    client: Client,
    deployment: Deployment,
    args: list[Any],
    kwargs: dict[str, Any],
    wait: bool,
    timeout: float | None,
    upgrade: bool,
    progress: Progress,
) -> dict[str, Any]:
    from fngw.deploying import deploy as deploy_one

    accepted = deploy_one(
        deployment,
        tuple(args),
        kwargs,
        wait=wait,
        timeout=timeout,
        upgrade=upgrade,
        progress=progress,
        client=client,
    )
    return {
        "name": deployment.name,
        "version": deployment.version,
        "revision": accepted.revision,
        "outcome": accepted.outcome,
        "url": deployment.url,
    }


def delete(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="The deployments.")],
    url: Url = None,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Delete deployments and wait until they are gone.

    With --json: {"deleted": [NAME, ...]}. An unknown name is an error (exit code 3); the others are deleted.
    """
    from fngw.deploying import delete as delete_one

    with connected(url, token) as client:
        there = {name: delete_one(name, client=client) for name in dict.fromkeys(names)}
    deleted, unknown = [n for n, was in there.items() if was], [n for n, was in there.items() if not was]
    if not as_json:
        for name in deleted:
            print(f"deleted {name}")
    if unknown:
        more = f"deleted: {', '.join(deleted)}" if deleted else "fngw list shows what there is"
        raise DeploymentNotFound(f"no deployment is named {' or '.join(map(json.dumps, unknown))}", hint=more)
    if as_json:
        report.show_json({"deleted": deleted})
