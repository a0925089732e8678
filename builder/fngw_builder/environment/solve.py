"""From requirements to a lock: conda's part, then pip's on top of it, and what every replica needs with both.

If there is no answer, it is asked for again without what replicas need, to say whose conflict it is.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

from fngw import protocol
from fngw.errors import BuildFailed
from fngw_builder.environment import cuda
from fngw_builder.environment.conda import CondaSolver
from fngw_builder.environment.lock import CondaPackage, LocalWheel, Lock, PipPackage
from fngw_builder.environment.provided import Distribution, provided
from fngw_builder.environment.pypi import PipSolver
from fngw_builder.environment.requirements import Requirements
from fngw_builder.environment.sources import Sources
from fngw_builder.environment.target import Target
from fngw_builder.environment.unsolvable import NoSolution
from fngw_builder.report import Report

T = TypeVar("T")

#: What a replica imports, by its names on PyPI. No versions: the user's pins decide.
REQUIRED = frozenset({"cloudpickle", "redis", "starlette", "uvicorn"})
#: What makes it faster, and is left out where it does not fit.
PREFERRED = frozenset({"httptools", "uvloop"})
#: conda's names, where they differ.
CONDA_NAMES = {"redis": "redis-py"}


def solve(
    requirements: Requirements, target: Target, sources: Sources, report: Report, wheels_dir: Path | None = None
) -> Lock:
    """Return what the requirements come to, now: every package by version and hash.

    Args:
        sources: serving these requirements, see `Sources.serving`.
        report: gets lines, the step ``solve``, and those of `link` where pip's part must fit conda's.
        wheels_dir: the folder of the bundle's wheels, if the requirements name any.

    Raises:
        BuildFailed: ``environment_unsolvable`` (by itself), ``runtime_conflict`` (with what replicas need),
            ``package_not_found``, ``python_not_found``, ``sdist_only``, ``hash_mismatch``, ``hash_missing``,
            ``environment_invalid``, ``channel_unreachable``, ``index_unreachable``, ``disk_full``, and those of
            `link`.
    """
    began = time.monotonic()
    report.progress("solve")
    conda, left = _conda(requirements, target, sources)
    lock = Lock(requirements.python, target.subdir, target.glibc, target.cuda, conda)
    if requirements.pip or left & REQUIRED:
        present = provided(lock, target, sources, report)
        report.progress("solve")
        with _folder(wheels_dir) as bundle:
            pip, wheels = _pip(requirements, target, sources, present, bundle, left)
        lock = replace(lock, pip=pip, wheels=wheels)
    report.say(f"solved: {_count(lock)} in {time.monotonic() - began:.1f} s")
    for warning in cuda.warnings(lock):
        report.say(protocol.WARNING_LINE + warning)
    return lock


@contextmanager
def _folder(given: Path | None) -> Iterator[Path]:
    """An empty folder where none is given: uv reads settings from the current one and those above."""
    if given is not None:
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="fngw-solve-") as name:
        yield Path(name)


def choices(needs: frozenset[str]) -> Iterator[frozenset[str]]:
    """Yield what to try to have of the needs: all, then ever less of what is only preferred.

    Example:
        >>> [sorted(choice) for choice in choices(frozenset({"redis", "httptools", "uvloop"}))]
        [['httptools', 'redis', 'uvloop'], ['httptools', 'redis'], ['redis', 'uvloop'], ['redis']]
    """
    required, preferred = needs & REQUIRED, sorted(needs & PREFERRED)
    tried = [frozenset(preferred), *(frozenset({one}) for one in preferred), frozenset[str]()]
    for some in dict.fromkeys(tried):
        yield required | some


@dataclass(frozen=True)
class Fit(Generic[T]):
    """An answer, the ``needs`` that it has, and why it has not all of those that are required."""

    answer: T
    needs: frozenset[str]
    conflict: NoSolution | None = None


def fit(attempt: Callable[[frozenset[str]], T], needs: frozenset[str]) -> Fit[T]:
    """Return the answer with as many of the needs as there is one with: all, then fewer, none in the end.

    That there is none at all is found out at the second try, not at the last.

    Raises:
        NoSolution: there is no answer even without needs.
    """
    everything, *less = choices(needs)
    try:
        return Fit(attempt(everything), everything)
    except NoSolution as reason:
        conflict = reason
    alone = attempt(frozenset())
    for some in less:
        try:
            return Fit(attempt(some), some)
        except NoSolution as reason:
            conflict = reason
    return Fit(alone, frozenset(), conflict)


def _conda(
    requirements: Requirements, target: Target, sources: Sources
) -> tuple[tuple[CondaPackage, ...], frozenset[str]]:
    """Return conda's packages, and which needs are left for pip: what the channels lack, or cannot make fit.

    Where pip is asked for something, all are: its requirements may pin what conda would bring another version of.
    """
    everything = REQUIRED | PREFERRED
    if requirements.conda is None:
        return (), everything
    solver = CondaSolver(requirements.python, requirements.conda, requirements.channels, target, sources)
    names = {} if requirements.pip else {CONDA_NAMES.get(need, need): need for need in everything}
    offered = frozenset(names[name] for name in solver.known(names))
    try:
        found = fit(lambda some: solver.solve(sorted(CONDA_NAMES.get(need, need) for need in some)), offered)
    except NoSolution as reason:
        raise solver.explain(reason) from None
    return found.answer, everything - found.needs


def _pip(
    requirements: Requirements,
    target: Target,
    sources: Sources,
    present: tuple[Distribution, ...],
    bundle: Path,
    needs: frozenset[str],
) -> tuple[tuple[PipPackage, ...], tuple[LocalWheel, ...]]:
    solver = PipSolver(requirements, target, sources, present, bundle)
    try:
        found = fit(lambda some: solver.solve(sorted(some)), needs - {one.name for one in present})
    except NoSolution as reason:
        raise solver.explain(reason) from None
    if found.conflict:
        raise runtime_conflict(found.conflict)
    return found.answer


def runtime_conflict(reason: NoSolution) -> BuildFailed:
    """Return the error for requirements that have an answer, but none with what replicas need."""
    needs = ", ".join(sorted(REQUIRED))
    return BuildFailed(
        f"what is asked for does not fit with what every replica needs ({needs}): {reason.head}",
        code="runtime_conflict",
        hint="the requirements alone have an answer: loosen the version that is named; replicas take any of theirs",
        detail=reason.rest,
    )


def _count(lock: Lock) -> str:
    counts = [(len(lock.conda), "conda package"), (len(lock.pip) + len(lock.wheels), "wheel")]
    return " and ".join(f"{n} {what}{'' if n == 1 else 's'}" for n, what in counts if n) or "nothing"
