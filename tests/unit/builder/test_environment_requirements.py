"""Reading requirements: what is let through, what is refused, and where the fault is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fngw.errors import BuildFailed
from fngw_builder.environment.requirements import Requirements, read

HASH = "sha256:" + "0" * 64


def pip(*lines: str) -> Requirements:
    return read("3.11", None, lines, ["conda-forge"])


def conda(value: Mapping[str, Any], *lines: str) -> Requirements:
    return read("3.11", value, lines, ["conda-forge"])


def refused(code: str = "environment_invalid", **arguments: Any) -> str:
    values = {"python": "3.11", "conda": None, "pip": None, "channels": ["conda-forge"], **arguments}
    with pytest.raises(BuildFailed) as caught:
        read(**values)
    assert caught.value.code == code, caught.value
    return str(caught.value)


# -- pip ----------------------------------------------------------------------------------------------------


def test_requirements_are_read_as_pip_does() -> None:
    read = pip("numpy <2  # why", "", "# nothing", 'requests[socks]==2.31; python_version>="3.8"', "six")
    assert read.pip == ("numpy<2", 'requests[socks]==2.31; python_version >= "3.8"', "six")
    assert read.conda is None and read.wheels == () and read.pip_options == ()


def test_hashes_stay_with_their_requirement() -> None:
    other = HASH.replace("0", "1")
    assert pip(f"six==1.16.0   --hash={HASH} --hash {other}").pip == (f"six==1.16.0 --hash={HASH} --hash={other}",)


def test_options_become_those_of_uv() -> None:
    lines = (
        "--index-url https://u:${TOKEN}@example.com/simple",
        "-i https://example.com/b --pre",
        "--extra-index-url=https://example.com/c",
        "-f ./wheels/",
        "--find-links 'a folder'",
        "--trusted-host example.com",
        "--no-index",
        "--prefer-binary",
        "--only-binary :all:",
    )
    expected = (
        "--index-url https://u:${TOKEN}@example.com/simple --index-url https://example.com/b --prerelease allow "
        "--extra-index-url https://example.com/c --find-links ./wheels --find-links|./a folder "
        "--allow-insecure-host example.com --no-index"
    ).split(" ", 14)
    read = pip(*lines)
    assert " ".join(read.pip_options) == " ".join(expected).replace("|", " ")
    assert read.addresses == ("https://u:${TOKEN}@example.com/simple",)


def test_wheels_of_the_bundle() -> None:
    read = pip("./wheels/x-1.0-py3-none-any.whl", "wheels/y-1-py3-none-any.whl[extra] ; python_version > '3'")
    assert read.wheels == ("./wheels/x-1.0-py3-none-any.whl", "./wheels/y-1-py3-none-any.whl")
    assert read.pip[1] == "./wheels/y-1-py3-none-any.whl[extra] ; python_version > '3'"


def test_wheels_at_an_address() -> None:
    url = "https://example.com/x-1.0-py3-none-any.whl"
    digest = "#sha256=" + "0" * 64
    assert pip(f"x @ {url}{digest}", url).pip == (f"x @ {url}{digest}", f"x @ {url}")


@pytest.mark.parametrize(
    "line", ["/abs/x-1-py3-none-any.whl", "../x-1-py3-none-any.whl", "./a/../../x-1-py3-none-any.whl", "../folder",
             "~/x-1-py3-none-any.whl", "/folder", "-f ../wheels", "x @ file:///x-1.tgz#", "file:///a/folder"],
)  # fmt: skip
def test_what_is_outside_does_not_travel(line: str) -> None:
    if line.startswith("x @"):
        assert "source archive" in refused(pip=["x @ file:///x-1.tgz"])
    else:
        assert "working_dir" in refused("path_outside", pip=[line])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("-e .", "--editable is not supported"),
        ("-r more.txt", "pip='requirements.txt'"),
        ("-c c.txt", "--constraint is not supported"),
        ("--no-binary numpy", "pip wheel"),
        ("--index https://example.com", "pip calls it --extra-index-url"),
        ("--index-ur https://example.com", "did you mean '--index-url'"),
        ("--index-url", "needs a value"),
        ("--index-url example.com", "is not an address"),
        ("-i https://user:pass@example.com/simple", "in clear"),
        ("-i https://token@example.com/simple", "in clear"),
        ("git+https://example.com/x.git", "version control"),
        ("x @ git+ssh://example.com/x.git", "version control"),
        ("./folder", "is a folder"),
        ("./x-1.0.tar.gz", "source archive"),
        ("https://example.com/x-1.0.tar.gz", "source archive"),
        ("x @ https://example.com/x", "is not a wheel"),
        ("x @ https://example.com/y-1.0-py3-none-any.whl", "another package"),
        ("x @ https://me:pw@example.com/x-1.0-py3-none-any.whl", "in clear"),
        ("./wheels/renamed.whl", "not the name of a wheel"),
        ("numpy 2", "is not a requirement"),
        ("numpy=>2", "is not a requirement"),
        ("six --hash=md5:00", "is not a hash"),
        ("six --config-settings=x", "not supported behind a requirement"),
        ("a\nb", "several lines"),
        ("-f 'x", "cannot be read"),
    ],
)
def test_what_cannot_be_built_is_refused(line: str, message: str) -> None:
    assert message in refused(pip=[line])


def test_require_hashes_names_what_has_none() -> None:
    assert "no hash for numpy" in refused(pip=["--require-hashes", "numpy", f"six==1 --hash={HASH}"])
    assert pip("--require-hashes", f"six==1 --hash={HASH}").pip


# -- conda --------------------------------------------------------------------------------------------------

FILE = """\
name: demo
channels:
  - conda-forge
  - nodefaults
