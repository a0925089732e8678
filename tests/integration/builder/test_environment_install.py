"""Installing the pip part from a real index with the real uv: the same files wherever it is done."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from tests.channel.make import Tree, make_tree
from tests.channel.serve import FaultyServer
from tests.integration.builder.locked import (
    GLIBC,
    PREFIX,
    SUBDIR,
    Place,
    Told,
    content,
    local_wheel,
    pip_packages,
    target,
)

from fngw.errors import BuildFailed
from fngw_builder.environment import skeleton, wheel_files
from fngw_builder.environment.install import install
from fngw_builder.environment.lock import Lock

OWN = "%d.%d" % sys.version_info[:2]
#: A wheel of everything that a wheel can have.
ODD = {
    "odd/__init__.py": "def main():\n    print('odd')\n",
    "odd/quoted, name.txt": "",
    "odd-1.0.dist-info/entry_points.txt": "[console_scripts]\nodd = odd:main\n",
    "odd-1.0.data/headers/odd.h": "// odd\n",
    "odd-1.0.data/data/share/odd/data.txt": "data\n",
    "odd-1.0.data/scripts/odd-python": "#!python\nprint('script')\n",
    "odd-1.0.data/scripts/odd-shell": "#!/bin/sh\necho shell\n",
    "odd-1.0.data/scripts/odd-binary": "\x7fELF",
    "odd-1.0.data/purelib/odd_pure.py": "",
}


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


@pytest.fixture
def greeting(tree: Tree) -> Lock:
    return Lock(OWN, SUBDIR, GLIBC, pip=pip_packages(tree, "pip-greeter==1.0.0", "pip-legacylib==1.15.0"))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle's folder with the odd wheel."""
    make_wheel(tmp_path / "bundle" / "wheels" / "odd-1.0-py3-none-any.whl", ODD)
    return tmp_path / "bundle"


def make_wheel(path: Path, files: Mapping[str, str | bytes]) -> None:
    name, version, *_ = path.name.split("-")
    info = f"{name}-{version}.dist-info"
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file, data in files.items():
            archive.writestr(file, data)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")


def installed(
    lock: Lock, place: Place, wheels: Path | None = None, name: str = "stage", prefix: str = PREFIX
) -> tuple[Path, Told]:
    told, stage = Told(), place.stage(name)
    skeleton.write(stage, lock.python, os.path.realpath(sys.executable))
    install(lock, target(prefix), stage, place.sources, told, wheels)
    return stage, told


def refused(lock: Lock, place: Place, wheels: Path | None = None) -> BuildFailed:
    with pytest.raises(BuildFailed) as failed:
        installed(lock, place, wheels, "refused")
    return failed.value


def library(stage: Path, python: str = OWN) -> Path:
    return stage / "lib" / f"python{python}" / "site-packages"


def test_the_environment_runs(greeting: Lock, place: Place) -> None:
    place_of_stage = place.folder / "cache" / "stage" / "env"
    stage, told = installed(greeting, place, prefix=str(place_of_stage))
    assert stage == place_of_stage
    for script in ("pip-greet", "pip-greet-script"):
        done = subprocess.run([stage / "bin" / script], capture_output=True, text=True, check=True)
        assert done.stdout.strip() in ("hello from pip-greeter", str(stage / "bin" / "python"))
    assert told.of("install") == [(0, 2), (2, 2)]


def test_scripts_name_the_final_interpreter_and_records_are_right(place: Place, bundle: Path) -> None:
    lock = Lock(OWN, SUBDIR, GLIBC, wheels=(local_wheel(bundle, "wheels/odd-1.0-py3-none-any.whl"),))
    stage, _ = installed(lock, place, bundle)
    scripts = {
        name: (stage / "bin" / name).read_text() for name in ("odd", "odd-python", "odd-shell", "odd-binary")
    }
    assert scripts["odd"].startswith(f"#!{PREFIX}/bin/python\n")
    assert scripts["odd-python"] == f"#!{PREFIX}/bin/python\nprint('script')\n"
    assert scripts["odd-shell"] == ODD["odd-1.0.data/scripts/odd-shell"]
    assert wheel_files.damaged(stage) == []
    info = library(stage) / "odd-1.0.dist-info"
    with (info / "RECORD").open(newline="") as file:
        paths = [row[0] for row in csv.reader(file)]
    assert paths == sorted(paths)
    assert {"../../../bin/odd", "../../../share/odd/data.txt", "odd/quoted, name.txt", "odd_pure.py"} <= set(paths)
    assert all((library(stage) / path).exists() for path in paths)


