"""``fngw completion``: scripts that complete what is typed in a shell."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from fngw import endpoint
from fngw.cli import report
from fngw.cli.options import AsJson
from fngw.cli.report import usage_error
from fngw.cli.shells import Shell, script
from fngw.errors import FngwError
from fngw.protocol import API_PREFIX

EXAMPLES = {
    "completion": (
        "source <(fngw completion bash)",
        "fngw completion zsh > ~/.zfunc/_fngw",
        "fngw completion fish > ~/.config/fish/completions/fngw.fish",
    ),
}

#: Somebody has pressed Tab, and waits.
PATIENCE_S = 0.5


def completion(
    shell: Annotated[Shell | None, typer.Argument(metavar="SHELL", help="bash, zsh or fish.")] = None,
    names: Annotated[bool, typer.Option("--names", hidden=True)] = False,
    as_json: AsJson = False,
) -> None:
    """Print a script that completes commands, options, files and the names of deployments.

    Put the line for your shell into its start-up file. Names are asked from the gateway that FNGW_URL means, within
    half a second; without an answer there are none. With --json: {"shell", "script"}.
    """
    if names:
        for name in deployment_names():
            print(name)
        return
    if shell is None:
        raise usage_error("which shell?", f"one of {', '.join(Shell)}: fngw completion bash")
    from fngw.cli.shapes import shapes

    text = script(shell, shapes())
    if as_json:
        report.show_json({"shell": shell, "script": text})
    else:
        print(text, end="")


def deployment_names() -> list[str]:
    """Return the names of what is deployed; none where no gateway says so in time."""
    from fngw import transport  # the standard library's means: httpx takes longer to load than this may take

    try:
        asked = transport.request(endpoint.current(), "GET", API_PREFIX + "/deployments", {})
        reply = transport.submit(asked).result(PATIENCE_S)
        return sorted(status["name"] for status in json.loads(reply.body.decode())["deployments"])
    except (FngwError, TimeoutError, ValueError, KeyError, TypeError):  # Tab is no place for errors
        return []
