"""How results and errors are shown, and the exit codes.

With ``--json`` all that goes to stdout is JSON: the result, or ``{"error": {"code", "message", "hint"}}`` (and
``detail``, such as a traceback, where there is one). Without, results go to stdout as text, and errors to stderr.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fngw.errors import CallNotFound, DeploymentNotFound, FngwError, Unauthorized, Unreachable

FAILED, USAGE, NOT_FOUND, UNREACHABLE, UNAUTHORIZED = 1, 2, 3, 4, 5
INTERRUPTED = 130  # as shells count: 128 + SIGINT

USAGE_CODE = "usage"
_GOOD, _SO_SO, _BAD = "32", "33", "31"  # green, yellow, red
_COLOURS = {
    **dict.fromkeys(("HEALTHY", "READY", "ok", "finished"), _GOOD),
    **dict.fromkeys(("UPDATING", "STARTING", "DRAINING", "DELETING", "warning", "running"), _SO_SO),
    **dict.fromkeys(("UNHEALTHY", "FAILED", "problem", "failed"), _BAD),
}


def usage_error(message: str, hint: str = "") -> FngwError:
    """Return the error of a command line that cannot be meant."""
    return FngwError(message, code=USAGE_CODE, hint=hint)


def exit_code(error: FngwError) -> int:
    """Return the exit code of an error."""
    if error.code == USAGE_CODE:
        return USAGE
    if isinstance(error, (DeploymentNotFound, CallNotFound)):
        return NOT_FOUND
    if isinstance(error, Unreachable):
        return UNREACHABLE
    return UNAUTHORIZED if isinstance(error, Unauthorized) else FAILED


def show_error(error: FngwError, as_json: bool) -> None:
    """Print an error where and as it belongs."""
    if as_json:
        shown = {"code": error.code, "message": error.message, "hint": error.hint}
        show_json({"error": {**shown, "detail": error.detail} if error.detail else shown})
        return
    lines = [f"Error: {error.message}"]
    if error.detail:
        lines += ["", error.detail.rstrip(), ""]
    if error.hint:
        lines.append(f"Hint: {error.hint}")
    print("\n".join(lines), file=sys.stderr)


def show_json(value: Any) -> None:
    """Print a value as JSON: indented for people, on one line for programs."""
    indent = 2 if sys.stdout.isatty() else None
    print(json.dumps(value, indent=indent, ensure_ascii=False, default=jsonable), flush=True)


def show_result(value: Any, as_json: bool) -> None:
    """Print what a function returned: text and bytes as they are, anything else as JSON."""
    if as_json:
        show_json({"result": value})
    elif isinstance(value, bytes):
        sys.stdout.buffer.write(value)
        sys.stdout.buffer.flush()
    elif isinstance(value, str):
        print(value)
    elif value is not None:
        show_json(value)


def jsonable(value: Any) -> Any:
    """Return what JSON can hold for a value that it cannot: NumPy's as lists and numbers, others as text."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, (set, frozenset, tuple)):
        return list(value)
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else repr(value)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return aligned columns.

    Example:
        >>> print(table(("NAME", "N"), [("a", "1")]))
        NAME  N
        a     1
    """
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join("  ".join(_cells(line, widths)).rstrip() for line in lines)


def _cells(line: Sequence[str], widths: Sequence[int]) -> Iterable[str]:
    for text, width in zip(line, widths, strict=True):
        yield coloured(text) + " " * (width - len(text))


def coloured(text: str, environ: Mapping[str, str] = os.environ) -> str:
    """Return a status in its colour, where stdout is a terminal that has some and ``NO_COLOR`` is not set."""
    if text not in _COLOURS or environ.get("NO_COLOR") or environ.get("TERM") == "dumb" or not sys.stdout.isatty():
        return text
    return f"\x1b[{_COLOURS[text]}m{text}\x1b[0m"
