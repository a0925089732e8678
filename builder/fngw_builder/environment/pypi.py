"""Solving pip's part with uv: requirements in, wheels with their hashes out; and why not, when there is no answer.

uv resolves for the target without the target's Python, and builds nothing: wheels only.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from packaging.utils import canonicalize_name

from fngw.errors import BuildFailed
from fngw_builder.environment import disk
from fngw_builder.environment.lock import LocalWheel, PipPackage
from fngw_builder.environment.pip_lines import WHEEL_HINT, wheel_name
from fngw_builder.environment.provided import Distribution, write_stubs
from fngw_builder.environment.pypi_names import installed_as, meant
from fngw_builder.environment.requirements import Requirements
from fngw_builder.environment.sources import Sources, redact
from fngw_builder.environment.target import Target
from fngw_builder.environment.unsolvable import NoSolution

NO_SOLUTION = "No solution found when resolving dependencies"
#: What uv says when an index does not answer as one.
UNREACHABLE = ("Failed to fetch", "Request failed", "error sending request", "Failed to download")
NO_LOGIN = "lack of valid authentication credentials"
_UNKNOWN = re.compile(
    r"(?:Because |and )(\S+) was not found in the (?:package registry|provided package locations)"
)
_NO_WHEEL = re.compile(r"Wheels are required for `([^`]+)`")
_MARGIN = re.compile(r"^ {0,9}(?:(?:error:|cause:|×|╰─▶|├─▶|│)\s*)?")
_HASH = re.compile(r"--hash=(sha256:[0-9a-f]{64})")


class PipSolver:
    """Answers requirements from indexes, for a target.

    Args:
        requirements: what the user asks for.
        sources: serving these requirements.
        present: what conda has installed.
        bundle: the folder of the bundle's wheels, in one that is this build's own.

    Raises:
        BuildFailed: ``environment_invalid``: a wheel of the bundle is not there, or a variable is not set.

    Example:
        >>> solver = PipSolver(requirements, target, sources.serving(requirements), (), folder)
        >>> packages, wheels = solver.solve()
    """

    def __init__(
        self,
        requirements: Requirements,
        target: Target,
        sources: Sources,
        present: Sequence[Distribution],
        bundle: Path,
    ) -> None:
        self._requirements = requirements
        self._target = target
        self._sources = sources
        self._present = present
        self._bundle = bundle
        sources.check_variables(requirements.addresses)
        self._secrets = sources.secrets(requirements.addresses)
        self._wheels = {_sha256(path): path.relative_to(bundle).as_posix() for path in self._local(bundle)}

    def solve(self, needs: Iterable[str] = ()) -> tuple[tuple[PipPackage, ...], tuple[LocalWheel, ...]]:
        """Return the wheels that satisfy the requirements and ``needs``: from elsewhere, and from the bundle.

        Raises:
            NoSolution: they do not fit together.
            BuildFailed: ``index_unreachable``, ``hash_mismatch``, ``environment_invalid`` or ``disk_full``.
        """
        with tempfile.TemporaryDirectory(prefix="fngw-solve-", dir=self._bundle.parent) as name:
            stubs = Path(name)
            constraints = stubs / "present.txt"
            constraints.write_text("\n".join(write_stubs(self._present, stubs)))
            lines = [*self._sources.index_lines(), *self._requirements.pip, *needs]
            text = self._run("\n".join(lines), constraints)
            found = [one for one in _entries(text) if stubs.as_uri() not in one.what]
        kept = _with_given_hashes(found, self._requirements.pip)
        wheels = tuple(filter(None, map(self._wheel, kept)))
        local = {wheel.name for wheel in wheels}
        return tuple(_package(one) for one in kept if one.name not in local), wheels

    def explain(self, reason: NoSolution) -> BuildFailed:
        """Return the error that says why the user's own requirements have no answer.

        Returns:
            ``package_not_found``, ``sdist_only``, ``index_unreachable`` or ``environment_unsolvable``.
        """
        if NO_LOGIN in reason.notes:
            return BuildFailed(
                "an index wants another login",
                code="index_unreachable",
                hint="write https://user:${NAME}@host/…, and set the variable NAME where fngw is started",
                detail=reason.notes,
            )
        return self._not_found(reason) or _no_wheels(reason) or self._incompatible(reason)

    # Running uv.

    def _run(self, text: str, constraints: Path) -> str:
        command = [str(self._sources.uv), "pip", "compile", "-", "--python", sys.executable]
        command += ["--python-version", self._requirements.python, "--python-platform", self._target.uv_platform]
        command += ["--only-binary", ":all:", "--generate-hashes", "--constraints", str(constraints)]
        command += ["--no-emit-index-url", "--no-header", "--no-annotate", *self._sources.uv_arguments()]
        done = subprocess.run(
            command,
            input=text,
            capture_output=True,
            text=True,
            encoding="utf-8",
            cwd=self._bundle,
            env=self._sources.uv_environment(),
        )
        if done.returncode:
            raise self._failure(redact(done.stderr, self._secrets))
        return done.stdout

    def _failure(self, text: str) -> Exception:
        if NO_SOLUTION in text or "conflicting URLs" in text:
            return _no_solution(text)
        if disk.is_full(text):
            return disk.full(text, self._sources.cache)
        if any(sign in text for sign in UNREACHABLE):
            return _unreachable(text)
        message = f"pip's requirements cannot be read: {_plain(text).splitlines()[0]}"
        return BuildFailed(message, code="environment_invalid", detail=_plain(text))

    # The bundle.

    def _local(self, bundle: Path) -> Iterator[Path]:
        """Yield the wheels that may come from the bundle."""
        for path in self._requirements.wheels:
            if not (bundle / path).is_file():
                raise _missing(f"the wheel {path}")
            yield bundle / path
        for option, value in pairwise(self._requirements.pip_options):
            if option == "--find-links" and value.startswith("./"):
                if not (bundle / value).is_dir():
                    raise _missing(f"a wheel in the folder {value}")
                yield from sorted((bundle / value).glob("*.whl"))

    def _wheel(self, one: _Entry) -> LocalWheel | None:
        path = next((self._wheels[digest] for digest in one.digests if digest in self._wheels), None)
        if path is None:
            return None
        name, version = wheel_name(path)
        digest = next(digest for digest in one.digests if digest in self._wheels)
        return LocalWheel(name, version, path, digest)

    # Errors.

    def _not_found(self, reason: NoSolution) -> BuildFailed | None:
        names = list(dict.fromkeys(_UNKNOWN.findall(reason.tree)))
        if not names:
            return None
        own = [_name(line) for line in self._requirements.pip]
        asked = "" if names[0] in own else ", which another package requires"
        return BuildFailed(
            f"no index has a package called {names[0]}{asked}",
            code="package_not_found",
            hint=meant(names[0]) or "check the spelling: the name to install may differ from the one to import",
            detail=reason.tree,
        )

    def _incompatible(self, reason: NoSolution) -> BuildFailed:
        pinned = [one for one in self._present if re.search(rf"\b{re.escape(one.name)}\b", reason.tree)]
        listed = ", ".join(f"{one.name} {one.version}" for one in pinned)
        hint = f"conda installs {listed}: ask conda for another version, or pip for one that fits" if pinned else ""
        return BuildFailed(
            f"what pip is asked for does not fit together: {reason.head}",
            code="environment_unsolvable",
            hint=hint or "loosen one of the versions that are named",
            detail=reason.rest,
        )


def _no_wheels(reason: NoSolution) -> BuildFailed | None:
    names = list(dict.fromkeys(_NO_WHEEL.findall(reason.notes)))
    if not names:
        return None
    return BuildFailed(
        f"there is no wheel for this Python and platform of {', '.join(names)}, only sources",
        code="sdist_only",
        hint=installed_as(names[0]) or WHEEL_HINT,
        detail=reason.tree,
    )


def _unreachable(text: str) -> BuildFailed:
    host = re.search(r"https?://(?:[^/@\s]+@)?([^/\s`)]+)", text)
    return BuildFailed(
        f"the index at {host.group(1) if host else 'its address'} cannot be reached",
        code="index_unreachable",
        hint="it was tried several times; see that the builder reaches it, then deploy again",
        detail=_plain(text),
    )


def _missing(what: str) -> BuildFailed:
    return BuildFailed(
        f"pip: {what} is not in the sources that were sent",
        code="environment_invalid",
        hint="paths are relative to the working_dir; see that neither .gitignore nor .fngwignore leaves it out",
    )


def _no_solution(text: str) -> NoSolution:
    lines = [line for line in _plain(text).splitlines() if NO_SOLUTION not in line]
    notes = [line for line in lines if line.startswith("hint:")]
    return NoSolution("\n".join(line for line in lines if line not in notes), "\n".join(notes))


def _plain(text: str) -> str:
    """uv's message without its drawing, its margin and its warnings."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("warning:")]
    return "\n".join(_MARGIN.sub("", line) for line in lines) or "uv said nothing"


