"""``fngw call``: one call by handle."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from fngw.cli import report
from fngw.cli.options import AsJson, Name, Timeout, Token, Url, use_gateway
from fngw.cli.values import data_value
from fngw.errors import FngwError
from fngw.handles import DeploymentHandle
from fngw.protocol import DEFAULT_METHOD

EXAMPLES = {
    "call": (
        "fngw call Greeter --data '\"Ada\"'",
        "fngw call Model --method predict --data '[1, 2, 3]'",
        "fngw call Model --method predict --data @input.json --json",
        "fngw call Model --async --data @input.json",
        "echo '{\"x\": 1}' | fngw call Model --data -",
    ),
}


def call(
    name: Name,
    method: Annotated[str, typer.Option("--method", metavar="M", help="A method other than __call__.")] = "",
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="JSON|@file|-", help="The argument; - is stdin.", show_default=False),
    ] = None,
    later: Annotated[
        bool, typer.Option("--async", help="Put it into the queue and print its id: see fngw calls.")
    ] = False,
    timeout: Timeout = None,
    url: Url = None,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Call a deployment, as a handle does, and print what it returns.

    The data is the one argument, whatever JSON it is (a list is one list); without --data there is none. A string
    is printed as it is, bytes too, anything else as JSON. With --json: {"result": VALUE}; with --async as well:
    {"id", "status"}.
    """
    arguments = () if data is None else (data_value(data),)
    use_gateway(url, token)
    handle = DeploymentHandle(name).options(method_name=method or DEFAULT_METHOD)
    if later:
        _submit(handle, arguments, as_json)
        return
    try:
        result = handle.remote(*arguments).result(timeout)
    except TimeoutError as error:
        raise FngwError(str(error), code="timeout", hint="give it longer with --timeout") from None
    report.show_result(result, as_json)


def _submit(handle: DeploymentHandle, arguments: tuple[Any, ...], as_json: bool) -> None:
    submitted = handle.submit(*arguments)
    if as_json:
        report.show_json({"id": submitted.id, "status": submitted.status()})
    else:
        print(submitted.id)