dependencies:
  - python=3.11
  - numpy>=1.26
  - pip:
      - requests
      - -i https://example.com/simple
prefix: /somewhere
"""


def test_a_file_and_a_dict_say_the_same() -> None:
    data = {
        "channels": ["conda-forge"],
        "dependencies": ["python=3.11", "numpy>=1.26", {"pip": ["requests", "-i https://example.com/simple"]}],
    }
    assert conda({"environment_yml": FILE}, "six") == conda(data, "six")
    assert conda(data, "six").pip == ("requests", "six")
    assert conda(data).conda == ("python=3.11", "numpy>=1.26")


def test_channels_default_to_the_settings() -> None:
    assert conda({"dependencies": ["numpy"]}).channels == ("conda-forge",)
    assert conda({"channels": ["defaults", "a/b"]}).channels == ("defaults", "a/b")


def test_an_empty_conda_still_means_conda() -> None:
    assert conda({}).conda == () and conda({"environment_yml": "dependencies:\n"}).conda == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dependencies: [numpy\nname: x", "line 2, column 5"),
        ("dependencies:\n  - numpy\n - six", "line 3, column 2"),
        ("a: 'x", "line 1, column 6"),
        ("dependencies:\n\t- numpy", "line 2, column 1"),
        ("dependencies:\n  - numpy\n  - 3", "holds 3"),
        ("dependencies:\n  - numpy\n  - 3", "line 3, column 5"),
        ("dependencies:\n  - pip:\n    - six\n    - 1.5", "dependencies.pip holds 1.5"),
        ("dependencies:\n  - pip:\n    - six\n    - 1.5", "line 4, column 7"),
        ("dependencies:\n  - pip: six", "dependencies.pip must be a list"),
        ("dependencies: numpy", "dependencies must be a list"),
        ("dependencies:\n  - conda: [x]", "the keys 'conda'"),
        ("dependencies:\n  -", "holds nothing"),
        ("channels:\n- 1", "channels holds 1"),
        ("dependency: []", "did you mean 'dependencies'"),
        ("name: x\ndependency: []", "line 2, column 1"),
        ("variables: {A: b}", "env={...}"),
        ("", "it is empty"),
        ("- numpy", "holds a list"),
        ("a: &a [*a]\nb: *c", "line 2"),
        ("dependencies: [!!python/object:os.system x]", "line 1, column 16"),
        ("dependencies: [2024-13-45]", "is not YAML"),
        ("[" * 5000, "nested too deeply"),
        ("a: \x00", "is not YAML"),
        ("dependencies:\n  - pip:\n    - git+https://example.com/x", "line 3, column 7"),
        ("dependencies:\n  - pip:\n    - -r more.txt", "pip='requirements.txt'"),
        ("channels: ['https://me:pw@example.com/x']", "in clear"),
    ],
)
def test_a_malformed_file_says_where(text: str, message: str) -> None:
    assert message in refused(conda={"environment_yml": text})


def test_a_malformed_dict_says_what() -> None:
    assert "unknown key 'dependancies'; " not in refused(conda={"dependancies": []})
    assert "did you mean 'dependencies'" in refused(conda={"dependancies": []})
    assert "environment.yml, line" not in refused(conda={"dependencies": [1]})


@pytest.mark.parametrize("spec", ["python=3.12", "python 3.12.*", "python==3.12.1", "main::python=3.12"])
def test_two_pythons_are_a_conflict(spec: str) -> None:
    message = refused("python_conflict", conda={"dependencies": ["numpy", spec]})
    assert "3.12" in message and "3.11" in message
    assert "line 3" in refused("python_conflict", conda={"environment_yml": f"dependencies:\n- numpy\n- {spec}"})


def test_a_range_of_pythons_is_the_solvers_business() -> None:
    assert conda({"dependencies": ["python>=3.12"]}).conda == ("python>=3.12",)


# -- the key ------------------------------------------------------------------------------------------------


def test_the_key_depends_on_everything() -> None:
    base = conda({"channels": ["a"], "dependencies": ["x"]}, "y", "--pre")
    others = [
        read("3.12", {"channels": ["a"], "dependencies": ["x"]}, ["y", "--pre"], []),
        conda({"channels": ["b"], "dependencies": ["x"]}, "y", "--pre"),
        conda({"channels": ["a"], "dependencies": ["z"]}, "y", "--pre"),
        conda({"channels": ["a"], "dependencies": ["x"]}, "z", "--pre"),
        conda({"channels": ["a"], "dependencies": ["x"]}, "y"),
        pip("y", "--pre"),
    ]
    assert len({base.key, *(other.key for other in others)}) == 1 + len(others)


@given(st.lists(st.sampled_from(["numpy<2", "six", "requests[socks]"]), max_size=4), st.booleans())
def test_the_key_is_stable_under_how_it_is_written(lines: list[str], spaced: bool) -> None:
    written = [line.replace("<", " < ") + "  # a comment" if spaced else line for line in lines]
    assert pip(*written).key == pip(*lines).key
    assert pip(*lines, "", "# nothing").key == pip(*lines).key
