"""Byte-code of environments: the same from any folder and with any number of processes, and used unchecked."""

from __future__ import annotations

import marshal
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.channel.pythons import Interpreter, interpreters
from tests.unit.builder.conftest import Told

from fngw.errors import BuildFailed
from fngw_builder.environment import bytecode
from fngw_builder.environment.bytecode import LocalCompiler

PREFIX = "/opt/fngw/env"
#: Constants whose order is that of addresses, before Python 3.11.
SETS = """
def known(x):
    return x in {None, 'a', 'b', 'c', ..., 1.5, ('d', None)}, x in {'y', 'z'}

print(*map(known, (None, 'y', ('d', None), 7)))
"""
UNCHECKED_FLAGS = 0b01  # PEP 552: hash-based, not checked


def library(stage: Path, source: Interpreter) -> Path:
    """Copy a part of a standard library: enough folders and constants that order and neighbours could matter."""
    lib = stage / "lib" / f"python{source.xy}"
    original = source.prefix / "lib" / f"python{source.xy}"
    lib.mkdir(parents=True)
    for package in ("json", "email", "logging"):
        shutil.copytree(original / package, lib / package)
    for module in original.glob("[a-c]*.py"):
        shutil.copy(module, lib)
    (lib / "broken.py").write_text("print 'hello'\n")
    (lib / "sets.py").write_text(SETS)
    (lib / "dangling.py").symlink_to("nowhere.py")
    bytecode.strip(stage)
    return lib


def compiled(stage: Path, source: Interpreter, jobs: int | None = None) -> dict[str, bytes]:
    LocalCompiler(source.executable, Told(), jobs).compile(stage, PREFIX)
    return {str(path.relative_to(stage)): path.read_bytes() for path in stage.rglob("*.pyc")}


@pytest.mark.parametrize("xy", interpreters())
def test_neither_place_nor_parallelism_decide_the_bytes(xy: str, tmp_path: Path) -> None:
    source = interpreters()[xy]
    places = [(tmp_path / "a", 1), (tmp_path / "email" / "asyncio" / "None", 2), (tmp_path / "b", 7)]
    results = []
    for stage, jobs in places:
        library(stage, source)
        results.append(compiled(stage, source, jobs))
    assert len(results[0]) > 40
    assert results[0] == results[1] == results[2]
    module = next((tmp_path / "a").rglob("sets.cpython-*.pyc"))
    done = subprocess.run([source.executable, str(module)], capture_output=True, text=True, check=True)
    assert done.stdout == "(True, False) (False, True) (True, False) (False, False)\n"


@pytest.fixture
def own() -> Interpreter:
    return interpreters()["%d.%d" % sys.version_info[:2]]


def test_byte_code_names_final_paths_and_is_used_unchecked(tmp_path: Path, own: Interpreter) -> None:
    library(tmp_path, own)
    data = compiled(tmp_path, own)[
        f"lib/python{own.xy}/json/__pycache__/decoder.cpython-{own.xy.replace('.', '')}.pyc"
    ]
    assert int.from_bytes(data[4:8], "little") == UNCHECKED_FLAGS
    code = marshal.loads(data[16:])
    assert code.co_filename == f"{PREFIX}/lib/python{own.xy}/json/decoder.py"


def test_neighbours_do_not_decide_a_packages_bytes(tmp_path: Path, own: Interpreter) -> None:
    """So it can be kept: compiled beside others, alone, and when those have byte-code already."""
    whole = library(tmp_path / "whole", own) / "site-packages"
    for name in ("email", "json", "logging"):
        shutil.copytree(whole.parent / name, whole / f"my_{name}")
    alone = tmp_path / "alone" / whole.relative_to(tmp_path / "whole")
    shutil.copytree(whole / "my_json", alone / "my_json")
    first = compiled(tmp_path / "whole", own)
    second = compiled(tmp_path / "alone", own)
    mine = {path: data for path, data in first.items() if "my_json" in path}
    assert mine == second
    shutil.rmtree(whole / "my_json" / "__pycache__")
    assert compiled(tmp_path / "whole", own) == first


def test_byte_code_can_go_elsewhere(tmp_path: Path, own: Interpreter) -> None:
    library(tmp_path / "stage", own)
    made, stage = tmp_path / "made", tmp_path / "stage"
    made.mkdir()
    line = bytecode.command(str(own.executable), str(stage), PREFIX, 2, str(made))
    subprocess.run(line, env=bytecode.VARIABLES, stdout=subprocess.DEVNULL, check=True)
    assert not list(stage.rglob("*.pyc"))
    found = {str(path.relative_to(made)): path.read_bytes() for path in made.rglob("*") if path.is_file()}
    assert found == compiled(stage, own)