def test_nothing_tells_of_the_place_or_the_time(place: Place, bundle: Path) -> None:
    lock = Lock(OWN, SUBDIR, GLIBC, wheels=(local_wheel(bundle, "wheels/odd-1.0-py3-none-any.whl"),))
    stage, _ = installed(lock, place, bundle)
    files = {path.name for path in (library(stage) / "odd-1.0.dist-info").iterdir()}
    assert files == {"INSTALLER", "METADATA", "RECORD", "WHEEL", "entry_points.txt"}
    found = content(stage)
    del found["bin/python"], found["pyvenv.cfg"]
    marks = [os.fsencode(part) for part in (place.folder, Path(sys.executable).parent)]
    assert not [path for path, data in found.items() if any(mark in data for mark in marks)]


@pytest.mark.parametrize("python", ["3.7", "3.9", "3.13"])
def test_the_layout_is_that_of_the_target(place: Place, bundle: Path, python: str) -> None:
    lock = Lock(python, SUBDIR, GLIBC, wheels=(local_wheel(bundle, "wheels/odd-1.0-py3-none-any.whl"),))
    stage, _ = installed(lock, place, bundle)
    assert [path.name for path in (stage / "lib").iterdir()] == [f"python{python}"]
    assert (stage / "include" / "site" / f"python{python}" / "odd" / "odd.h").exists()
    assert (library(stage, python) / "odd" / "__init__.py").exists()
    assert wheel_files.damaged(stage) == []


def test_long_paths_get_scripts_that_work(greeting: Lock, place: Place) -> None:
    name = "long" * 40
    stage = place.folder / "cache" / name / "env"
    installed(greeting, place, name=name, prefix=str(stage))
    assert (stage / "bin" / "pip-greet").read_text().startswith("#!/bin/sh\n'''exec'")
    done = subprocess.run([stage / "bin" / "pip-greet"], capture_output=True, text=True, check=True)
    assert done.stdout == "hello from pip-greeter\n"


def test_from_the_cache_no_index_is_asked(greeting: Lock, place: Place, server: FaultyServer) -> None:
    first, _ = installed(greeting, place)
    server.forget()
    second, _ = installed(greeting, place, name="again")
    assert server.count() == 0
    assert content(first) == content(second)


def test_large_downloads_are_told_in_bytes(tmp_path: Path) -> None:
    folder = tmp_path / "served" / "files"
    make_wheel(folder / "large-1.0-py3-none-any.whl", {"large/noise.bin": os.urandom(3_000_000)})
    with FaultyServer(tmp_path / "served") as server:
        place = Place(tmp_path, server.url)
        page = tmp_path / "served" / "simple" / "large" / "index.html"
        page.parent.mkdir(parents=True)
        page.write_text('<a href="../../files/large-1.0-py3-none-any.whl">large-1.0-py3-none-any.whl</a>')
        wheel = pip_packages(Tree(tmp_path / "served", (OWN,)), "large==1.0")
        _, told = installed(Lock(OWN, SUBDIR, GLIBC, pip=wheel), place)
    downloads = told.of("download")
    assert downloads[-1][0] == downloads[-1][1]
    assert downloads[-1][1] == pytest.approx(3_000_000, rel=0.05)


def test_what_conda_installed_under_the_same_name_is_replaced(greeting: Lock, place: Place) -> None:
    stage = place.stage()
    old = library(stage) / "pip_greeter-0.9.dist-info"
    old.mkdir(parents=True)
    (library(stage) / "pip_greeter").mkdir()
    (library(stage) / "pip_greeter" / "only_in_old.py").touch()
    (library(stage) / "neighbour.py").touch()
    outside = place.folder / "outside.py"
    outside.touch()
    up = os.path.relpath(outside, library(stage))
    (old / "RECORD").write_text(f"pip_greeter/only_in_old.py,,\n{up},,\npip_greeter-0.9.dist-info/RECORD,,\n")
    install(greeting, target(), stage, place.sources, Told(), None)
    assert {path.name for path in library(stage).glob("pip_greeter*")} == {
        "pip_greeter",
        "pip_greeter-1.0.0.dist-info",
    }
    assert not (library(stage) / "pip_greeter" / "only_in_old.py").exists()
    assert (library(stage) / "neighbour.py").exists()
    assert outside.exists()


