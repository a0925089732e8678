"""Byte-code that was made before, kept by package: compiling is most of what an environment takes.

What a package's byte-code comes to is decided by its sources, their final paths, the interpreter and the script, so
these name it. Its files are hard links, as all of the caches' are. Neighbours: `bytecode`, `cache`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from fngw_builder.environment import bytecode_script, cache
from fngw_builder.environment.bytecode import Compiler

log = logging.getLogger(__name__)

FOLDER = "bytecode"
#: What a kept package's byte-code must be, in the folder of its own.
DIGEST = "digest"


class CachingCompiler:
    """A ``bytecode.Compiler`` that has another one compile what is not in the cache.

    Args:
        compiler: the other.
        folder: of the caches, on the disk of the stages.
        interpreter: names the Python that compiles, to its last detail.
    """

    def __init__(self, compiler: Compiler, folder: Path, interpreter: str) -> None:
        self._compiler = compiler
        self._cache = folder
        self._folder = folder / FOLDER
        self._interpreter = interpreter
        self._script = _hash(Path(bytecode_script.__file__))

    def compile(self, stage: Path, prefix: str) -> None:
        """See ``bytecode.Compiler``."""
        kept = {self._key(stage, prefix, paths): paths for paths in packages(stage)}
        cache.use(self._cache, (self._folder / key for key in kept))
        missing = {key: paths for key, paths in kept.items() if not self._take(key, stage)}
        if missing:
            self._compiler.compile(stage, prefix)
        for key, paths in missing.items():
            self._keep(key, stage, paths)

    def _key(self, stage: Path, prefix: str, paths: list[str]) -> str:
        sources = [(path, _hash(stage / path)) for path in paths]
        return _digest(self._script, self._interpreter, prefix, sources)

    def _take(self, key: str, stage: Path) -> bool:
        """Put a package's byte-code into the stage, if it is kept and whole."""
        own = self._folder / key
        try:
            expected = (own / DIGEST).read_text()
        except FileNotFoundError:
            return False
        found = sorted(str(path.relative_to(own)) for path in own.rglob("*.pyc"))
        if _digest([(path, _hash(own / path)) for path in found]) != expected:
            log.warning("%s is damaged; its package is compiled again", own)
            cache.remove(own)
            return False
        for path in found:
            _link(own / path, stage / path)
        return True

    def _keep(self, key: str, stage: Path, paths: list[str]) -> None:
        new = self._folder / f".{secrets.token_hex(8)}"
        try:
            new.mkdir(parents=True)
            made = sorted(compiled(stage, paths).values())
            for path in made:
                _link(stage / path, new / path)
            (new / DIGEST).write_text(_digest([(path, _hash(new / path)) for path in made]))
            new.rename(self._folder / key)
        except (
            OSError
        ) as error:  # another build kept the same meanwhile, or the disk is full: the next one compiles
            log.info("byte-code is not kept: %s", error)
            cache.remove(new)


def packages(stage: Path) -> Iterable[list[str]]:
    """Return the modules of each package, sorted, relative to the stage."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in modules(stage):
        found[bytecode_script.package(path)].append(path)
    return found.values()


def modules(stage: Path) -> list[str]:
    """Return the paths of all that `bytecode_script` would compile, sorted, relative to the stage."""
    found = []
    for folder, _, names in os.walk(stage / "lib"):
        inside = folder[len(str(stage)) + 1 :]
        paths = (f"{inside}/{name}" for name in names if name.endswith(".py"))
        found += [path for path in paths if bytecode_script.package(path) and _is_file(stage / path)]
    return sorted(found)


def compiled(stage: Path, paths: Iterable[str]) -> dict[str, str]:
    """Return those of some modules that have byte-code, each with where that is."""
    wanted = set(paths)
    found = {}
    for folder in sorted({path.rpartition("/")[0] for path in wanted}):
        for made in (stage / folder / "__pycache__").glob("*.pyc"):
            module = f"{folder}/{made.name.rsplit('.', 2)[0]}.py"
            if module in wanted:
                found[module] = f"{folder}/__pycache__/{made.name}"
    return found


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.hardlink_to(source)


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