def test_a_module_that_cannot_be_compiled_is_left_out(tmp_path: Path, own: Interpreter) -> None:
    lib = library(tmp_path, own)
    files = compiled(tmp_path, own)
    sources = [path for path in lib.rglob("*.py") if path.is_file()]
    assert len(files) == len(sources) - 1
    assert not any("broken" in name or "dangling" in name for name in files)


def test_python_uses_it_without_a_look_at_the_source(tmp_path: Path, own: Interpreter) -> None:
    lib = tmp_path / "lib" / "python3"
    lib.mkdir(parents=True)
    (lib / "greeting.py").write_text("text = 'compiled'\n")
    compiled(tmp_path, own)
    (lib / "greeting.py").write_text("text = 'source!!'\n")
    line = [str(own.executable), "-S", "-c", "import greeting; print(greeting.text)"]
    done = subprocess.run(line, env={"PYTHONPATH": str(lib)}, capture_output=True, text=True, check=True)
    assert done.stdout == "compiled\n"


def test_it_uses_the_environments_own_python_unless_told_otherwise(tmp_path: Path, own: Interpreter) -> None:
    library(tmp_path, own)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(own.executable)
    LocalCompiler(None, Told()).compile(tmp_path, PREFIX)
    assert list(tmp_path.rglob("*.pyc"))


def test_progress_is_told_in_files(tmp_path: Path, own: Interpreter) -> None:
    library(tmp_path, own)
    told = Told()
    LocalCompiler(own.executable, told).compile(tmp_path, PREFIX)
    done, total = told.steps[-1]
    assert done == total == sum(1 for path in tmp_path.rglob("*.py") if path.is_file())
    assert told.steps == sorted(told.steps)


def test_byte_code_that_came_with_a_package_is_removed(tmp_path: Path) -> None:
    cache = tmp_path / "lib" / "python3.11" / "x" / "__pycache__"
    cache.mkdir(parents=True)
    (cache / "m.cpython-39.pyc").touch()
    (cache / "data.json").touch()
    (cache.parent / "sourceless.pyc").touch()
    bytecode.strip(tmp_path)
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"data.json", "sourceless.pyc"}


def test_an_interpreter_that_does_not_start_is_named(tmp_path: Path) -> None:
    with pytest.raises(BuildFailed, match="could not compile") as failed:
        LocalCompiler(tmp_path / "python", Told()).compile(tmp_path, PREFIX)
    assert failed.value.code == "compile_failed"
    assert str(tmp_path / "python") in failed.value.detail


def test_a_file_that_cannot_be_written_fails_the_build(tmp_path: Path, own: Interpreter) -> None:
    lib = library(tmp_path, own)
    (lib / "json" / "__pycache__").rmdir()
    (lib / "json" / "__pycache__").write_text("in the way")
    with pytest.raises(BuildFailed) as failed:
        compiled(tmp_path, own)
    assert failed.value.code == "compile_failed"
    assert "__pycache__" in failed.value.detail


def test_a_full_disk_is_told_as_such() -> None:
    assert bytecode.failure("[Errno 28] No space left on device: 'x'").code == "disk_full"


class Stop(Exception):
    """What a cancelled build is interrupted with."""


def test_a_cancelled_build_leaves_no_process(tmp_path: Path, own: Interpreter) -> None:
    """The report is where a cancellation arrives: it raises while the script is at work."""
    library(tmp_path / "stage", own)

    class Cancelling(Told):
        def progress(self, step: str, done: int | None = None, total: int | None = None, unit: str = "") -> None:
            raise Stop

    with pytest.raises(Stop):
        LocalCompiler(own.executable, Cancelling()).compile(tmp_path / "stage", PREFIX)
    assert_nobody_names(tmp_path)


def test_the_script_ends_when_its_parent_is_killed(tmp_path: Path, own: Interpreter) -> None:
    library(tmp_path / "stage", own)
    line = bytecode.command(str(own.executable), str(tmp_path / "stage"), PREFIX, 2)
    script = subprocess.Popen(line, env=bytecode.VARIABLES, stdout=subprocess.PIPE)
    with script:
        assert script.stdout is not None
        script.stdout.readline()
        script.send_signal(signal.SIGKILL)
    assert_nobody_names(tmp_path)


def assert_nobody_names(path: Path) -> None:
    """Soon: a process that was forked while its parent was being ended notices after the file at hand."""
    deadline = time.monotonic() + 60
    while processes_that_name(path) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not processes_that_name(path)


def processes_that_name(path: Path) -> list[str]:
    """Process ids whose command line holds a path."""
    found = []
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(path).encode() in command.read_bytes():
                found.append(command.parent.name)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found
