"""What ``fngw up`` and ``fngw down`` tell a person: one tidy line per step."""

from __future__ import annotations

import sys
from collections.abc import Callable

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


def complain(error: FngwError) -> None:
    """Print an error: what happened, its longer text, what to do next."""
    lines = [f"fngw: {error.message}"]
    if error.detail:
        lines += ["", error.detail.rstrip(), ""]
    if error.hint:
        lines.append(f"Hint: {error.hint}")
    print("\n".join(lines), file=sys.stderr, flush=True)
