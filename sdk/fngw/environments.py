"""Reading the files that ``conda`` and ``pip`` may name, so that the spec holds their content.

Standard library only, Python >= 3.7: this module is copied into replica images.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple

from fngw.errors import ValidationError
from fngw.options import Options

__all__ = ["ENVIRONMENT_FILE", "find_path", "read_environment", "read_requirements"]

#: The key under which an ``environment.yml`` travels as it was written: the builder reads YAML, the SDK does not.
ENVIRONMENT_FILE = "environment_yml"
INCLUDES = ("-r", "--requirement", "-c", "--constraint")


def read_environment(options: Options, folder: Optional[Path]) -> Options:
    """Return ``options`` with the files of ``conda`` and ``pip`` read: a dict, a tuple of lines.

    Args:
        folder: that of the file that defines the deployment, or None.

    Raises:
        ValidationError: a file is missing or unreadable.
    """
    changes: Dict[str, Any] = {}
    if isinstance(options.conda, str):
        changes["conda"] = {ENVIRONMENT_FILE: _text("conda", find_path("conda", options.conda, folder))}
    if isinstance(options.pip, str):
        changes["pip"] = read_requirements(find_path("pip", options.pip, folder))
    return options.replace(**changes) if changes else options


def find_path(option: str, path: str, folder: Optional[Path]) -> Path:
    """Return what a relative ``path`` means: in the current folder, else beside the file that defines the object.

    Raises:
        ValidationError: neither exists.
    """
    tried = [Path(path).expanduser().absolute()]
    if folder is not None:
        tried.append((folder / path).absolute())
    for candidate in tried:
        if candidate.exists():
            return candidate
    places = " and ".join(str(t) for t in dict.fromkeys(tried))
    raise ValidationError(f"{option}: {path!r} does not exist", hint=f"looked for {places}")


def read_requirements(path: Path) -> Tuple[str, ...]:
    """Return the lines of a requirements file: comments dropped, continued lines joined, ``-r`` inlined.

    Raises:
        ValidationError: it, or a file that it includes, cannot be read or includes itself.

    Example:
        >>> read_requirements(Path("requirements.txt"))
        ('numpy<2', 'requests[socks]==2.31; python_version >= "3.8"')
    """
    return tuple(_lines(path, ()))


def _lines(path: Path, including: Tuple[Path, ...]) -> Iterator[str]:
    real = path.resolve()
    if real in including:
        raise ValidationError(f"pip: {path} includes itself")
    for line in _logical_lines(_text("pip", path)):
        flag, _, included = line.replace("=", " ", 1).partition(" ") if line.startswith("--") else _short(line)
        if flag in INCLUDES[:2]:
            yield from _lines(path.parent / included.strip(), (*including, real))
        elif flag in INCLUDES[2:]:
            hint = "put the versions into the requirements themselves"
            raise ValidationError(f"pip: {path} uses {flag}, which fngw does not support", hint=hint)
        else:
            yield line


def _short(line: str) -> Tuple[str, str, str]:
    """Split ``-r file`` and ``-rfile`` alike; other lines have no flag."""
    return (line[:2], "", line[2:]) if line[:2] in INCLUDES else ("", "", line)


def _logical_lines(text: str) -> List[str]:
    """As pip reads them: a backslash continues a line; a ``#`` at the start or after a blank begins a comment."""
    lines = []
    for line in text.replace("\\\r\n", "").replace("\\\n", "").splitlines():
        start = (
            0
            if line.startswith("#")
            else min((i for i in (line.find(" #"), line.find("\t#")) if i >= 0), default=-1)
        )
        lines.append((line if start < 0 else line[:start]).strip())
    return [line for line in lines if line]


def _text(option: str, path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValidationError(f"{option}: cannot read {path}: {error}") from None