# -- what uv answers --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Entry:
    """One package of the answer: what is written before its hashes, and these."""

    what: str
    hashes: tuple[str, ...]

    @property
    def name(self) -> str:
        return _name(self.what)

    @property
    def digests(self) -> tuple[str, ...]:
        return tuple(value.removeprefix("sha256:") for value in self.hashes)


def _entries(text: str) -> Iterator[_Entry]:
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip() and not line.startswith("#"):
            yield _Entry(re.split(r"\s+--hash=", line, maxsplit=1)[0].strip(), tuple(_HASH.findall(line)))


def _package(one: _Entry) -> PipPackage:
    left, at, url = one.what.partition(" @ ")
    name = canonicalize_name(left.partition("==")[0].strip())
    if at:
        address = url.partition("#")[0].strip()
        return PipPackage(name, wheel_name(address)[1], one.hashes, address)
    return PipPackage(name, left.partition("==")[2].strip(), one.hashes)


def _name(line: str) -> str:
    """The normalised name of what a line asks for; that of a wheel is in its file's name."""
    path = re.match(r"\S+\.whl", line)
    if path and " @ " not in line:
        return wheel_name(path.group())[0]
    return canonicalize_name(re.split(r"[\s\[<>=!~;@]", line.strip(), maxsplit=1)[0])


def _with_given_hashes(found: Iterable[_Entry], lines: Iterable[str]) -> list[_Entry]:
    """Leave only the hashes that the user gave, where there are any.

    Raises:
        BuildFailed: ``hash_mismatch``: none of them is one that the index knows.
    """
    given: Mapping[str, set[str]] = {_name(line): set(_HASH.findall(line)) for line in lines if "--hash=" in line}
    kept = []
    for one in found:
        wanted = given.get(one.name) or set(one.hashes)
        hashes = tuple(value for value in one.hashes if value in wanted)
        if not hashes:
            raise BuildFailed(
                f"no file of {one.what} has a hash that the requirements give",
                code="hash_mismatch",
                hint="the file was changed, or the hashes are those of another version: write them anew",
            )
        kept.append(_Entry(one.what, hashes))
    return kept


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
