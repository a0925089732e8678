"""Text on the command line → Python values."""

from __future__ import annotations

import datetime
import io
from pathlib import Path

import pytest

from fngw.cli.inspect import ago
from fngw.cli.report import coloured, exit_code, jsonable, table, usage_error
from fngw.cli.schedule import moment
from fngw.cli.values import data_value, json_or_text, option_changes, pairs
from fngw.errors import CallNotFound, DeploymentFailed, DeploymentNotFound, FngwError, Unauthorized, Unreachable


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 1), ("true", True), ('"1"', "1"), ("[1, 2]", [1, 2]), ("hello", "hello"), ("", ""), ("{a", "{a")],
)
def test_an_argument_is_json_if_it_parses(text: str, value: object) -> None:
    assert json_or_text(text) == value


def test_a_moment_is_told_by_the_clocks_of_its_zone() -> None:
    assert moment(1_800_000_000, "Europe/Berlin") == "2027-01-15 09:00:00+01:00"
    assert moment(1_800_000_000, "Asia/Kolkata") == "2027-01-15 13:30:00+05:30"
    assert moment(None, "UTC") == "-"
    here = datetime.datetime.fromisoformat(moment(1_800_000_000, "Mars/Olympus"))
    assert here.timestamp() == 1_800_000_000


def test_pairs_may_hold_equal_signs() -> None:
    assert pairs(["a=1", "b=x=y", "c="], "--kwarg") == {"a": 1, "b": "x=y", "c": ""}


@pytest.mark.parametrize("entry", ["a", "=1", ""])
def test_a_pair_without_a_key(entry: str) -> None:
    with pytest.raises(FngwError) as caught:
        pairs([entry], "--kwarg")
    assert caught.value.code == "usage"


def test_text_options_stay_text() -> None:
    changes = option_changes(["python=3.11", "version=2", "num_cpus=0.5", "memory=512MiB", "route_prefix=null"])
    assert changes == {
        "python": "3.11",
        "version": "2",
        "num_cpus": 0.5,
        "memory": "512MiB",
        "route_prefix": None,
    }


def test_data_from_text_file_and_stdin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in.json").write_text("[1]")
    monkeypatch.setattr("sys.stdin", io.StringIO('{"a": 1}'))
    assert data_value('"x"') == "x"
    assert data_value(f"@{tmp_path / 'in.json'}") == [1]
    assert data_value("-") == {"a": 1}


@pytest.mark.parametrize("text", ["Ada", "@/no/such/file"])
def test_data_that_is_none(text: str) -> None:
    with pytest.raises(FngwError) as caught:
        data_value(text)
    assert caught.value.code == "usage"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DeploymentFailed("x"), 1),
        (usage_error("x"), 2),
        (DeploymentNotFound("x"), 3),
        (CallNotFound("x"), 3),
        (Unreachable("x"), 4),
        (Unauthorized("x"), 5),
    ],
)
def test_exit_codes(error: FngwError, code: int) -> None:
    assert exit_code(error) == code


def test_what_json_cannot_hold() -> None:
    import numpy

    assert jsonable(numpy.arange(2)) == [0, 1]
    assert jsonable(numpy.float32(0.5)) == 0.5
    assert jsonable(b"x") == "x"
    assert jsonable({1}) == [1]
    assert jsonable(1 + 2j) == "(1+2j)"


def test_columns_are_aligned_and_have_no_trailing_space() -> None:
    assert table(("A", "B"), [("long", "")]) == "A     B\nlong"


def test_no_colour_where_none_is_wanted() -> None:
    assert coloured("HEALTHY", {}) == "HEALTHY", "not a terminal"


@pytest.mark.parametrize(("since", "text"), [(100, "0s ago"), (40, "1m ago"), (None, "-"), ("a day", "a day")])
def test_ago(since: object, text: str) -> None:
    assert ago(since, now=100.0) == text
