"""The tests' own channel and index do what the builder's tests expect of them, with the real installers."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from rattler import (
    BuildString,
    Channel,
    Gateway,
    GenericVirtualPackage,
    PackageName,
    RepoDataRecord,
    SourceConfig,
    Subdir,
    Version,
    install,
    solve,
)
from rattler.exceptions import InstallerError, SolverError

from .make import Tree, make_tree
from .pythons import NoPython, default_xy, find, interpreter, interpreters
from .serve import FaultyServer

UV = str(Path(sys.executable).with_name("uv"))
NEEDS = ("starlette", "uvicorn", "cloudpickle", "redis-py", "httptools", "uvloop")


async def _solve(url: str, *specs: str, **virtual: str) -> list[RepoDataRecord]:
    packages = {"__glibc": "2.36", **{f"__{name}": version for name, version in virtual.items()}}
    return await solve(
        sources=[Channel(url)],
        specs=[f"python {default_xy()}.*", *specs],
        gateway=Gateway(default_config=SourceConfig(sharded_enabled=False, cache_action="no-cache")),
        platforms=[Subdir("linux-64"), Subdir("noarch")],
        virtual_packages=[
            GenericVirtualPackage(PackageName(n), Version(v), BuildString("0")) for n, v in packages.items()
        ],
        timeout=timedelta(seconds=30),
    )


async def _install(records: list[RepoDataRecord], folder: Path, final: Path | None = None) -> Path:
    prefix = folder / "prefix"
    await install(
        records, prefix, cache_dir=folder / "pkgs", show_progress=False, alternative_target_prefix=final or prefix
    )
    return prefix


def _versions(records: list[RepoDataRecord]) -> dict[str, str]:
    return {record.name.normalized: str(record.version) for record in records}


def _run(*command: object) -> str:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True).stdout


async def test_what_a_replica_needs_runs_where_it_was_moved_to(channel_tree: Tree, tmp_path: Path) -> None:
    final = tmp_path / "final"
    records = await _solve(f"file://{channel_tree.conda}", *NEEDS, "greeter", "prefixed")
    (await _install(records, tmp_path, final)).rename(final)

    modules = "sys, ssl, ctypes, lzma, starlette, uvicorn, cloudpickle, redis, httptools, uvloop"
    assert _run(final / "bin/python", "-I", "-c", f"import {modules}; print(sys.prefix)") == f"{final}\n"
    assert _run(final / "bin/greet") == "hello from greeter\n"
    assert _run(final / "bin/where-am-i") == f"{final}\n"
    assert (final / "share/prefixed/where.bin").read_bytes().startswith(b"\0prefix=" + bytes(final) + b"/share\0")


async def test_it_is_the_same_over_http(channel: FaultyServer, tmp_path: Path) -> None:
    records = await _solve(channel.conda_url, "legacylib 1.*", "oldformat")
    prefix = await _install(records, tmp_path)

    assert _run(prefix / "bin/python", "-c", "import legacylib; print(legacylib.answer())") == "old\n"
    assert channel.count("conda/linux-64/python-*.conda") == channel.count("conda/noarch/oldformat-*.tar.bz2") == 1


async def test_versions_conflict(channel_tree: Tree) -> None:
    url = f"file://{channel_tree.conda}"
    assert _versions(await _solve(url, "needs-legacy1"))["legacylib"] == "1.15.0"
    assert _versions(await _solve(url, "needs-legacy2"))["legacylib"] == "2.3.0"
    with pytest.raises(SolverError, match="legacylib >=2"):
        await _solve(url, "needs-legacy1", "needs-legacy2")


async def test_virtual_packages_decide(channel_tree: Tree) -> None:
    url = f"file://{channel_tree.conda}"
    builds = [
        {record.name.normalized: str(record.build) for record in await _solve(url, "tensorlib", **host)}[
            "tensorlib"
        ]
        for host in ({}, {"cuda": "12.4"})
    ]
    assert builds == ["cpu_0", "cuda_1"]
    for name in ("cudalib", "newglibc", "only-old-python"):
        with pytest.raises(SolverError, match=name):
            await _solve(url, name)
    assert "cudalib" in _versions(await _solve(url, "cudalib", cuda="11.8"))


async def test_a_wrong_hash_is_refused(channel: FaultyServer, tmp_path: Path) -> None:
    with pytest.raises(InstallerError, match="hash mismatch when extracting"):
        await _install(await _solve(channel.conda_url, "badhash"), tmp_path)


def _uv_install(server: FaultyServer, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    options = ["--target", str(folder), "--index-url", server.index_url, "--no-cache", "--python", sys.executable]
    return subprocess.run([UV, "pip", "install", *options, *arguments], capture_output=True, text=True)


def test_the_index_installs_wheels_and_source(channel: FaultyServer, tmp_path: Path) -> None:
    wanted = ("pip-needs-legacy1", "pip-greeter", "pip-sdist-only", "pip-compiled", "uvicorn", "uvloop")
    done = _uv_install(channel, tmp_path, *wanted)
    assert done.returncode == 0, done.stderr

    code = "import _pip_compiled, pip_legacylib; print(_pip_compiled.answer(), pip_legacylib.answer())"
    assert _run(sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {code}") == "42 old\n"
    assert {path.name for path in (tmp_path / "bin").iterdir()} >= {"pip-greet", "pip-greet-script", "uvicorn"}


@pytest.mark.parametrize(
    ("requirement", "said"),
    [
        ("pip-badhash", "Hash mismatch"),
        ("pip-broken-sdist", "this source distribution cannot be built"),
        ("pip-unsatisfiable", "pip-legacylib>=9"),
        ("pip-only-new-python", "Python"),
        ("pip-legaclib", "not found"),
    ],
)
def test_the_index_refuses(channel: FaultyServer, tmp_path: Path, requirement: str, said: str) -> None:
    done = _uv_install(channel, tmp_path, requirement)
    assert done.returncode != 0
    assert said in done.stderr


def test_the_server_misbehaves_as_told(tmp_path: Path) -> None:
    (tmp_path / "file.bin").write_bytes(b"x" * 1000)
    with FaultyServer(tmp_path) as server:
        url = f"{server.url}/file.bin"
        server.fail("*.bin", times=1)
        server.corrupt("*.bin", times=1)
        server.cut("*.bin", after=100, times=1)

        with pytest.raises(HTTPError) as failure, urlopen(url):
            raise AssertionError("an answer other than 503")
        failure.value.close()
        with urlopen(url) as answer:
            spoiled = answer.read()
            tag = answer.headers["ETag"]
        with urlopen(url) as answer:
            cut = answer.read(1000)
        with urlopen(Request(url, headers={"Range": "bytes=900-"})) as answer:
            rest = answer.read()

        assert (failure.value.code, len(spoiled), spoiled.count(b"x"), len(cut), len(rest)) == (
            503,
            1000,
            999,
            100,
            100,
        )
        with pytest.raises(HTTPError) as unchanged, urlopen(Request(url, headers={"If-None-Match": tag})):
            raise AssertionError("an answer other than 304")
        unchanged.value.close()
        assert unchanged.value.code == 304
        assert (server.count("*.bin"), server.sent("*.bin")) == (5, 1200)


def test_a_tree_is_made_once(channel_tree: Tree) -> None:
    made = channel_tree.conda / "linux-64" / "repodata.json"
    before = made.stat()
    assert make_tree().conda / "linux-64" / "repodata.json" == made
    assert made.stat() == before


def test_pythons_are_found_by_their_version() -> None:
    assert find("3.1") is None
    with pytest.raises(NoPython, match=r"no CPython 3\.1 to repackage"):
        interpreter("3.1")
    assert interpreters()[default_xy()].executable.is_file()
