"""Text on the command line → Python values."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fngw.cli.report import usage_error

#: Options whose values are text: ``--set python=3.11`` is no number.
_TEXT_OPTIONS = frozenset({"name", "version", "prev_version", "python", "working_dir", "route_prefix", "schedule"})


def json_or_text(text: str) -> Any:
    """Return the value that ``text`` is in JSON, or the text itself.

    Example:
        >>> json_or_text("2"), json_or_text('{"a": 1}'), json_or_text("hello")
        (2, {'a': 1}, 'hello')
    """
    try:
        return json.loads(text)
    except ValueError:
        return text


def json_value(text: str, option: str) -> Any:
    """Return the value that ``text`` is in JSON.

    Raises:
        FngwError: usage: it is not JSON.
    """
    try:
        return json.loads(text)
    except ValueError as error:
        hint = f"""a string needs its quotes: {option} '"text"'"""
        raise usage_error(f"{option}: {_shortened(text)} is not JSON: {error}", hint) from None


def pairs(entries: Iterable[str], option: str) -> dict[str, Any]:
    """Return ``K=V`` entries as a dict; each V is JSON if it parses, else text.

    Raises:
        FngwError: usage: one has no ``=``.
    """
    found = {}
    for entry in entries:
        key, equals, value = entry.partition("=")
        if not equals or not key:
            raise usage_error(f"{option}: {entry!r} has no '='", f"for example {option} key=value")
        found[key] = json_or_text(value)
    return found


def option_changes(entries: Iterable[str]) -> dict[str, Any]:
    """Return ``--set OPTION=VALUE`` entries as options; those that are text stay text (but for ``null``).

    Example:
        >>> option_changes(["num_replicas=2", "python=3.11", "route_prefix=null"])
        {'num_replicas': 2, 'python': '3.11', 'route_prefix': None}
    """
    entries = list(entries)
    found = pairs(entries, "--set")
    for entry in entries:
        key, _, value = entry.partition("=")
        if key in _TEXT_OPTIONS:
            found[key] = None if value == "null" else value
    return found


def data_value(text: str) -> Any:
    """Return the value of ``--data``: JSON, ``@file`` with JSON in it, or ``-`` for stdin.

    Raises:
        FngwError: usage: no JSON, or no such file.
    """
    if text == "-":
        return json_value(sys.stdin.read(), "--data")
    if text.startswith("@"):
        path = Path(text[1:])
        try:
            return json_value(path.read_text(), f"--data @{path}")
        except (OSError, UnicodeDecodeError) as error:
            raise usage_error(f"--data: cannot read {path}: {error}") from None
    return json_value(text, "--data")


def _shortened(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
