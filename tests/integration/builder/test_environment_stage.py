"""From a lock to an environment: it runs, is the same bytes wherever it is made, and survives what goes wrong."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from tests.channel.make import Tree, make_tree
from tests.channel.pythons import default_xy, interpreter
from tests.channel.serve import FaultyServer
from tests.integration.builder.locked import (
    GLIBC,
    PREFIX,
    SUBDIR,
    Place,
    Told,
    conda_lock,
    content,
    pip_packages,
    target,
)

from fngw.errors import BuildFailed
from fngw_builder import tree_layer
from fngw_builder.environment.bytecode import LocalCompiler
from fngw_builder.environment.cache import Cache
from fngw_builder.environment.lock import Lock
from fngw_builder.environment.stage import materialise
from fngw_builder.environment.target import Target

XY = default_xy()
PIP = ("pip-greeter==1.0.0", "pip-legacylib==1.15.0")


@pytest.fixture(scope="module")
def tree() -> Tree:
    return make_tree()


@pytest.fixture
def server(tree: Tree) -> Iterator[FaultyServer]:
    with FaultyServer(tree.root) as server:
        yield server


@pytest.fixture
def place(tmp_path: Path, server: FaultyServer) -> Place:
    return Place(tmp_path, server.url)


@pytest.fixture(scope="module")
def locks(tree: Tree) -> dict[str, Lock]:
    packages = pip_packages(tree, *PIP)
    conda = replace(conda_lock(tree, "greeter", "prefixed", "bulky"), pip=packages)
    return {"conda": conda, "pip": Lock(XY, SUBDIR, GLIBC, pip=packages)}


@dataclass(frozen=True)
class Built:
    """Environments that were made once, for tests that only look."""

    place: Place
    stages: Mapping[str, Path]


@pytest.fixture(scope="module")
def built(tree: Tree, locks: dict[str, Lock], tmp_path_factory: pytest.TempPathFactory) -> Built:
    with FaultyServer(tree.root) as server:
        place = Place(tmp_path_factory.mktemp("built"), server.url)
        return Built(place, {kind: made(lock, place, kind, jobs=1) for kind, lock in locks.items()})


def base() -> Target:
    """For the interpreter that a pip-only environment lies on."""
    return target(interpreter=str(interpreter(XY).executable))


def made(
    lock: Lock, place: Place, name: str = "stage", where: Target | None = None, jobs: int | None = None
) -> Path:
    stage, told = place.stage(name), Told()
    assemble(lock, where or base(), stage, place, told, jobs)
    return stage


def assemble(lock: Lock, where: Target, stage: Path, place: Place, told: Told, jobs: int | None = None) -> None:
    materialise(lock, where, stage, place.sources, told)
    LocalCompiler(None, told, jobs).compile(stage, where.prefix)


def diff_id(stage: Path) -> str:
    return tree_layer.write(stage, PREFIX, io.BytesIO(), Told()).diff_id


def python(stage: Path, code: str) -> str:
    line = [str(stage / "bin" / "python"), "-c", code]
    return subprocess.run(line, env={}, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("kind", ["conda", "pip"])
def test_the_same_lock_is_the_same_layer_on_any_machine(
    kind: str, locks: dict[str, Lock], built: Built, tree: Tree, tmp_path: Path
) -> None:
    """Two machines: other caches, other addresses, another umask, other places, other numbers of processors."""
    before = os.umask(0o077)
    try:
        with FaultyServer(tree.root) as server:
            elsewhere = made(locks[kind], Place(tmp_path / "another" / "machine", server.url), "other", jobs=3)
    finally:
        os.umask(before)
    first, second = content(built.stages[kind]), content(elsewhere)
    assert [path for path in first | second if first.get(path) != second.get(path)] == []
    assert diff_id(built.stages[kind]) == diff_id(elsewhere)


def test_a_conda_environment_runs_with_both_of_its_parts(built: Built) -> None:
    stage = built.stages["conda"]
    code = "import sys, greeter, pip_greeter; greeter.main(); pip_greeter.main(); print(sys.prefix)"
    assert python(stage, code).splitlines() == ["hello from greeter", "hello from pip-greeter", str(stage)]


def test_a_pip_environment_lies_on_the_base(built: Built) -> None:
    stage = built.stages["pip"]
    code = "import sys, pip_greeter; pip_greeter.main(); print(sys.prefix); print(sys.base_prefix)"
    base_prefix = str(interpreter(XY).prefix)
    assert python(stage, code).splitlines() == ["hello from pip-greeter", str(stage), base_prefix]


@pytest.mark.parametrize("kind", ["conda", "pip"])
def test_it_runs_from_where_it_is_moved_to(kind: str, locks: dict[str, Lock], place: Place) -> None:
    final = place.folder / "envs" / "key"
    stage = made(locks[kind], place, where=replace(base(), prefix=str(final)))
    final.parent.mkdir()
    stage.rename(final)
    done = subprocess.run([final / "bin" / "pip-greet"], env={}, capture_output=True, text=True, check=True)
    assert done.stdout == "hello from pip-greeter\n"


@pytest.mark.parametrize("kind", ["conda", "pip"])
def test_python_reads_byte_code_for_all_and_writes_none(kind: str, built: Built) -> None:
    """So the first import is as fast as any after it."""
    stage = built.stages[kind]
    before = content(stage)
    line = [str(stage / "bin" / "python"), "-v", "-c", "import json, email.message, pip_greeter, pip_legacylib"]
    said = subprocess.run(line, env={}, capture_output=True, text=True, check=True).stderr
    assert content(stage) == before
    loads = [line.split(" from ")[1] for line in said.splitlines() if line.startswith("# code object from ")]
    inside = [path for path in loads if str(stage) in path]
    assert any("pip_greeter/__pycache__" in path for path in inside)
    assert [path for path in inside if not path.rstrip("'").endswith(".pyc")] == []
    assert "# wrote" not in said


def test_nothing_tells_where_it_was_made(built: Built) -> None:
    marks = (os.fsencode(built.place.folder), built.place.url.encode())
    for stage in built.stages.values():
        assert [path for path, data in content(stage).items() if any(mark in data for mark in marks)] == []


def test_conda_says_what_is_installed(built: Built) -> None:
    meta = built.stages["conda"] / "conda-meta"
    text = (meta / "greeter-1.0.0-pyh_0.json").read_text()
    assert '"channel": "conda"' in text
    assert '"url": "conda/noarch/greeter-1.0.0-pyh_0.conda"' in text
    assert (meta / "history").read_text() == ""


def test_the_caches_are_not_changed_by_what_is_made_of_them(locks: dict[str, Lock], built: Built) -> None:
    before = cached(built.place)
    made(locks["conda"], built.place, "again")
    assert cached(built.place) == before


def cached(place: Place) -> dict[str, tuple[bytes, int]]:
    folders = [*place.sources.packages.glob("*/"), *place.sources.uv_cache.glob("archive-v*/*")]
    return {
        str(path): (path.read_bytes(), path.stat().st_mode)
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


# -- when things go wrong ----------------------------------------------------------------------------------

BUILD = """
import sys
from pathlib import Path
from tests.integration.builder.locked import Place, Told, target
from fngw_builder.environment.cache import Cache
from fngw_builder.environment.lock import Lock
from fngw_builder.environment.stage import materialise

