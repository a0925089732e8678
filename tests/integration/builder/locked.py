"""Locks of the tests' own channel and index, made without a solver, and what it takes to build from them."""

from __future__ import annotations

import hashlib
import json
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from tests.channel.make import Tree
from uv import find_uv_bin

from fngw_builder.environment.lock import CondaPackage, LocalWheel, Lock, PipPackage
from fngw_builder.environment.sources import Sources
from fngw_builder.environment.target import Target

SUBDIR, GLIBC = "linux-64", "2.36"
PREFIX = "/opt/fngw/env"
#: The channel's name in locks; its address is this below the alias.
CHANNEL = "conda"


class Told:
    """A report that keeps what it is told, and that all of it came from the main thread."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.steps: list[tuple[str, int | None, int | None, str]] = []

    def say(self, line: str) -> None:
        assert threading.current_thread() is threading.main_thread()
        self.lines.append(line)

    def progress(self, step: str, done: int | None = None, total: int | None = None, unit: str = "") -> None:
        assert threading.current_thread() is threading.main_thread()
        self.steps.append((step, done, total, unit))

    def of(self, step: str) -> list[tuple[int | None, int | None]]:
        """What was told of a step: how much of how much."""
        return [(done, total) for name, done, total, _ in self.steps if name == step]


@dataclass(frozen=True)
class Place:
    """Caches and folders for builds, as a machine of their own would have them."""

    folder: Path
    url: str

    @property
    def sources(self) -> Sources:
        """What is served at the URL, and this place's caches."""
        options = ("--index-url", f"{self.url}/simple/")
        (self.folder / "cache").mkdir(parents=True, exist_ok=True)
        return Sources(
            self.folder / "cache", Path(find_uv_bin()), channel_alias=self.url, pip_options=options, retries=1
        )

    def stage(self, name: str = "stage") -> Path:
        """A new, empty folder on the caches' disk."""
        stage = self.folder / "cache" / name / "env"
        stage.mkdir(parents=True)
        return stage


def target(prefix: str = PREFIX, interpreter: str = sys.executable) -> Target:
    return Target(SUBDIR, GLIBC, None, prefix, interpreter)


def conda_lock(tree: Tree, *names: str, python: str | None = None) -> Lock:
    """A lock of Python and packages by name; of several versions the last in the channel's order."""
    xy = python or tree.pythons[0]
    records = [one for subdir in (SUBDIR, "noarch") for one in _records(tree, subdir)]
    chosen = {r.name: r for r in records if r.name in names}
    chosen["python"] = next(r for r in records if r.name == "python" and r.version.startswith(f"{xy}."))
    assert set(names) <= set(chosen), "not in the channel"
    return Lock(xy, SUBDIR, GLIBC, conda=tuple(chosen.values()))


def _records(tree: Tree, subdir: str) -> list[CondaPackage]:
    data = json.loads((tree.conda / subdir / "repodata.json").read_bytes())
    kept = "name version build build_number sha256 md5 size noarch python_site_packages_path".split()
    return [
        CondaPackage(
            channel=CHANNEL,
            subdir=subdir,
            fn=fn,
            depends=tuple(record["depends"]),
            **{key: record[key] for key in kept if key in record},
        )
        for kind in ("packages", "packages.conda")
        for fn, record in data[kind].items()
    ]


def pip_packages(tree: Tree, *names: str) -> tuple[PipPackage, ...]:
    """What a lock says of the index's wheels, each given as ``name==version``."""
    return tuple(_pip_package(tree, *name.split("==")) for name in names)


def _pip_package(tree: Tree, name: str, version: str) -> PipPackage:
    wheels = (tree.root / "files").glob(f"{name.replace('-', '_')}-{version}-*.whl")
    return PipPackage(name, version, tuple(f"sha256:{sha256(wheel)}" for wheel in wheels))


def local_wheel(folder: Path, path: str) -> LocalWheel:
    """What a lock says of a wheel of the bundle that is unpacked in ``folder``."""
    name, version, *_ = Path(path).name.split("-")
    return LocalWheel(name.replace("_", "-"), version, path, sha256(folder / path))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def content(stage: Path) -> dict[str, bytes]:
    """All files of a folder, and where links point to."""
    return {
        str(path.relative_to(stage)): str(path.readlink()).encode() if path.is_symlink() else path.read_bytes()
        for path in stage.rglob("*")
        if path.is_symlink() or path.is_file()
    }
