"""``fngw call``: one call by handle."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from fngw.cli import report
from fngw.cli.options import AsJson, Name, Timeout, Token, Url, use_gateway
from fngw.cli.values import data_value
from fngw.errors import FngwError
from fngw.protocol import DEFAULT_METHOD

EXAMPLES = {
    "call": (
        "fngw call Greeter --data '\"Ada\"'",
        "fngw call Model --method predict --data '[1, 2, 3]'",
        "fngw call Model --method predict --data @input.json --json",
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
    timeout: Timeout = None,
    url: Url = None,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Call a deployment, as a handle does, and print what it returns.

    The data is the one argument, whatever JSON it is (a list is one list); without --data there is none. A string
    is printed as it is, bytes too, anything else as JSON. With --json: {"result": VALUE}.
    """
    from fngw.handles import DeploymentHandle

    arguments = () if data is None else (data_value(data),)
    use_gateway(url, token)
    try:
        handle = DeploymentHandle(name).options(method_name=method or DEFAULT_METHOD)
        result = handle.remote(*arguments).result(timeout)
    except TimeoutError as error:
        raise FngwError(str(error), code="timeout", hint="give it longer with --timeout") from None
    if as_json:
        report.show_json({"result": result})
    else:
        _print(result)


def _print(result: Any) -> None:
    if isinstance(result, bytes):
        sys.stdout.buffer.write(result)
        sys.stdout.buffer.flush()
    elif isinstance(result, str):
        print(result)
    elif result is not None:
        report.show_json(result)
