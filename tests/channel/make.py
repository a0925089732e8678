"""Make the tests' conda channel and package index, once per machine, and keep them.

CPythons of this machine (pythons.py), the wheels of what a replica needs, fetched with the machine's own pip and
repackaged (wheels.py), and toys (toys.py, index.py). Parts and whole trees are kept in a cache folder, under the
digest of what they are made from; a lock makes parallel test processes wait instead of building twice.

    python -m tests.channel.make [--python 3.11 ...] [--also REQUIREMENT ...]
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .conda import Archive, Listed, conda_archive, write_channel
from .index import toy_distributions, write_index
from .pythons import Interpreter, default_xy, interpreter, python_package
from .toys import toy_archives
from .wheels import conda_from_wheel, fetch

_REPOSITORY = Path(__file__).parents[2]
_NEEDS = _REPOSITORY / "runtime-image" / "needs.in"
CACHE = _REPOSITORY / ".cache" / "channel"
_MAKERS = {"conda", "index", "make", "pythons", "toys", "wheels"}
_KEPT = (
    24  # entries of the cache, the most recently used ones; a part is about 20 MB, a tree shares its parts' files
)


@dataclass(frozen=True)
class Tree:
    """The folder that holds the channel and the index. Never write into it: it is shared by all tests of a machine.

    Args:
        root: what to serve.
        pythons: the X.Y that the channel has.
    """

    root: Path
    pythons: tuple[str, ...]

    @property
    def conda(self) -> Path:
        """The conda channel."""
        return self.root / "conda"

    @property
    def simple(self) -> Path:
        """The package index."""
        return self.root / "simple"

    def copy(self, to: Path) -> Tree:
        """A copy of one's own to spoil, in the new folder `to`."""
        return Tree(Path(shutil.copytree(self.root, to)), self.pythons)


def make_tree(pythons: tuple[str, ...] = (), also: tuple[str, ...] = (), cache: Path = CACHE) -> Tree:
    """The channel and the index for these Pythons, made now or taken from the cache.

    Args:
        pythons: the X.Y to have, each with what a replica needs; () is the one that is easiest to have.
        also: requirements to resolve and add for each X.Y besides, such as `starlette==0.13.*`.
        cache: where to keep it.

    Raises:
        NoPython: this machine lacks one of them.

    Example:
        >>> make_tree(("3.11", "3.8")).conda       # doctest: +SKIP
    """
    sources = [interpreter(xy) for xy in pythons or (default_xy(),)]
    with ThreadPoolExecutor(2) as pool:
        parts = list(pool.map(lambda source: _part(source, also, cache), sources))
    key = _digest(*(part.name for part in parts), _own_source())
    root = _kept(cache, f"tree-{key}", lambda folder: _assemble(folder, parts))
    return Tree(root, tuple(source.xy for source in sources))


def _part(source: Interpreter, also: tuple[str, ...], cache: Path) -> Path:
    """One Python and its wheels, as packages: `archives/` with `records.json`, and `wheels/`."""
    key = _digest(source.version, str(source.prefix), _NEEDS.read_text(), *also, _own_source())

    def fill(folder: Path) -> None:
        wheels = _fetch_all(source.xy, also, folder / "wheels")
        packages = [python_package(source), *(conda_from_wheel(wheel, source.xy) for wheel in wheels)]
        _write_archives(folder, [conda_archive(package) for package in packages])

    return _kept(cache, f"py{source.xy}-{key}", fill)


def _fetch_all(xy: str, also: tuple[str, ...], folder: Path) -> list[Path]:
    """The newest of the needs; and the others resolved apart, together with the needs, as they may be older."""
    folder.mkdir()
    needs = _NEEDS.read_text().split()
    for wanted in (needs, *([needs + list(also)] if also else [])):
        fetch(wanted, xy, folder)
    return sorted(folder.glob("*.whl"))


def _write_archives(folder: Path, archives: list[Archive]) -> None:
    (folder / "archives").mkdir()
    for archive in archives:
        (folder / "archives" / archive.file_name).write_bytes(archive.data)
    records = [(archive.subdir, archive.file_name, archive.record) for archive in archives]
    (folder / "records.json").write_text(json.dumps(records))


def _assemble(root: Path, parts: list[Path]) -> None:
    """A tree: the parts' archives as hard links, the toys, repodata, and the index."""
    records: list[Listed] = []
    for part in parts:
        for subdir, name, record in json.loads((part / "records.json").read_text()):
            records.append((subdir, name, record))
            target = root / "conda" / subdir / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.hardlink_to(part / "archives" / name)
    write_channel(root / "conda", toy_archives(), records)
    write_index(root, toy_distributions(), [wheel for part in parts for wheel in (part / "wheels").iterdir()])


def _kept(cache: Path, name: str, fill: Callable[[Path], None]) -> Path:
    """The cache's folder `name`, filled if it is not there; whole or not at all, whatever kills this process."""
    folder = cache / name
    cache.mkdir(parents=True, exist_ok=True)
    with _lock(cache / f"{name}.lock"):
        if not folder.is_dir():
            unfinished = cache / f".{name}"
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            fill(unfinished)
            unfinished.rename(folder)
            _forget_oldest(cache)
        os.utime(folder)
    return folder


def _forget_oldest(cache: Path) -> None:
    entries = sorted((path for path in cache.iterdir() if not path.name.startswith(".")), key=_used, reverse=True)
    folders = [path for path in entries if path.is_dir()]
    for old in folders[_KEPT:]:
        shutil.rmtree(old, ignore_errors=True)


def _used(path: Path) -> float:
    return path.stat().st_mtime


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _own_source() -> str:
    """Whatever decides the content, hence all modules but the server's."""
    return "".join(path.read_text() for path in sorted(Path(__file__).parent.glob("*.py")) if path.stem in _MAKERS)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def main() -> None:
    """Make a tree and say where it is."""
    parser = argparse.ArgumentParser(description="Make the tests' conda channel and package index.")
    parser.add_argument("--python", nargs="*", default=[])
    parser.add_argument("--also", nargs="*", default=[])
    options = parser.parse_args()
    started = time.perf_counter()
    tree = make_tree(tuple(options.python), tuple(options.also))
    print(f"{tree.root} (Python {', '.join(tree.pythons)}; {time.perf_counter() - started:.1f} s)")


if __name__ == "__main__":
    main()
