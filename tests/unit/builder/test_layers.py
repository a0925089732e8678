"""Layers of folders and of the runtime: what is in them, and that nothing else decides their bytes."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from fngw.errors import BuildFailed
from fngw_builder import runtime_layer, tree_layer
from fngw_builder.environment import bytecode
from fngw_builder.tar_layer import Layer, Writer

PREFIX = "/opt/fngw/env"


class Told:
    """A report that keeps what it is told."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, int | None, int | None, str]] = []

    def say(self, line: str) -> None:
        raise AssertionError(f"nothing is to be said: {line}")

    def progress(self, step: str, done: int | None = None, total: int | None = None, unit: str = "") -> None:
        self.steps.append((step, done, total, unit))


def layer_of(stage: Path, prefix: str = PREFIX) -> Layer:
    return tree_layer.write(stage, prefix, io.BytesIO(), Told())


def entries(layer: Layer) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=layer.file) as tar:
        return {info.name: info for info in tar}


def fill(stage: Path) -> Path:
    """Make a tree with a bit of everything, in the order of a shuffled deck."""
    (stage / "lib" / "x").mkdir(parents=True)
    (stage / "lib-dynload").mkdir()
    (stage / "lib" / "x" / "é\udcff.py").write_bytes(b"odd")
    (stage / "bin").mkdir()
    (stage / "bin" / "run").write_bytes(b"#!/bin/sh\n")
    (stage / "bin" / "run").chmod(0o751)
    (stage / "bin" / "alias").symlink_to("run")
    (stage / "lib" / "absolute").symlink_to(stage / "bin" / "run")
    (stage / "lib" / "outside").symlink_to("/etc/hostname")
    (stage / "lib" / "root").symlink_to(stage)
    (stage / "lib" / ("long" * 40)).write_bytes(b"z" * 513)
    (stage / "lib" / "twin").write_bytes(b"same inode")
    (stage / "lib" / "twin2").hardlink_to(stage / "lib" / "twin")
    return stage


def test_a_folder_becomes_sorted_entries_of_root_without_times(tmp_path: Path) -> None:
    found = entries(layer_of(fill(tmp_path / "stage")))
    names = list(found)
    assert names[:3] == ["opt", "opt/fngw", "opt/fngw/env"]
    assert names == sorted(names)
    assert {(info.uid, info.gid, info.uname, info.gname, info.mtime) for info in found.values()} == {
        (0, 0, "", "", 0)
    }
    modes = {name.removeprefix("opt/fngw/env/"): info.mode for name, info in found.items()}
    assert (modes["bin"], modes["bin/run"], modes["lib/twin"]) == (0o755, 0o755, 0o644)


def test_packages_and_byte_code_are_two_layers_of_one_folder(tmp_path: Path) -> None:
    stage = fill(tmp_path / "stage")
    cache = stage / "lib" / "x" / "__pycache__"
    cache.mkdir()
    (cache / "a.cpython-311.pyc").write_bytes(b"made")
    (cache / "index.nbi").write_bytes(b"a package's own")
    (stage / "lib" / "sourceless.pyc").write_bytes(b"a package's own")
    whole, packages, made = (
        entries(tree_layer.write(stage, PREFIX, io.BytesIO(), Told(), wanted))
        for wanted in (lambda path: True, bytecode.is_package, bytecode.is_bytecode)
    )
    files = {name for name, info in made.items() if not info.isdir()}
    assert files == {"opt/fngw/env/lib/x/__pycache__/a.cpython-311.pyc"}
    assert packages.keys() | made.keys() == whole.keys()
    assert not packages.keys() & files
    assert all(whole[name].mode == info.mode for name, info in [*packages.items(), *made.items()])


def test_links_into_the_stage_are_moved_and_hard_links_become_files(tmp_path: Path) -> None:
    found = entries(layer_of(fill(tmp_path / "stage")))
    links = {name.removeprefix("opt/fngw/env/"): info.linkname for name, info in found.items() if info.issym()}
    assert links == {
        "bin/alias": "run",
        "lib/absolute": f"{PREFIX}/bin/run",
        "lib/outside": "/etc/hostname",
        "lib/root": PREFIX,
    }
    assert found["opt/fngw/env/lib/twin"].isreg()
    assert found["opt/fngw/env/lib/twin2"].isreg()


def test_neither_place_nor_umask_nor_order_decide_the_bytes(tmp_path: Path) -> None:
    first = layer_of(fill(tmp_path / "a"))
    before = os.umask(0o077)
    try:
        second = layer_of(fill(tmp_path / "elsewhere" / "b"))
    finally:
        os.umask(before)
    assert first.diff_id == second.diff_id
    assert first.diff_id != layer_of(tmp_path / "a", "/opt/other").diff_id


