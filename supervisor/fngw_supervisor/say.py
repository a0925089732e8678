"""What ``fngw up`` and ``fngw down`` tell: one tidy line per step, for a person or (``--json``) for a program."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping

from fngw.errors import FngwError

#: Takes the step's subject (a word) and what is to be said of it.
Say = Callable[[str, str], None]

_WIDTH = 11


def say(subject: str, text: str) -> None:
    """Print one step.

    Example:
        >>> say("engine", "docker 27.1")
        engine      docker 27.1
    """
    indent = "\n" + " " * (_WIDTH + 1)
    print(f"{subject:<{_WIDTH}} {text.rstrip().replace(chr(10), indent)}", flush=True)


def say_json(subject: str, text: str) -> None:
    """Print one step as JSON.

    Example:
        >>> say_json("engine", "docker 27.1")
        {"step": "engine", "text": "docker 27.1"}
    """
    show_json({"step": subject, "text": text})


def say_nothing(subject: str, text: str) -> None:
    """Leave the steps out: the result says it all."""


def show_json(value: Mapping[str, object]) -> None:
    """Print a line of JSON."""
    print(json.dumps(value, ensure_ascii=False), flush=True)


def complain(error: FngwError, as_json: bool = False) -> None:
    """Print an error: what happened, its longer text, what to do next. As JSON on stdout, as text on stderr."""
    if as_json:
        shown = {"code": error.code, "message": error.message, "hint": error.hint}
        show_json({"error": {**shown, "detail": error.detail} if error.detail else shown})
        return
    lines = [f"Error: {error.message}"]
    if error.detail:
        lines += ["", error.detail.rstrip(), ""]
    if error.hint:
        lines.append(f"Hint: {error.hint}")
    print("\n".join(lines), file=sys.stderr, flush=True)
