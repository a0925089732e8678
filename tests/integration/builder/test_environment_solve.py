"""Solving with the real solvers, against a real channel and a real index: what comes out, and why not."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.channel.conda import Package, conda_archive, text, write_channel
from tests.channel.make import Tree
from tests.channel.serve import FaultyServer
from tests.channel.wheels import make_wheel, metadata_of
from uv import find_uv_bin

from fngw.errors import BuildFailed
from fngw_builder.environment import requirements
from fngw_builder.environment.lock import CondaPackage, LocalWheel, Lock, PipPackage
from fngw_builder.environment.solve import PREFERRED, REQUIRED, solve
from fngw_builder.environment.sources import Sources
from fngw_builder.environment.target import Target

Solve = Callable[..., Lock]
NEEDS = REQUIRED | PREFERRED


class Told:
    """A `Report` that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.steps: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def progress(self, step: str, done: int | None = None, total: int | None = None, unit: str = "") -> None:
        self.steps.append(step)


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def target() -> Target:
    return Target("linux-64", "2.36", None, "/opt/fngw/env", "/usr/bin/python3")


@pytest.fixture
def python(channel_tree: Tree) -> str:
    return channel_tree.pythons[0]


@pytest.fixture
def sources(channel: FaultyServer, tmp_path: Path) -> Sources:
    environ = {"UV_DEFAULT_INDEX": channel.index_url, "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    return Sources(tmp_path / "cache", Path(find_uv_bin()), environ=environ, retries=1)


@pytest.fixture
def solved(
    channel: FaultyServer, sources: Sources, target: Target, told: Told, python: str, tmp_path: Path
) -> Solve:
    """Solve what ``conda=`` and ``pip=`` say, with the test's channel."""

    def answer(
        conda: Sequence[Any] | Mapping[str, Any] | None = None,
        pip: Sequence[str] | None = None,
        wheels: Path | None = None,
        *,
        python: str = python,
        target: Target = target,
        sources: Sources = sources,
    ) -> Lock:
        mapping = conda if isinstance(conda, Mapping) or conda is None else {"dependencies": list(conda)}
        wanted = requirements.read(python, mapping, pip, [channel.conda_url])
        return solve(wanted, target, sources.serving(wanted), told, wheels)

    return answer


def conda_names(lock: Lock) -> set[str]:
    return {package.name for package in lock.conda}


def versions(lock: Lock) -> dict[str, str]:
    packages: list[CondaPackage | PipPackage | LocalWheel] = [*lock.conda, *lock.pip, *lock.wheels]
    return {package.name: package.version for package in packages}


def fails(code: str, solved: Solve, *args: Any, **kwargs: Any) -> BuildFailed:
    with pytest.raises(BuildFailed) as caught:
        solved(*args, **kwargs)
    assert caught.value.code == code, caught.value
    assert caught.value.hint
    return caught.value


def write_wheel(folder: Path, name: str, version: str, **more: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file, data = make_wheel(name, version, {f"{name}/__init__.py": ""}, python=">=3.7", **more)
    (folder / file).write_bytes(data)
    return folder / file


# -- answers ------------------------------------------------------------------------------------------------


def test_conda_alone(solved: Solve, channel: FaultyServer, python: str) -> None:
    lock = solved(["legacylib=1.15"])
    found = versions(lock)
    assert found["legacylib"] == "1.15.0" and found["depcore"] == "1.4.0" and found["python"].startswith(python)
    assert conda_names(lock) >= {"redis-py", "starlette", "uvicorn", "cloudpickle", "uvloop", "httptools"}
    assert lock.pip == () and channel.count("simple/*") == 0
    for package in lock.conda:
        assert len(package.sha256) == 64 and package.channel == channel.conda_url
        file = channel.root / "conda" / package.subdir / package.fn
        assert hashlib.sha256(file.read_bytes()).hexdigest() == package.sha256


def test_pip_alone(solved: Solve, channel: FaultyServer) -> None:
    lock = solved(None, ["pip-legacylib<2", "pip-greeter"])
    found = versions(lock)
    assert found["pip-legacylib"] == "1.15.0" and set(found) >= NEEDS
    assert lock.conda == () and all(package.hashes for package in lock.pip)
    assert channel.count("conda/*") == 0


def test_a_lock_has_no_addresses_but_the_users(solved: Solve) -> None:
    assert "://" not in solved(None, ["pip-greeter"]).to_text()


def test_the_same_from_other_addresses_is_the_same_lock(
    solved: Solve, sources: Sources, channel_tree: Tree, tmp_path: Path
) -> None:
    wanted = {"channels": ["c"], "dependencies": ["legacylib", {"pip": ["pip-greeter"]}]}
    alias = f"file://{channel_tree.root}"
    shutil.copytree(channel_tree.conda, tmp_path / "elsewhere" / "c")
    named = tmp_path / "named"
    named.mkdir()
    (named / "c").symlink_to(channel_tree.conda)
    locks = [
        solved(wanted, sources=replace(sources, cache=tmp_path / str(i), channel_alias=f"file://{folder}"))
        for i, folder in enumerate([named, tmp_path / "elsewhere"])
    ]
    assert locks[0].to_text() == locks[1].to_text() and alias not in locks[0].to_text()


def test_what_conda_brings_is_not_installed_twice(solved: Solve) -> None:
    lock = solved(["legacylib=1.15", "starlette", {"pip": ["pip-on-conda"]}])
    pip = {package.name for package in lock.pip}
    assert pip >= {"pip-on-conda", "uvicorn", "redis", "cloudpickle"}
    assert not pip & {"legacylib", "depcore", "starlette", "anyio", "idna"}


def test_another_platform_is_solved_for_and_what_is_only_preferred_gives_way(solved: Solve) -> None:
    arm = Target("linux-aarch64", "2.28", None, "/opt/fngw/env", "/usr/bin/python3")
    lock = solved(None, ["pip-greeter"], target=arm)
    assert lock.subdir == "linux-aarch64" and "uvloop" not in versions(lock)
    assert set(versions(lock)) >= REQUIRED


def test_wheels_of_the_bundle(solved: Solve, tmp_path: Path) -> None:
    direct = write_wheel(tmp_path / "app/wheels", "direct", "1.0", requires=["found>=1", "pip-greeter"])
    found = write_wheel(tmp_path / "app/links", "found", "1.5")
    lock = solved(None, ["./wheels/" + direct.name, "--find-links ./links"], tmp_path / "app")
    assert [(w.name, w.version, w.path) for w in lock.wheels] == [
        ("direct", "1.0", f"wheels/{direct.name}"),
        ("found", "1.5", f"links/{found.name}"),
    ]
    assert lock.wheels[0].sha256 == hashlib.sha256(direct.read_bytes()).hexdigest()
    assert "pip-greeter" in {package.name for package in lock.pip}


def test_a_wheel_at_an_address(solved: Solve, channel: FaultyServer, sources: Sources) -> None:
    file = channel.root / "files/pip_greeter-1.0.0-py3-none-any.whl"
    url = f"{channel.url.replace('://', '://me:${TOKEN}@')}/files/{file.name}"
    given = replace(sources, environ={**sources.environ, "TOKEN": "s3cret"})
    lock = solved(None, [f"pip-greeter @ {url}"], sources=given)
    (package,) = [p for p in lock.pip if p.name == "pip-greeter"]
    assert package.url == url and package.version == "1.0.0"
    assert package.hashes == (f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}",)
    assert "s3cret" not in lock.to_text()


def test_given_hashes_are_the_only_ones(solved: Solve, channel: FaultyServer) -> None:
    digest = hashlib.sha256((channel.root / "files/pip_greeter-1.0.0-py3-none-any.whl").read_bytes()).hexdigest()
    other = "0" * 64
    lock = solved(None, [f"pip-greeter==1.0.0 --hash=sha256:{digest} --hash=sha256:{other}"])
    assert [p.hashes for p in lock.pip if p.name == "pip-greeter"] == [(f"sha256:{digest}",)]


def test_a_channel_of_a_spec(solved: Solve, channel: FaultyServer, tmp_path: Path, channel_tree: Tree) -> None:
    shutil.copytree(channel_tree.conda, tmp_path / "other")
    other = f"file://{tmp_path / 'other'}"
    lock = solved([f"{other}::legacylib"])
    assert {p.name: p.channel for p in lock.conda}["legacylib"] == other
    assert {p.name: p.channel for p in lock.conda}["python"] == channel.conda_url


def test_a_password_in_a_channel_stays_a_variable(solved: Solve, channel: FaultyServer, sources: Sources) -> None:
    written = channel.conda_url.replace("://", "://me:${TOKEN}@")
    given = replace(sources, environ={**sources.environ, "TOKEN": "s3cret"})
    lock = solved({"channels": [written], "dependencies": ["legacylib"]}, sources=given)
    assert {p.channel for p in lock.conda} == {written}
    channel.fail("*")
    error = fails(
        "channel_unreachable", solved, {"channels": [written]}, sources=replace(given, cache=Path("/dev/null/x"))
    )
    assert "s3cret" not in str(error)


def test_solving_again_is_quick(solved: Solve) -> None:
    first = solved(["legacylib=1.15"])
    began = time.process_time()  # not by the clock: other tests run at the same time
    assert solved(["legacylib=1.15"]) == first
    assert time.process_time() - began < 1.0


# -- CUDA and glibc -----------------------------------------------------------------------------------------


def test_cuda_follows_the_target(solved: Solve, target: Target, told: Told) -> None:
    def build(lock: Lock) -> str:
        return next(p.build for p in lock.conda if p.name == "tensorlib")

    assert build(solved(["tensorlib"])) == "cpu_0" and not any("warning" in line for line in told.lines)
    assert build(solved(["tensorlib"], target=replace(target, cuda="12.4"))) == "cuda_1"
    error = fails("environment_unsolvable", solved, ["cudalib"])
    assert "__cuda" in str(error) and "no CUDA" in error.hint


def test_a_cuda_build_without_cuda_warns(solved: Solve, told: Told, tmp_path: Path) -> None:
    write_wheel(tmp_path, "nvidia_toys_cu12", "1.0")
    solved(None, ["./nvidia_toys_cu12-1.0-py3-none-any.whl"], tmp_path)
    assert [line for line in told.lines if line.startswith("warning: nvidia-toys-cu12")]


def test_glibc_follows_the_target(solved: Solve) -> None:
    error = fails("environment_unsolvable", solved, ["newglibc"])
    assert "__glibc >=2.99" in str(error) and "glibc 2.36" in error.hint


# -- no answer: conda ---------------------------------------------------------------------------------------


def test_conda_that_does_not_fit_together(solved: Solve) -> None:
    error = fails("environment_unsolvable", solved, ["needs-legacy1", "needs-legacy2"])
    assert "needs-legacy1" in error.message and "needs-legacy2" in error.message and "└─" in error.message


def test_a_pin_against_a_dependency_is_named(solved: Solve) -> None:
    error = fails("environment_unsolvable", solved, ["needs-legacy2", "legacylib=1.15"])
    assert "legacylib >=2" in str(error) and "legacylib 1.15.*" in str(error)


def test_a_misspelt_conda_package(solved: Solve) -> None:
    error = fails("package_not_found", solved, ["legaclyib=1.15"])
    assert "legaclyib" in error.message and "'legacylib'" in error.hint


def test_a_version_that_no_channel_has(solved: Solve) -> None:
    error = fails("environment_unsolvable", solved, ["legacylib=7"])
    assert "legacylib" in error.message and error.hint == "there is legacylib 2.3.0, 1.15.0"


def test_a_python_that_no_channel_has(solved: Solve, python: str) -> None:
    error = fails("python_not_found", solved, ["legacylib"], python="3.99")
    assert "no Python 3.99" in error.message and python in error.hint


@pytest.mark.parametrize("spec", ["legacylib>>=1", "=3", "leg*", "https://example.com/x-1-0.conda", "a@b"])
def test_what_is_no_spec(solved: Solve, spec: str) -> None:
    assert "conda: " in fails("environment_invalid", solved, [spec]).message


# -- no answer: pip -----------------------------------------------------------------------------------------


def test_pip_that_does_not_fit_together(solved: Solve) -> None:
    error = fails("environment_unsolvable", solved, None, ["pip-needs-legacy1", "pip-legacylib>2"])
    assert "pip-needs-legacy1" in error.message and "pip-legacylib" in error.message
    assert "error:" not in error.message and "cause:" not in error.message


def test_pip_against_conda_names_condas_version(solved: Solve) -> None:
    error = fails("environment_unsolvable", solved, ["legacylib=2.3", {"pip": ["pip-on-conda"]}])
    assert "conda installs legacylib 2.3.0" in error.hint


@pytest.mark.parametrize(
    ("name", "hint"), [("sklearn", "'scikit-learn'"), ("reqests", "'requests'"), ("qqqq", "spelling")]
)
def test_a_misspelt_pip_package(solved: Solve, name: str, hint: str) -> None:
    error = fails("package_not_found", solved, None, [name])
    assert name in error.message and hint in error.hint


def test_a_dependency_that_no_index_has(solved: Solve, tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path, "lonely", "1.0", requires=["nowhere-to-be-found"])
    error = fails("package_not_found", solved, None, [f"./{wheel.name}"], tmp_path)
    assert "nowhere-to-be-found, which another package requires" in error.message


def test_sources_only(solved: Solve) -> None:
    error = fails("sdist_only", solved, None, ["pip-sdist-only", "pip-greeter"])
    assert "pip-sdist-only" in error.message and "pip wheel" in error.hint


def test_a_wheel_for_newer_pythons(solved: Solve) -> None:
    assert "Python>=4" in fails("environment_unsolvable", solved, None, ["pip-only-new-python"]).message


def test_hashes_that_the_index_does_not_know(solved: Solve) -> None:
    error = fails("hash_mismatch", solved, None, ["pip-greeter==1.0.0 --hash=sha256:" + "0" * 64])
    assert "pip-greeter==1.0.0" in error.message


def test_a_wheel_that_is_not_in_the_bundle(solved: Solve, tmp_path: Path) -> None:
    error = fails("environment_invalid", solved, None, ["./x-1.0-py3-none-any.whl"], tmp_path)
    assert ".fngwignore" in error.hint
    fails("environment_invalid", solved, None, ["pip-greeter", "-f ./none"], tmp_path)


# -- whose conflict -----------------------------------------------------------------------------------------


def test_pip_that_does_not_fit_the_runtime(solved: Solve, tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path, "idna", "0.1")
    error = fails("runtime_conflict", solved, None, [f"./{wheel.name}"], tmp_path)
    assert "idna" in error.message and "starlette" in error.message


def own_channel(tree: Tree, folder: Path, *packages: Package) -> str:
    """A channel with a package that the tests' own cannot have."""
    write_channel(folder, [conda_archive(package) for package in packages], [])
    return f"file://{folder}"


def toy(name: str, version: str) -> Package:
    info = f"site-packages/{name}-{version}.dist-info/METADATA"
    files = {f"site-packages/{name}/__init__.py": text(""), info: text(metadata_of(name, version))}
    return Package(name, version, files, "pyh_0", depends=("python",))


def test_conda_that_does_not_fit_the_runtime(
    solved: Solve, channel: FaultyServer, channel_tree: Tree, tmp_path: Path
) -> None:
    old = own_channel(channel_tree, tmp_path / "own", toy("idna", "0.1"))
    wanted = {"channels": [old, channel.conda_url], "dependencies": ["idna=0.1"]}
    error = fails("runtime_conflict", solved, wanted)
    assert "idna" in error.message and "replica" in error.message


def test_needs_that_conda_cannot_make_fit_come_from_pip(
    solved: Solve, channel: FaultyServer, channel_tree: Tree, tmp_path: Path
) -> None:
    own = own_channel(channel_tree, tmp_path / "own", toy("click", "99.0"), toy("redis-py", "0.1"))
    wanted = {"channels": [own, channel.conda_url], "dependencies": ["click=99", "legacylib"]}
    lock = solved(wanted)
    assert versions(lock)["click"] == "99.0" and "click" not in {p.name for p in lock.pip}
    assert set(versions(lock)) | {"redis"} >= REQUIRED


def test_needs_that_the_channels_lack_come_from_pip(
    solved: Solve, channel: FaultyServer, channel_tree: Tree, tmp_path: Path
) -> None:
    shutil.copytree(channel_tree.conda, tmp_path / "own")
    bare = tmp_path / "own"
    for file in bare.glob("*/redis-py-*"):
        file.unlink()
    records = [
        (subdir, name, record)
        for subdir in ("linux-64", "noarch")
        for name, record in _records(bare / subdir)
        if record["name"] not in ("redis-py", "uvloop")
    ]
    write_channel(bare, [], records)
    lock = solved({"channels": [f"file://{bare}"], "dependencies": ["legacylib"]})
    assert {"starlette", "uvicorn"} <= conda_names(lock)
    assert "redis" in {package.name for package in lock.pip}


def _records(folder: Path) -> list[tuple[str, Any]]:
    import json

    data = json.loads((folder / "repodata.json").read_text())
    return [*data["packages"].items(), *data["packages.conda"].items()]


# -- unreachable --------------------------------------------------------------------------------------------


def test_a_channel_that_fails_once_is_asked_again(solved: Solve, channel: FaultyServer) -> None:
    channel.fail("conda/noarch/repodata.json.zst", times=1)
    assert solved(["legacylib"]).conda


def test_a_channel_that_does_not_answer(solved: Solve, channel: FaultyServer) -> None:
    channel.fail("conda/*")
    error = fails("channel_unreachable", solved, ["legacylib"])
    assert channel.conda_url in error.message and "cannot be reached" in error.message
    assert channel.count("conda/*/repodata.json") > 1, "it was not asked again"


def test_a_channel_that_is_not_there(solved: Solve, channel: FaultyServer) -> None:
    gone = f"{channel.url}/none"
    error = fails(
        "channel_unreachable", solved, {"channels": [channel.conda_url, gone], "dependencies": ["legacylib"]}
    )
    assert f"the channel {gone} is not there" in error.message
    assert "file:///none" in fails("channel_unreachable", solved, {"channels": ["file:///none"]}).message


def test_a_channel_that_wants_a_login(solved: Solve, channel: FaultyServer) -> None:
    channel.fail("conda/*", status=401)
    assert "wants another login" in fails("channel_unreachable", solved, ["legacylib"]).message


def test_an_index_that_does_not_answer(solved: Solve, channel: FaultyServer) -> None:
    channel.fail("simple/*")
    error = fails("index_unreachable", solved, None, ["pip-greeter"])
    assert channel.url.removeprefix("http://") in error.message
    assert channel.count() > len(channel.requests()), "it was not asked again"


def test_an_index_that_wants_a_login(solved: Solve, channel: FaultyServer, sources: Sources) -> None:
    channel.fail("simple/*", status=401)
    given = replace(sources, environ={**sources.environ, "TOKEN": "s3cret"})
    line = f"--index-url {channel.index_url.replace('://', '://me:${TOKEN}@')}"
    error = fails("index_unreachable", solved, None, [line, "pip-greeter"], sources=given)
    assert "login" in error.message and "s3cret" not in str(error)


def test_a_variable_that_is_not_set(solved: Solve) -> None:
    assert "${NONE}" in fails("environment_invalid", solved, None, ["-i https://u:${NONE}@x.org/s", "six"]).message
    assert "${NONE}" in fails("environment_invalid", solved, {"channels": ["https://${NONE}@x.org"]}).message


# -- what is left behind ------------------------------------------------------------------------------------


def test_nothing_is_left_behind(solved: Solve, sources: Sources) -> None:
    solved(["legacylib", {"pip": ["pip-greeter"]}])
    assert not list(sources.cache.glob("stage/*"))
