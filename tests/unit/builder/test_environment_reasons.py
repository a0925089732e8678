"""What is made of the solvers' answers and messages."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fngw.errors import BuildFailed
from fngw_builder.environment import pypi
from fngw_builder.environment.lock import CondaPackage, Lock
from fngw_builder.environment.provided import Distribution, distributions, site_packages, write_stubs
from fngw_builder.environment.pypi_names import IMPORTED_AS, POPULAR, meant
from fngw_builder.environment.repodata import unreachable
from fngw_builder.environment.solve import PREFERRED, REQUIRED, choices, fit
from fngw_builder.environment.sources import Channel
from fngw_builder.environment.unsolvable import NoSolution

NEEDS = REQUIRED | PREFERRED


# -- what replicas need -------------------------------------------------------------------------------------


def test_the_needs_are_those_of_the_base_images() -> None:
    listed = Path(__file__).parents[3].joinpath("runtime-image/needs.in").read_text().split()
    assert set(listed) == NEEDS


@given(st.sets(st.sampled_from(sorted(NEEDS))))
def test_what_is_required_is_in_every_choice(needs: set[str]) -> None:
    made = list(choices(frozenset(needs)))
    assert made[0] == needs and made[-1] == needs & REQUIRED
    assert all(choice >= needs & REQUIRED for choice in made) and len(set(made)) == len(made)


def fitting(accepted: Sequence[set[str]]) -> tuple[list[frozenset[str]], object]:
    """Fit all needs where only ``accepted`` have an answer; return what was tried, and the outcome."""
    tried: list[frozenset[str]] = []

    def attempt(needs: frozenset[str]) -> str:
        tried.append(needs)
        if needs in accepted:
            return "an answer"
        raise NoSolution(f"not with {len(needs)}")

    try:
        return tried, fit(attempt, NEEDS)
    except NoSolution as reason:
        return tried, reason


def test_all_that_is_needed_is_tried_first() -> None:
    tried, found = fitting([set(NEEDS)])
    assert len(tried) == 1 and found.needs == NEEDS and found.conflict is None  # type: ignore[attr-defined]


def test_no_answer_is_found_out_at_the_second_try() -> None:
    tried, found = fitting([])
    assert tried == [NEEDS, frozenset()] and isinstance(found, NoSolution) and found.tree == "not with 0"


def test_what_is_only_preferred_gives_way() -> None:
    fewer = REQUIRED | {"uvloop"}
    found = fitting([set(), set(fewer), set(REQUIRED)])[1]
    assert found.needs == fewer and found.conflict is None  # type: ignore[attr-defined]


def test_a_conflict_keeps_its_reason_and_the_answer_without() -> None:
    found = fitting([set()])[1]
    assert found.answer == "an answer" and found.conflict.tree == "not with 4"  # type: ignore[attr-defined]


# -- messages -----------------------------------------------------------------------------------------------


def test_long_reasons_are_cut_and_kept() -> None:
    long = NoSolution("\n".join(map(str, range(50))))
    assert long.head.endswith("5\n…") and long.rest.endswith("49")
    assert NoSolution("short").head == "short" and NoSolution("short").rest == ""


OLD = """\
warning: The requested Python version 3.8 is not available
  × No solution found when resolving dependencies:
  ╰─▶ Because a was not found in the package registry and you require a,
      we can conclude that your requirements are unsatisfiable.

      hint: something for users of uv
"""
NEW = """\
error: No solution found when resolving dependencies
  cause: Because a was not found in the package registry and you require a, we can conclude that …

