"""Solving conda's part: match specs in, packages with their hashes out; and why not, when there is no answer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from fngw.errors import BuildFailed
from fngw_builder.environment.lock import CondaPackage
from fngw_builder.environment.repodata import Repodata
from fngw_builder.environment.sources import Sources, redact
from fngw_builder.environment.target import Target
from fngw_builder.environment.unsolvable import NoSolution, did_you_mean

if TYPE_CHECKING:
    from rattler import MatchSpec

#: How many of a package's versions an error names.
SHOWN_VERSIONS = 8


class CondaSolver:
    """Answers match specs from channels, for a target.

    Args:
        python: ``"X.Y"``; every answer has it.
        specs: what the user asks for.
        channels: as written, by priority; one that only a spec names comes after them.

    Raises:
        BuildFailed: ``environment_invalid``: a spec cannot be read.

    Example:
        >>> solver = CondaSolver("3.11", ["numpy=1.26"], ["conda-forge"], target, sources)
        >>> [package.name for package in solver.solve()]
    """

    def __init__(
        self, python: str, specs: Sequence[str], channels: Sequence[str], target: Target, sources: Sources
    ) -> None:
        self.python = python
        self._target = target
        self._secrets = sources.secrets([*channels, *specs])
        self._specs = [_parse(_addressed(spec, sources)) for spec in specs]
        named = [spec.partition("::")[0] for spec in specs if "::" in spec]
        self._repodata = Repodata(sources.channels([*channels, *named]), target, sources, self._secrets)

    def solve(self, needs: Iterable[str] = ()) -> tuple[CondaPackage, ...]:
        """Return the packages that satisfy the specs and ``needs``, Python included.

        Args:
            needs: names of further packages.

        Raises:
            NoSolution: they do not fit together.
            BuildFailed: ``channel_unreachable``, or ``hash_missing``.
        """
        records = self._repodata.solve([self._python, *self._specs, *map(_parse, needs)])
        return tuple(self._repodata.package(record) for record in records)

    def known(self, names: Iterable[str]) -> set[str]:
        """Return those of ``names`` that the channels have.

        Raises:
            BuildFailed: ``channel_unreachable``.
        """
        wanted = set(names)
        return wanted & self._repodata.names if wanted else wanted

    def explain(self, reason: NoSolution) -> BuildFailed:
        """Return the error that says why the user's own specs have no answer: what to correct, where that is plain.

        Returns:
            ``package_not_found``, ``python_not_found`` or ``environment_unsolvable``.
        """
        return self._unknown_name() or self._no_python() or self._no_version() or self._incompatible(reason)

    @property
    def _python(self) -> MatchSpec:
        return _parse(f"python {self.python}.*")

    def _unknown_name(self) -> BuildFailed | None:
        names = [name for name in map(_name, self._specs) if not name.startswith("__")]
        missing = [name for name in names if name not in self._repodata.names]
        if not missing:
            return None
        near = did_you_mean(missing[0], self._repodata.names)
        return BuildFailed(
            f"{self._listed()} no package called {' or '.join(missing)}",
            code="package_not_found",
            hint=near or "check the spelling, add the channel that has it, or ask pip for it: {'pip': [...]}",
        )

    def _no_python(self) -> BuildFailed | None:
        records = self._repodata.records("python")
        if any(self._python.matches(record) for record in records):
            return None
        minors = {".".join(str(record.version).split(".")[:2]) for record in records}
        return BuildFailed(
            f"{self._listed()} no Python {self.python} for {self._target.subdir}",
            code="python_not_found",
            hint=f"there is {_versions(minors)}"
            if minors
            else "add a channel that has Python, such as conda-forge",
        )

    def _no_version(self) -> BuildFailed | None:
        for spec in self._specs:
            records = self._repodata.records(_name(spec))
            if not any(spec.matches(record) for record in records) and not _name(spec).startswith("__"):
                versions = _versions({str(record.version) for record in records})
                return BuildFailed(
                    f"{self._listed()} no {redact(str(spec), self._secrets)}",
                    code="environment_unsolvable",
                    hint=f"there is {_name(spec)} {versions}",
                )
        return None

    def _incompatible(self, reason: NoSolution) -> BuildFailed:
        """Solve again for a better reason.

        A spec with a version hides the other versions from the solver, and its tree then says that there are none.
        As constraints, they are named as what they are.
        """
        names = dict.fromkeys(["python", *map(_name, self._specs)])
        try:
            self._repodata.solve([_parse(name) for name in names], [self._python, *self._specs])
        except NoSolution as better:
            reason = better
        return BuildFailed(
            f"what conda is asked for does not fit together: {reason.head}",
            code="environment_unsolvable",
            hint=self._target_hint(reason.tree) or "loosen one of the versions that are named",
            detail=reason.rest,
        )

    def _target_hint(self, tree: str) -> str:
        if "__cuda" in tree:
            has = f"CUDA {self._target.cuda}" if self._target.cuda else "no CUDA"
            return f"it will run with {has}; FNGW_CUDA says otherwise, for hosts other than the builder's"
        if "__glibc" in tree:
            return f"it will run with glibc {self._target.glibc}; ask for older versions, or use a newer base image"
        return ""

    def _listed(self) -> str:
        names = [redact(channel.name) for channel in self._repodata.channels]
        return f"the channel {names[0]} has" if len(names) == 1 else f"the channels {', '.join(names)} have"


def _addressed(spec: str, sources: Sources) -> str:
    """Give the channel of ``channel::package`` by its address."""
    channel, separator, rest = spec.partition("::")
    return f"{sources.channel(channel).url}::{rest}" if separator else spec


def _parse(text: str) -> MatchSpec:
    """Read a match spec of one package by its name.

    Raises:
        BuildFailed: ``environment_invalid``.
    """
    from rattler import MatchSpec
    from rattler.exceptions import InvalidMatchSpecError, PackageNameMatcherParseError

    shown = text.rpartition("::")[2]
    hint = "such as numpy, numpy=1.26, numpy>=1.26,<2 or conda-forge::numpy"
    try:
        spec = MatchSpec(text)
    except (InvalidMatchSpecError, PackageNameMatcherParseError) as error:
        reason = str(error).splitlines()[0]
        message = f"conda: {shown!r} is not a package with a version: {redact(reason)}"
        raise BuildFailed(message, code="environment_invalid", hint=hint) from None
    if "://" in shown or spec.name is None or spec.name.as_package_name() is None:
        raise BuildFailed(f"conda: {shown!r} does not name a package", code="environment_invalid", hint=hint)
    return spec


def _name(spec: MatchSpec) -> str:
    name = None if spec.name is None else spec.name.as_package_name()
    assert name is not None  # seen to by _parse
    return name.normalized


def _versions(versions: Iterable[str]) -> str:
    """The newest first, as many as one reads."""
    ordered = sorted(versions, key=_sort_key, reverse=True)
    more = len(ordered) - SHOWN_VERSIONS
    return ", ".join(ordered[:SHOWN_VERSIONS]) + (f" and {more} more" if more > 0 else "")


def _sort_key(version: str) -> list[tuple[bool, int, str]]:
    parts = re.split(r"[.!_+-]", version)
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts]
