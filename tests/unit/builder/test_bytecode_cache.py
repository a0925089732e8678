"""Byte-code that is kept: what comes out of the cache is what would have been compiled, and nothing stale does."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from fngw_builder.environment.bytecode import LocalCompiler
from fngw_builder.environment.bytecode_cache import CachingCompiler
from fngw_builder.environment.cache import Cache

PREFIX = "/opt/fngw/env"
LIBRARY = "lib/python3.11/site-packages"


class Silent:
    def say(self, line: str) -> None:
        raise AssertionError(line)

    def progress(self, *args: object) -> None:
        pass


class Counting:
    """A compiler that notes what it found to do."""

    def __init__(self) -> None:
        self._compiler = LocalCompiler(Path(sys.executable), Silent())
        self.calls: list[set[str]] = []

    def compile(self, stage: Path, prefix: str) -> None:
        before = made(stage)
        self._compiler.compile(stage, prefix)
        self.calls.append({path.split("/")[3] for path in made(stage).keys() - before.keys()})


def made(stage: Path) -> dict[str, bytes]:
    return {str(path.relative_to(stage)): path.read_bytes() for path in stage.rglob("*.pyc")}


def stage(folder: Path, *packages: str, **files: str) -> Path:
    """A stage with packages of the standard library, and modules of their own."""
    library = folder / LIBRARY
    library.mkdir(parents=True)
    for name in packages:
        source = Path(shutil.__file__).with_name(name)
        shutil.copytree(source, library / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in files.items():
        (library / f"{name}.py").write_text(text)
    return folder


@pytest.fixture
def compiler() -> Counting:
    return Counting()


@pytest.fixture
def caching(compiler: Counting, tmp_path: Path) -> CachingCompiler:
    return CachingCompiler(compiler, tmp_path / "cache", "a python")


def test_a_second_environment_compiles_only_what_the_first_had_not(
    caching: CachingCompiler, compiler: Counting, tmp_path: Path
) -> None:
    caching.compile(stage(tmp_path / "a", "email", "json", six="x = 1\n"), PREFIX)
    second = stage(tmp_path / "b", "email", "json", "logging", six="x = 1\n")
    caching.compile(second, PREFIX)
    assert compiler.calls == [{"email", "json", "__pycache__"}, {"logging"}]
    caching.compile(stage(tmp_path / "c", "email", "logging"), PREFIX)
    assert len(compiler.calls) == 2
    alone = stage(tmp_path / "d", "email", "json", "logging", six="x = 1\n")
    compiler.compile(alone, PREFIX)
    assert made(second) == made(alone)


def test_a_file_that_cannot_be_compiled_is_not_tried_for_ever(
    caching: CachingCompiler, compiler: Counting, tmp_path: Path
) -> None:
    for name in "ab":
        caching.compile(stage(tmp_path / name, "json", broken="print 'x'\n"), PREFIX)
    assert len(compiler.calls) == 1


@pytest.mark.parametrize("what", ["source", "interpreter", "prefix"])
def test_what_decides_the_byte_code_decides_whether_it_is_taken(
    what: str, caching: CachingCompiler, compiler: Counting, tmp_path: Path
) -> None:
    caching.compile(stage(tmp_path / "a", one="x = 1\n"), PREFIX)
    if what == "interpreter":
        caching = CachingCompiler(compiler, tmp_path / "cache", "another")
    text = "x = 2\n" if what == "source" else "x = 1\n"
    caching.compile(stage(tmp_path / "b", one=text), "/elsewhere" if what == "prefix" else PREFIX)
    assert len(compiler.calls) == 2


def test_damaged_byte_code_is_made_again(caching: CachingCompiler, compiler: Counting, tmp_path: Path) -> None:
    first = stage(tmp_path / "a", "json")
    caching.compile(first, PREFIX)
    right = made(first)
    shutil.rmtree(first)
    kept = next((tmp_path / "cache").rglob("decoder*.pyc"))
    kept.write_bytes(b"")
    second = stage(tmp_path / "b", "json")
    caching.compile(second, PREFIX)
    assert made(second) == right
    third = stage(tmp_path / "c", "json")
    caching.compile(third, PREFIX)
    assert made(third) == right
    assert len(compiler.calls) == 2


def test_it_counts_and_goes_as_all_that_is_cached(caching: CachingCompiler, tmp_path: Path) -> None:
    caching.compile(stage(tmp_path / "a", "json"), PREFIX)
    cache = Cache(tmp_path / "cache", 0)
    assert cache.sizes()["bytecode"] > 20_000
    assert cache.trim() > 20_000
    assert cache.sizes()["bytecode"] == 0