hint: something for users of uv
"""


@pytest.mark.parametrize("text", [OLD, NEW])
def test_uvs_messages_without_its_drawing(text: str) -> None:
    reason = pypi._no_solution(text)
    assert reason.tree.startswith("Because a was not found")
    assert not any(word in reason.tree for word in ("warning", "error:", "cause:", "hint", "╰"))
    assert reason.notes == "hint: something for users of uv"


HERE = "https://x.org/c"


@pytest.mark.parametrize(
    ("url", "text", "which", "what"),
    [
        (HERE, "error sending request for url (https://x.org/c/noarch/r.json)", HERE, "reached"),
        ("https://u:pw@x.org/c", "(https://u:********@x.org/c/linux-64/r.json)", "https://****@x.org/c", "reached"),
        (HERE, "… (401 Unauthorized) for url (https://x.org/c/r.json)", HERE, "login"),
        (HERE, "could not find subdir 'noarch' in channel 'https://x.org/c/'", HERE, "not there"),
        ("file:///c", "failed to open file `/c/noarch/repodata.json`", "file:///c", "reached"),
        (HERE, "something else", "a channel", "reached"),
    ],
)
def test_which_channel(url: str, text: str, which: str, what: str) -> None:
    error = unreachable(text, [Channel("https://other.org", "https://other.org"), Channel(url, url)], {})
    assert isinstance(error, BuildFailed) and error.code == "channel_unreachable"
    assert which in error.message and what in error.message and "pw" not in str(error)


@pytest.mark.parametrize(
    ("name", "hint"), [("sklearn", "scikit-learn"), ("yaml", "pyyaml"), ("reqests", "requests"), ("qqqq", "")]
)
def test_what_was_meant(name: str, hint: str) -> None:
    assert hint in meant(name) and bool(meant(name)) == bool(hint)


def test_known_names_are_normalised() -> None:
    for name in (*POPULAR, *IMPORTED_AS, *IMPORTED_AS.values()):
        assert name == name.lower() and "_" not in name


# -- what conda brings --------------------------------------------------------------------------------------


def write(folder: Path, path: str, text: str) -> None:
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_text(text)


def test_distributions_are_read_from_their_metadata(tmp_path: Path) -> None:
    extra = "Provides-Extra: x\nRequires-Dist: b; extra == 'x'\nRequires-Dist: c\n"
    write(
        tmp_path,
        "Foo_Bar-1.dist-info/METADATA",
        f"Metadata-Version: 2.1\nName: Foo.Bar\nVersion: 1.0\n{extra}\nText",
    )
    write(tmp_path, "old-2.egg-info/PKG-INFO", "Name: old\nVersion: 2\n")
    write(tmp_path, "older-3-py3.7.egg-info", "Name: older\nVersion: 3\n")
    write(tmp_path, "broken-1.dist-info/METADATA", "no metadata")
    write(tmp_path, "foo_bar-0.egg-info/PKG-INFO", "Name: foo-bar\nVersion: 0\n")
    requires = ("Provides-Extra: x", "Requires-Dist: b; extra == 'x'")
    assert list(distributions(tmp_path)) == [
        Distribution("foo-bar", "1.0", requires), Distribution("old", "2"), Distribution("older", "3"),
    ]  # fmt: skip


def test_stubs_are_wheels_of_that_name(tmp_path: Path) -> None:
    (line,) = write_stubs([Distribution("foo-bar", "1.0", ("Provides-Extra: x",))], tmp_path)
    assert line == f"foo-bar @ {tmp_path.as_uri()}/foo_bar-1.0-py3-none-any.whl"
    with zipfile.ZipFile(tmp_path / "foo_bar-1.0-py3-none-any.whl") as archive:
        metadata = archive.read("foo_bar-1.0.dist-info/METADATA").decode()
    assert "Name: foo-bar\nVersion: 1.0\nProvides-Extra: x\n" in metadata


def test_where_packages_lie() -> None:
    def lock(path: str | None) -> Lock:
        python = CondaPackage(
            "c", "linux-64", "f", "python", "3.13.1", "0", 0, "0" * 64, python_site_packages_path=path
        )
        return Lock("3.13", "linux-64", "2.36", None, (python,))

    assert site_packages(lock(None)) == "lib/python3.13/site-packages"
    assert site_packages(lock("lib/python3.13t/site-packages")) == "lib/python3.13t/site-packages"
