"""What conda's packages bring that pip must leave alone: their distributions, read from their metadata.

The names differ between conda and PyPI, so that only the packages themselves can say. For uv's solver each becomes
a wheel without files, which is pinned: what pip installs on top then fits what conda has installed.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path

from packaging.utils import canonicalize_name

from fngw_builder.environment.cache import Cache
from fngw_builder.environment.link import link
from fngw_builder.environment.lock import CondaPackage, Lock
from fngw_builder.environment.sources import Sources
from fngw_builder.environment.target import Target
from fngw_builder.report import Report

#: What a package that runs on Python depends on.
PYTHON = ("python", "python_abi")


@dataclass(frozen=True)
class Distribution:
    """An installed distribution.

    Args:
        name: normalised.
        extras: what each of its extras requires, as lines of metadata.
    """

    name: str
    version: str
    extras: tuple[str, ...] = ()


def provided(lock: Lock, target: Target, sources: Sources, report: Report) -> tuple[Distribution, ...]:
    """Return the distributions in the conda packages of a lock, which are downloaded for it.

    Raises:
        BuildFailed: as for `link`.
    """
    packages = tuple(package for package in lock.conda if _runs_on_python(package))
    if len(packages) < 2:
        return ()
    with Cache(sources.cache, limit=0).stage() as stage:
        link(replace(lock, conda=packages), target, stage, sources, report)
        return tuple(distributions(stage / site_packages(lock)))


def site_packages(lock: Lock) -> str:
    """Return where Python looks for packages, relative to the prefix."""
    given = [package.python_site_packages_path for package in lock.conda if package.name == "python"]
    return (given[0] if given else None) or f"lib/python{lock.python}/site-packages"


def distributions(folder: Path) -> Iterator[Distribution]:
    """Yield what is installed in a ``site-packages``, each once."""
    files = [*folder.glob("*.dist-info/METADATA"), *folder.glob("*.egg-info/PKG-INFO"), *folder.glob("*.egg-info")]
    seen = set()
    for file in sorted(file for file in files if file.is_file()):
        found = _read(HeaderParser().parsestr(file.read_text("utf-8", "replace"), headersonly=True))
        if found is not None and found.name not in seen:
            seen.add(found.name)
            yield found


def write_stubs(found: Iterable[Distribution], folder: Path) -> list[str]:
    """Write a wheel without files for each, and return requirements for exactly these."""
    lines = []
    for distribution in found:
        path = folder / f"{distribution.name.replace('-', '_')}-{distribution.version}-py3-none-any.whl"
        _write_stub(path, distribution)
        lines.append(f"{distribution.name} @ {path.as_uri()}")
    return lines


def _runs_on_python(package: CondaPackage) -> bool:
    names = {dependency.split(" ")[0].split("=")[0] for dependency in package.depends}
    return package.name == "python" or package.noarch == "python" or bool(names & set(PYTHON))


def _read(metadata: Message) -> Distribution | None:
    name, version = metadata["Name"], metadata["Version"]
    if not name or not version:
        return None
    extras = [f"Provides-Extra: {extra}" for extra in metadata.get_all("Provides-Extra") or ()]
    requires = [f"Requires-Dist: {line}" for line in metadata.get_all("Requires-Dist") or () if "extra" in line]
    return Distribution(canonicalize_name(name), version.strip(), (*extras, *requires))


def _write_stub(path: Path, distribution: Distribution) -> None:
    """What it requires is left out: conda has seen to that. What its extras require is not."""
    info = path.name.removesuffix("-py3-none-any.whl") + ".dist-info"
    metadata = ["Metadata-Version: 2.1", f"Name: {distribution.name}", f"Version: {distribution.version}"]
    wheel = ["Wheel-Version: 1.0", "Generator: fngw", "Root-Is-Purelib: true", "Tag: py3-none-any"]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{info}/METADATA", "\n".join([*metadata, *distribution.extras, ""]))
        archive.writestr(f"{info}/WHEEL", "\n".join([*wheel, ""]))
        archive.writestr(f"{info}/RECORD", "")
