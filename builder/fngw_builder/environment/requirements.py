"""What a deployment says that it needs, read and checked: `Requirements`. Pure.

Its neighbours read the two forms: `environment_file` what ``conda=`` holds, `pip_lines` what ``pip=`` holds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fngw.environments import pinned_python
from fngw.errors import BuildFailed
from fngw_builder.environment.environment_file import CondaPart, Entry, invalid, read_conda
from fngw_builder.environment.pip_lines import check_credentials, read_pip
from fngw_builder.environment.sources import VARIABLE

__all__ = ["Requirements", "read"]


@dataclass(frozen=True)
class Requirements:
    """What an environment has to have, as written: what decides the solve, and nothing else.

    Args:
        python: ``"X.Y"``.
        channels: of conda, by priority.
        conda: match specs; None: no conda part, the base's Python is used.
        pip: requirements with their hashes; wheels of the bundle as ``./path.whl``.
        pip_options: where pip looks and what it takes, in uv's words, as separate arguments.
        wheels: the paths of the wheels that ``pip`` names.
    """

    python: str
    channels: tuple[str, ...]
    conda: tuple[str, ...] | None
    pip: tuple[str, ...]
    pip_options: tuple[str, ...] = ()
    wheels: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """The name of these requirements: 64 hex digits. The content of the bundle's wheels is not in it."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    @property
    def addresses(self) -> tuple[str, ...]:
        """Every text that may name a variable."""
        return tuple(
            t for t in (*self.channels, *(self.conda or ()), *self.pip, *self.pip_options) if VARIABLE.search(t)
        )


def read(
    python: str, conda: Mapping[str, Any] | None, pip: Sequence[str] | None, channels: Sequence[str]
) -> Requirements:
    """Return the requirements of a deployment.

    Args:
        python: ``"X.Y"``.
        conda: in the form of an ``environment.yml``, or ``{"environment_yml": its text}``; None without.
        pip: the lines of a requirements file; None without.
        channels: those of conda when it names none.

    Raises:
        BuildFailed: ``environment_invalid`` (with line and column in a file), ``path_outside``, or
            ``python_conflict``: conda's Python is another.

    Example:
        >>> read("3.11", {"dependencies": ["numpy=1.26"]}, ["requests"], ["conda-forge"]).conda
        ('numpy=1.26',)
    """
    part = read_conda(conda) if conda is not None else CondaPart((), (), ())
    _check_python(python, part.dependencies)
    for channel in part.channels:
        check_credentials(channel.text, channel.where)
    asked = read_pip([*part.pip, *(Entry(line) for line in _single_lines(pip or ()))])
    return Requirements(
        python=python,
        channels=tuple(entry.text for entry in part.channels) or tuple(channels),
        conda=None if conda is None else tuple(entry.text for entry in part.dependencies),
        pip=tuple(asked.lines),
        pip_options=tuple(asked.options),
        wheels=tuple(asked.wheels),
    )


def _single_lines(lines: Iterable[str]) -> Iterable[str]:
    for line in lines:
        if "\n" in line.strip():
            raise invalid(f"pip: the entry {line!r} is several lines", "give each as an entry of its own")
        yield line


def _check_python(python: str, dependencies: Iterable[Entry]) -> None:
    for entry in dependencies:
        pinned = pinned_python([entry.text])
        if pinned not in (None, python):
            raise BuildFailed(
                f"conda asks for Python {pinned} ({entry.text}) and the deployment for {python}{entry.where}",
                code="python_conflict",
                hint=f'give python="{pinned}", or take python out of conda\'s dependencies',
            )
