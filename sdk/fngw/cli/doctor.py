"""``fngw doctor``: is all well, and if not, what is there to do?"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import typer

from fngw import __version__, endpoint
from fngw.checkup import OK, PROBLEM, WARNING, Check
from fngw.cli import report
from fngw.cli.options import AsJson, Token, Url, connected
from fngw.cli.up import NEEDED, DataDir
from fngw.errors import Unreachable
from fngw.sources import caller_python

EXAMPLES = {
    "doctor": ("fngw doctor", "fngw doctor --json", "fngw doctor --data-dir ~/.fngw"),
}

#: Seconds between two clocks that confuse ages and expiries.
SKEW_S = 5.0


def doctor(data_dir: DataDir = None, url: Url = None, token: Token = None, as_json: AsJson = False) -> None:
    """Look at all that has to work, and at what takes space; say what to do about what is not well.

    The exit code is 1 when there is a problem. When no gateway answers, it is 4, and what can be seen from here is
    looked at: --data-dir says where the fngw of this machine has its state.

    With --json: {"checks": [{"name", "state", "message", "hint"}]}; a state is ok, warning or problem.
    """
    found, code = _look(data_dir, url, token)
    if as_json:
        report.show_json({"checks": [asdict(check) for check in found]})
    else:
        print("\n".join(page(found)))
    raise typer.Exit(code)


def _look(data_dir: Any, url: str | None, token: str | None) -> tuple[list[Check], int]:
    """Return what there is to say, and the exit code."""
    try:
        with connected(url, token) as client:
            began = time.monotonic()
            client.info()
            took = time.monotonic() - began
            found = list(_answered(client.endpoint.where, took, client.doctor(caller_python()), time.time()))
    except Unreachable as error:
        from fngw.cli.here import around, data_directory

        gateway = Check("gateway", PROBLEM, error.message, error.hint)
        where = endpoint.current().url
        return [gateway, *around(where, data_directory(data_dir), NEEDED, os.environ)], report.UNREACHABLE
    return found, report.FAILED if any(check.state == PROBLEM for check in found) else 0


def _answered(where: str, took_s: float, answer: dict[str, Any], now: float) -> Iterator[Check]:
    from fngw.cli.here import interpreter

    yield Check("gateway", OK, f"the gateway at {where} answers ({took_s * 1000:.0f} ms)")
    yield versions(__version__, str(answer["version"]))
    yield interpreter()
    ahead = float(answer["time"]) - now
    if abs(ahead) > SKEW_S:
        text = f"the gateway's clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} this machine's"
        yield Check("clock", WARNING, text, "let both take their time from NTP")
    for check in answer["checks"]:
        yield Check(check["name"], check["state"], check["message"], check["hint"])


def versions(here: str, there: str) -> Check:
    """Whether client and gateway are of the same version."""
    if here == there:
        return Check("version", OK, f"fngw {here}, here and there")
    hint = f"pip install fngw=={there}, or update the server"
    return Check("version", WARNING, f"this client is fngw {here}, the gateway {there}", hint)


def page(checks: Sequence[Check]) -> Iterator[str]:
    """Yield the lines for people: one per check, and below it what to do."""
    states, names = (max(len(getattr(check, key)) for check in checks) for key in ("state", "name"))
    for check in checks:
        state = report.coloured(check.state) + " " * (states - len(check.state))
        yield f"{state}  {check.name:<{names}}  {check.message}"
        if check.hint:
            yield f"{' ' * (states + names + 4)}→ {check.hint}"
    yield ""
    yield summary(checks)


def summary(checks: Sequence[Check]) -> str:
    """Return how many problems and warnings there are.

    Example:
        >>> summary([Check("redis", "problem", "it is away")])
        '1 problem'
    """
    counts = {word: sum(check.state == word for check in checks) for word in (PROBLEM, WARNING)}
    shown = [f"{count} {word}{'' if count == 1 else 's'}" for word, count in counts.items() if count]
    return ", ".join(shown) or "all is well"
