"""Which modules a source file imports, told from its text."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Iterable, Iterator, Optional

__all__ = ["imported_names"]


def imported_names(paths: Iterable[Optional[Path]]) -> Iterator[str]:
    """Yield the top-level names that the Python files among ``paths`` import, anywhere in their text.

    Relative imports stay within a package, which travels as a whole, and are left out. So are files that this
    Python cannot parse: if they are imported at all, the replica says so.
    """
    for path in paths:
        if path is not None and path.suffix == ".py":
            yield from _names(path)


def _names(path: Path) -> Iterator[str]:
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]
