"""Reading the files of ``conda`` and ``pip``."""

from __future__ import annotations

from pathlib import Path

import pytest

import fngw
from fngw.environments import read_environment
from fngw.options import Options

from .sdk_projects import write


def read(folder: Path, **options: str) -> Options:
    return read_environment(Options(name="x", **options), folder)  # type: ignore[arg-type]


def test_requirements(project: Path) -> None:
    text = '# comment\nnumpy<2   # why\n\nrequests[socks]==2.31; \\\n  python_version >= "3.8"\n'
    text += "-r more/base.txt\n--extra-index-url https://example.com/a#b\ngit+https://example.com/x#egg=x\n"
    write(
        project, {"requirements.txt": text, "more/base.txt": "--requirement=other.txt\n", "more/other.txt": "six"}
    )
    assert read(project, pip="requirements.txt").pip == (
        "numpy<2",
        'requests[socks]==2.31;   python_version >= "3.8"',
        "six",
        "--extra-index-url https://example.com/a#b",
        "git+https://example.com/x#egg=x",
    )


def test_requirements_that_cannot_be_read(project: Path) -> None:
    write(project, {"loop.txt": "-r loop.txt", "lost.txt": "-r none.txt", "c.txt": "-c constraints.txt"})
    for name, message in (
        ("loop.txt", "itself"),
        ("lost.txt", "none.txt"),
        ("c.txt", "-c"),
        ("gone", "does not exist"),
    ):
        with pytest.raises(fngw.ValidationError, match=message):
            read(project, pip=name)


def test_conda_travels_as_it_was_written(project: Path) -> None:
    write(project, {"environment.yml": "dependencies: [numpy]\n"})
    assert read(project, conda="environment.yml").conda == {"environment_yml": "dependencies: [numpy]\n"}


def test_the_current_folder_comes_first(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(project, {"a/r.txt": "six", "b/r.txt": "numpy"})
    monkeypatch.chdir(project / "b")
    assert read(project / "a", pip="r.txt").pip == ("numpy",)


def test_what_is_no_path_stays() -> None:
    options = Options(name="x", pip=("numpy",), conda={"dependencies": []})
    assert read_environment(options, None) is options
