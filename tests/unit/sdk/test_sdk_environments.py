"""Reading the files of ``conda`` and ``pip``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import fngw
from fngw.environments import read_environment
from fngw.options import Options
from fngw.pack import pack

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


# -- the Python that conda asks for -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spec",
    ["python=3.9", "python =3.9", "python==3.9.1", "python 3.9.*", "python=3.9.1=h1_0", "main::python=3.9",
     "python~=3.9.1", "python[version='3.9.*']", " python=3.9 "],
)  # fmt: skip
def test_condas_python_is_the_replicas(project: Path, spec: str) -> None:
    read = read_environment(Options(name="x", conda={"dependencies": ["numpy", spec]}), None)
    assert read.python == "3.9"


@pytest.mark.parametrize(
    "spec",
    ["python", "python>=3.9", "python >=3.9,<3.12", "python=3", "python~=3.9", "python 3.9|3.10",
     "python-dateutil=3.9", "python_abi=3.9", "pythonnet 3.9", "ipython=3.9", 3],
)  # fmt: skip
def test_more_than_one_python_leaves_the_default(spec: object) -> None:
    assert read_environment(Options(name="x", conda={"dependencies": ["numpy", spec]}), None).python is None


@pytest.mark.parametrize(
    "text",
    ["dependencies:\n  - python=3.9\n", "dependencies: [numpy, python=3.9]",
     "dependencies:\n- 'python 3.9.*' # why\n", 'dependencies: ["conda-forge::python=3.9", six]',
     "dependencies:\n  -   python = 3.9\r\n  - six\r\n"],
)  # fmt: skip
def test_condas_python_in_a_file(project: Path, text: str) -> None:
    write(project, {"environment.yml": text})
    assert read(project, conda="environment.yml").python == "3.9"


@pytest.mark.parametrize(
    "text",
    ["name: python=3.9\ndependencies: [numpy]", "# - python=3.9\n", "dependencies:\n - python-dateutil=3.9\n",
     "dependencies:\n - python=3.9\n - python=3.10\n", "dependencies:\n - ipython=3.9"],
)  # fmt: skip
def test_no_python_in_a_file(project: Path, text: str) -> None:
    write(project, {"environment.yml": text})
    assert read(project, conda="environment.yml").python is None


def test_two_pythons_are_a_conflict() -> None:
    options = Options(name="x", python="3.11", conda={"dependencies": ["python=3.9"]})
    with pytest.raises(fngw.ValidationError, match=r"'3\.11' is given, and conda asks for Python 3\.9") as caught:
        read_environment(options, None)
    assert caught.value.code == "python_conflict"
    same = Options(name="x", python="3.9", conda={"dependencies": ["python=3.9"]})
    assert read_environment(same, None) is same


def test_what_is_packed_is_for_condas_python() -> None:
    options = Options(name="x", conda={"dependencies": ["python=3.9"]})
    packed = pack(json.dumps, options, (), {}, 1 << 30)
    packed.bundle.file.close()
    assert packed.python == "3.9" and packed.options.python == "3.9"


def test_a_deployment_equals_what_is_fetched_of_it() -> None:
    conda = {"dependencies": ["python=3.9"]}
    deployment = fngw.deployment(name="x", conda=conda)(json.dumps)
    assert deployment == deployment.options(python="3.9")