def test_links_of_other_packages_lead_nothing_outside(greeting: Lock, place: Place) -> None:
    stage, outside = place.stage(), place.folder / "outside"
    outside.mkdir()
    library(stage).mkdir(parents=True)
    (library(stage) / "pip_greeter").symlink_to(outside)
    with pytest.raises(BuildFailed) as failed:
        install(greeting, target(), stage, place.sources, Told(), None)
    assert failed.value.code == "bad_package"
    assert not list(outside.iterdir())


def test_another_content_than_locked_is_refused_and_not_kept(
    greeting: Lock, place: Place, server: FaultyServer
) -> None:
    server.corrupt("*pip_greeter*.whl")
    error = refused(greeting, place)
    assert error.code in ("hash_mismatch", "index_unreachable")
    server.heal()
    installed(greeting, place)


def test_a_lock_with_another_hash_is_refused(greeting: Lock, place: Place) -> None:
    wrong = tuple(replace(package, hashes=(f"sha256:{'0' * 64}",)) for package in greeting.pip)
    error = refused(replace(greeting, pip=wrong), place)
    assert error.code == "hash_mismatch"
    assert "==1." in str(error)


def test_short_failures_of_the_index_are_waited_for(greeting: Lock, place: Place, server: FaultyServer) -> None:
    server.fail("*pip-greeter*", times=1)
    stage, _ = installed(greeting, place)
    assert (stage / "bin" / "pip-greet").exists()


def test_an_unreachable_index(greeting: Lock, place: Place, server: FaultyServer) -> None:
    server.fail("*")
    error = refused(greeting, place)
    assert error.code == "index_unreachable"
    assert "tried 2 times" in error.hint
    server.heal()
    installed(greeting, place)


def test_a_version_that_the_index_no_longer_has(greeting: Lock, place: Place) -> None:
    gone = tuple(replace(package, version="9.9") for package in greeting.pip)
    error = refused(replace(greeting, pip=gone), place)
    assert error.code == "package_gone"
    assert "--upgrade" in error.hint


@pytest.mark.parametrize("damage", ["another content", "removed", "the whole wheel removed"])
def test_damage_in_the_cache_is_mended(greeting: Lock, place: Place, damage: str) -> None:
    installed(greeting, place)
    (module,) = place.sources.uv_cache.glob("archive-v*/*/pip_greeter/__init__.py")
    whole = module.read_bytes()
    module.unlink()
    if damage == "another content":
        module.write_bytes(whole.replace(b"hello", b"evil!"))
    elif damage == "the whole wheel removed":
        shutil.rmtree(module.parents[1])
    stage, _ = installed(greeting, place, name="mended")
    assert (library(stage) / "pip_greeter" / "__init__.py").read_bytes() == whole


def test_credentials_are_not_told(greeting: Lock, place: Place, server: FaultyServer) -> None:
    address = server.url.replace("://", "://me:${INDEX_PASSWORD}@") + "/simple/"
    sources = replace(
        place.sources, pip_options=("--index-url", address), environ={**os.environ, "INDEX_PASSWORD": "s3cret"}
    )
    server.fail("*")
    with pytest.raises(BuildFailed) as failed:
        install(greeting, target(), place.stage(), sources, Told(), None)
    assert "s3cret" not in f"{failed.value} {failed.value.hint} {failed.value.detail}"


def test_nothing_is_left_beside_the_stage(greeting: Lock, place: Place, server: FaultyServer) -> None:
    stage, _ = installed(greeting, place)
    server.fail("*")
    shutil.rmtree(place.sources.uv_cache)
    with pytest.raises(BuildFailed):
        install(greeting, target(), stage, place.sources, Told(), None)
    assert [path.name for path in stage.parent.iterdir()] == ["env"]
