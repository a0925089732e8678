"""Runs one command, and is the one edge where errors become exit codes."""

from __future__ import annotations

import difflib
import functools
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import typer

from fngw.cli import report
from fngw.cli.catalog import BY_NAME, COMMANDS, Command
from fngw.errors import FngwError

# Its public subclass leads to it: where typer keeps its own copy of Click has changed over time.
_UsageError: Any = typer.BadParameter.__bases__[0]
_ClickException: Any = _UsageError.__bases__[0]


def run(name: str, arguments: Sequence[str]) -> int:
    """Run a command and return its exit code. Prints its error, if any.

    Args:
        name: one of ``catalog.COMMANDS``.
        arguments: what comes after it.
    """
    end = list(arguments).index("--") if "--" in arguments else len(arguments)
    as_json = "--json" in arguments[:end]
    try:
        return _invoke(_command(name), list(arguments))
    except _ClickException as error:
        report.show_error(_translated(error, name), as_json)
        return report.USAGE
    except FngwError as error:
        report.show_error(error, as_json)
        return report.exit_code(error)
    except (KeyboardInterrupt, typer.Abort):
        return report.INTERRUPTED
    except _ReaderGone:  # as in `fngw logs NAME | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still buffered goes nowhere
        return 0


def _command(name: str) -> Command:
    if name in BY_NAME:
        return BY_NAME[name]
    if name.startswith("-"):
        raise report.usage_error(f"{name!r}: a command comes first", "fngw --help lists them")
    near = difflib.get_close_matches(name, BY_NAME, n=1, cutoff=0.5)
    known = f"did you mean {near[0]!r}?" if near else "known: " + ", ".join(c.name for c in COMMANDS)
    raise report.usage_error(f"unknown command {name!r}", known)


def _invoke(command: Command, arguments: list[str]) -> int:
    module = importlib.import_module(f"fngw.cli.{command.module}")
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    settings = {"help_option_names": ["--help", "-h"]}
    examples = "Examples:\n\n\b\n" + "\n".join(f"  {line}" for line in module.EXAMPLES[command.name])
    function = _pipe_aware(getattr(module, command.function))
    app.command(command.name, epilog=examples, context_settings=settings)(function)
    result = typer.main.get_command(app).main(arguments, prog_name=f"fngw {command.name}", standalone_mode=False)
    return result if isinstance(result, int) else 0


class _ReaderGone(Exception):
    """Whoever reads stdout has enough."""


def _pipe_aware(function: Callable[..., None]) -> Callable[..., None]:
    """Return the command with its broken pipes under another name: Click would end the process with code 1."""

    @functools.wraps(function)
    def aware(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
            sys.stdout.flush()
        except BrokenPipeError:
            raise _ReaderGone from None

    return aware


def _translated(error: Any, name: str) -> FngwError:
    """Return an error of the command line's parser as ours."""
    return report.usage_error(error.format_message(), f"fngw {name} --help has examples")