folder, url, lock, interpreter = sys.argv[1:]
place, told = Place(Path(folder), url), Told()
with Cache(place.sources.cache, 1 << 30).stage() as stage:
    print("begun", flush=True)
    where = target(interpreter=interpreter)
    materialise(Lock.from_text(lock), where, stage, place.sources, told)
"""


@pytest.mark.parametrize("slow", ["*bulky*.conda", "*pip_greeter*.whl"])
def test_a_build_that_is_killed_harms_no_later_one(
    locks: dict[str, Lock], built: Built, place: Place, server: FaultyServer, slow: str
) -> None:
    conda = locks["conda"]
    server.throttle(slow, bytes_per_s=100)  # a quarter of a minute at least: time to kill it in
    arguments = [str(place.folder), server.url, conda.to_text(), base().interpreter]
    with subprocess.Popen([sys.executable, "-c", BUILD, *arguments], cwd=Path(__file__).parents[3]) as build:
        server.forget()
        server.wait_sent(slow, 50, timeout=60)
        build.kill()
    server.heal()
    stages = place.sources.cache / "stage"
    assert list(stages.glob("*/"))
    with Cache(place.sources.cache, 1 << 30).stage() as stage:
        assert [path for path in stages.iterdir() if path.is_dir()] == [stage.parent]
        assemble(conda, base(), stage, place, Told())
        assert diff_id(stage) == diff_id(built.stages["conda"])


@pytest.mark.parametrize("kind", ["conda", "pip"])
def test_pruning_harms_no_build_under_way(kind: str, locks: dict[str, Lock], built: Built, place: Place) -> None:
    cache = Cache(place.sources.cache, 0)

    class Pruning(Told):
        def progress(self, step: str, done: int | None = None, total: int | None = None, unit: str = "") -> None:
            cache.prune()

    for _ in ("empty caches", "filled ones"):
        with cache.stage() as stage:
            assemble(locks[kind], base(), stage, place, Pruning())
            assert diff_id(stage) == diff_id(built.stages[kind])
    assert sum(cache.sizes().values()) > 0
    cache.prune()
    assert sum(cache.sizes().values()) == 0
    assert (made(locks[kind], place, "after") / "bin" / "pip-greet").exists()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk whose size can be changed."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1g", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def left(disk: Path, size: int) -> None:
    """Give a disk a size such that so many bytes are free."""
    now = os.statvfs(disk)
    used = (now.f_blocks - now.f_bfree) * now.f_frsize
    subprocess.run(["mount", "-o", f"remount,size={(used + size) // 1024}k", disk], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts disks")
@pytest.mark.parametrize("kind", ["conda", "pip"])
def test_a_full_disk_is_told_and_harms_no_later_build(
    kind: str, locks: dict[str, Lock], disk: Path, server: FaultyServer
) -> None:
    """At the download, and, once it gets further with all in the caches, at what comes later."""
    place = Place(disk, server.url)
    for stage in ("first", "second"):
        left(disk, 12 << 10)
        with pytest.raises(BuildFailed) as failed:
            made(locks[kind], place, stage)
        assert failed.value.code == "disk_full"
        assert "fngw prune" in failed.value.hint
        left(disk, 1 << 30)
        made(locks[kind], place, f"{stage}-whole")
    assert (disk / "cache" / "second-whole" / "env" / "bin" / "pip-greet").exists()