def test_the_digest_and_the_size_are_those_of_the_file(tmp_path: Path) -> None:
    import hashlib

    layer = layer_of(fill(tmp_path / "stage"))
    data = layer.file.read()
    assert (layer.size, layer.files) == (len(data), 5)
    assert layer.diff_id == "sha256:" + hashlib.sha256(data).hexdigest()


def test_an_engine_gets_back_what_was_in_the_folder(tmp_path: Path) -> None:
    layer = layer_of(fill(tmp_path / "stage"))
    with tarfile.open(fileobj=layer.file) as tar:
        tar.extractall(tmp_path / "out", filter="fully_trusted")
    out = tmp_path / "out" / "opt" / "fngw" / "env"
    assert (out / "lib" / "x" / "é\udcff.py").read_bytes() == b"odd"
    assert (out / "lib" / ("long" * 40)).read_bytes() == b"z" * 513


def test_progress_is_told_in_bytes_and_ends_at_the_total(tmp_path: Path) -> None:
    (tmp_path / "stage").mkdir()
    (tmp_path / "stage" / "big").write_bytes(bytes(40 << 20))
    (tmp_path / "stage" / "more").write_bytes(bytes(1))
    told = Told()
    tree_layer.write(tmp_path / "stage", PREFIX, io.BytesIO(), told)
    total = (40 << 20) + 1
    assert told.steps == [("layer", done, total, "bytes") for done in (0, 40 << 20, total)]


def test_names_that_remove_files_of_other_layers_are_refused(tmp_path: Path) -> None:
    (tmp_path / ".wh.passwd").touch()
    with pytest.raises(BuildFailed, match=r"\.wh\.passwd") as failed:
        layer_of(tmp_path)
    assert failed.value.code == "bad_package"


def test_what_is_no_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("door")
        with pytest.raises(BuildFailed, match="neither a file") as failed:
            layer_of(tmp_path)
    assert failed.value.code == "bad_package"


def test_a_file_of_another_size_than_promised_is_noticed() -> None:
    with pytest.raises(ValueError, match="2 bytes instead of 3"):
        Writer(io.BytesIO()).regular("x", 0o644, 3, io.BytesIO(b"ab"))


def test_what_is_added_twice_is_there_once() -> None:
    writer = Writer(io.BytesIO())
    writer.regular("a/b", 0o644, 1, io.BytesIO(b"1"))
    assert writer.regular("a/b", 0o644, 1, io.BytesIO(b"2")) == 0
    writer.directory("a", 0o700)
    assert list(entries(writer.finish())) == ["a", "a/b"]


def test_the_runtime_is_sources_only_and_always_the_same() -> None:
    first, second = (
        runtime_layer.write("/opt/fngw/runtime", io.BytesIO()),
        runtime_layer.write("/opt/fngw/runtime", io.BytesIO()),
    )
    assert first.diff_id == second.diff_id
    files = [name for name, info in entries(first).items() if info.isreg()]
    assert {"opt/fngw/runtime/fngw/__init__.py", "opt/fngw/runtime/fngw_runtime/__main__.py"} <= set(files)
    assert all(name.endswith(".py") for name in files)
    assert not any("/cli/" in name for name in files)


@pytest.fixture
def unpacked_runtime(tmp_path: Path) -> Callable[[], Path]:
    def unpack() -> Path:
        layer = runtime_layer.write("/runtime", io.BytesIO())
        with tarfile.open(fileobj=layer.file) as tar:
            tar.extractall(tmp_path, filter="fully_trusted")
        return tmp_path / "runtime"

    return unpack


def test_the_runtime_layer_is_all_that_a_replica_imports(unpacked_runtime: Callable[[], Path]) -> None:
    """Every module of the runtime, in an interpreter that finds the layer before anything that is installed."""
    root = unpacked_runtime()
    code = (
        "import sys, pkgutil, importlib, fngw, fngw.serve, fngw_runtime\n"
        "for m in pkgutil.iter_modules(fngw_runtime.__path__):\n"
        "    if m.name != '__main__': importlib.import_module('fngw_runtime.' + m.name)\n"
        "assert fngw.deployment and fngw.batch and fngw.get and fngw.get_deployment\n"
        "files = [m.__file__ for n, m in sys.modules.items() if n.split('.')[0] in ('fngw', 'fngw_runtime')]\n"
        "print(all(f.startswith(sys.argv[1]) for f in files))"
    )
    env = {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(root)], env=env, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("True\n", "")
