"""Importing a user's file and finding its deployments."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fngw.cli.load import load, split_target
from fngw.errors import FngwError

TWO = """
import fngw

@fngw.deployment
def one(request): ...

@fngw.deployment(name="Second")
class Two: ...

def plain(): ...
"""

Write = Callable[..., str]


@pytest.fixture(autouse=True)
def clean_imports(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str, name: str = "cliapp.py") -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return str(path)

    return write


def fails(target: str) -> FngwError:
    with pytest.raises(FngwError) as caught:
        load([target])
    return caught.value


def test_all_or_one(write: Write) -> None:
    path = write(TWO)
    assert [d.name for d in load([path])] == ["one", "Second"]
    assert [d.name for d in load([path + ":Two"])] == ["Second"]
    assert [d.name for d in load([path + ":Two", path])] == ["Second", "one"]


def test_those_that_are_only_imported_do_not_count_beside_own_ones(write: Write) -> None:
    write(TWO, "cliother.py")
    own = "import fngw\nfrom cliother import Two\n\n@fngw.deployment\ndef mine(request): ...\n"
    assert [d.name for d in load([write(own)])] == ["mine"]
    assert [d.name for d in load([write("from cliother import Two", "cliagain.py")])] == ["Second"]


def test_a_file_of_a_package_is_imported_as_such(write: Write) -> None:
    write("", "clipkg/__init__.py")
    write("VALUE = 1", "clipkg/near.py")
    path = write("from .near import VALUE\n" + TWO, "clipkg/app.py")
    assert load([path])[0].func_or_class.__module__ == "clipkg.app"


def test_a_file_without_deployments_says_what_it_has(write: Write) -> None:
    error = fails(write("def f(): ...\nclass C: ...\nx = 1\n"))
    assert error.code == "no_deployments"
    assert "the function f, the class C, but without @fngw.deployment" in error.message
    assert "@fngw.deployment" in error.hint
    assert "it defines nothing" in fails(write("", "cliempty.py")).message


def test_an_attribute_that_is_no_deployment(write: Write) -> None:
    path = write(TWO)
    assert fails(path + ":plain").code == "not_a_deployment"
    missing = fails(path + ":Tow")
    assert missing.code == "attribute_not_found"
    assert missing.hint == "did you mean 'Two'?"


def test_an_error_in_the_file_shows_its_own_traceback_alone(write: Write) -> None:
    path = write("def f():\n    return 1 / 0\nf()\n")
    error = fails(path)
    assert error.code == "import_failed"
    assert error.message == "cliapp.py cannot be imported: ZeroDivisionError: division by zero"
    frames = [line for line in error.detail.splitlines() if line.startswith("  File")]
    assert len(frames) == 2
    assert all(path in frame for frame in frames)
    assert "cliapp" not in sys.modules


def test_a_syntax_error_has_its_line_and_no_frames(write: Write) -> None:
    error = fails(write("x = (\n"))
    assert "SyntaxError" in error.message
    assert "load.py" not in error.detail
    assert "line 1" in error.detail


def test_a_missing_module_and_an_exit(write: Write) -> None:
    assert "install cli_no_such_thing" in fails(write("import cli_no_such_thing")).hint
    assert "ended the program" in fails(write("raise SystemExit(0)", "cliexit.py")).message


@pytest.mark.parametrize("name", ["json.py", "pytest.py", "secrets.py"])
def test_a_name_that_is_taken(write: Write, name: str) -> None:
    assert fails(write(TWO, name)).code == "module_name_taken"


def test_two_of_one_name(write: Write) -> None:
    again = TWO.replace("def one", '@fngw.deployment(name="Second")\ndef other(request): ...\ndef one', 1)
    again = again.replace("@fngw.deployment\n", "", 1)
    assert fails(write(again)).code == "duplicate_name"


def test_what_it_prints_does_not_get_among_results(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    load([write("print('noise')\n" + TWO)])
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "noise\n")


def test_targets(write: Write, tmp_path: Path) -> None:
    path = write(TWO)
    assert split_target(path) == (Path(path), "")
    assert split_target(path + ":a.b") == (Path(path), "a.b")
    for wrong in (str(tmp_path), str(tmp_path / "no.py"), str(tmp_path / "no.py") + ":x"):
        assert fails(wrong).code == "usage"
