"""Reading the files that ``conda`` and ``pip`` may name, so that the spec holds their content.

Standard library only, Python >= 3.7: this module is copied into replica images.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, Optional, Tuple

from fngw.errors import ValidationError
from fngw.options import Options

__all__ = [
    "ENVIRONMENT_FILE",
    "find_path",
    "pinned_python",
    "read_environment",
    "read_requirements",
    "wanted_python",
]

#: The key under which an ``environment.yml`` travels as it was written: the builder reads YAML, the SDK does not.
ENVIRONMENT_FILE = "environment_yml"
INCLUDES = ("-r", "--requirement", "-c", "--constraint")
#: A conda spec that leaves one X.Y: python=3.11, python 3.11.*, python==3.11.4, python=3.11.4=h1_0.
PINNED_PYTHON = re.compile(
    r"""(?:\S+::)?python (?: \s*={1,2}\s* | \s*~=\s*(?=\d+\.\d+\.\d) | \s+ | \[version=['"]?=*)
        (?P<version>3\.\d{1,2}) (?![\d|,]|\S*[|,])""",
    re.VERBOSE,
)
#: The same spec as an item of a list in YAML, block or flow.
YAML_ITEM = re.compile(
    r"""(?:^\s*-|[\[,])\s*['"]?(?P<spec>(?:[^\s'",]+::)?python(?![\w.-])[^'",\]\n#]*)""", re.MULTILINE
)


def read_environment(options: Options, folder: Optional[Path]) -> Options:
    """Return ``options`` with the files of ``conda`` and ``pip`` read (a dict, a tuple of lines), and with the
    Python that ``conda`` asks for.

    Args:
        folder: that of the file that defines the deployment, or None.

    Raises:
        ValidationError: a file is missing or unreadable, or ``conda`` asks for another Python than ``python``
            (code ``python_conflict``).
    """
    changes: Dict[str, Any] = {}
    if isinstance(options.conda, str):
        changes["conda"] = {ENVIRONMENT_FILE: _text("conda", find_path("conda", options.conda, folder))}
    if isinstance(options.pip, str):
        changes["pip"] = read_requirements(find_path("pip", options.pip, folder))
    return _with_python(options.replace(**changes) if changes else options)


def wanted_python(options: Options) -> Optional[str]:
    """Return the replica's ``"X.Y"`` as the options say it: ``python``, else what ``conda`` asks for, else None."""
    return options.python or _conda_python(options.conda)


def pinned_python(dependencies: Iterable[Any]) -> Optional[str]:
    """Return the one ``"X.Y"`` that conda's ``dependencies`` leave for Python, or None when they leave more.

    Example:
        >>> pinned_python(["numpy", "python=3.11"]), pinned_python(["python>=3.9"])
        ('3.11', None)
    """
    specs = [spec.strip() for spec in dependencies if isinstance(spec, str)]
    found = {match.group("version") for match in map(PINNED_PYTHON.match, specs) if match}
    return found.pop() if len(found) == 1 else None


def _with_python(options: Options) -> Options:
    asked = _conda_python(options.conda)
    if options.python is None:
        return options if asked is None else options.replace(python=asked)
    if asked not in (None, options.python):
        raise ValidationError(
            f"python: {options.python!r} is given, and conda asks for Python {asked}",
            code="python_conflict",
            hint="leave one of the two out",
        )
    return options


def _conda_python(conda: Any) -> Optional[str]:
    """Look for Python in a value of ``conda``.

    In a file's text only what is plain to see is found; the builder reads all of it, and says so when it asks for
    another Python than the deployment.
    """
    if not isinstance(conda, dict):
        return None
    text = conda.get(ENVIRONMENT_FILE)
    if isinstance(text, str):
        return pinned_python(match.group("spec") for match in YAML_ITEM.finditer(text))
    dependencies = conda.get("dependencies")
    return pinned_python(dependencies) if isinstance(dependencies, (list, tuple)) else None


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
