"""Keys and plans: the same request is the same build; what a plan says is compared as a whole."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fngw.errors import BuildFailed
from fngw_builder.plan import base_missing, build_key, check, plan
from fngw_state.builds import request_key
from fngw_state.records import BuildRequest

REQUEST = BuildRequest("docker", "3.11", "sha256:" + "a" * 64)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def shuffled(value: object) -> object:
    if isinstance(value, dict):
        return {k: shuffled(v) for k, v in reversed(value.items())}
    return [shuffled(v) for v in value] if isinstance(value, list) else value


@given(st.dictionaries(st.text(), json_values, max_size=4))
def test_the_order_of_members_does_not_matter(conda: dict[str, object]) -> None:
    request = dataclasses.replace(REQUEST, conda=conda)
    other = dataclasses.replace(REQUEST, conda=shuffled(conda))
    assert request_key(request) == request_key(other)
    assert build_key(request, "sha256:b") == build_key(other, "sha256:b")


def test_what_is_for_log_lines_only_does_not_matter() -> None:
    assert request_key(REQUEST) == request_key(dataclasses.replace(REQUEST, deployment="Greeter"))


@pytest.mark.parametrize(
    "change",
    [
        {"engine": "process"},
        {"python": "3.12"},
        {"bundle": "sha256:" + "b" * 64},
        {"conda": {"dependencies": []}},
        {"pip": ("numpy",)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_everything_else_does(change: dict[str, object]) -> None:
    other = dataclasses.replace(REQUEST, **change)  # type: ignore[arg-type]
    assert request_key(REQUEST) != request_key(other)
    assert build_key(REQUEST, "sha256:b") != build_key(other, "sha256:b")


def test_a_new_base_image_is_a_new_image_and_the_same_request() -> None:
    assert build_key(REQUEST, "sha256:b") != build_key(REQUEST, "sha256:c")
    assert request_key(REQUEST) == request_key(BuildRequest.from_json(REQUEST.to_json()))


def test_keys_never_change_by_accident() -> None:
    """A change here makes every image be built again; raise ``RECIPE`` when that is meant."""
    assert request_key(REQUEST) == "aacad51ff87cf35bca6ad485df262b1e"
    assert build_key(REQUEST, "sha256:b") == "7a97b335f1f011bd7ed58a5d45eb6be2"


def test_the_plan_as_text() -> None:
    assert str(plan(REQUEST, "fngw/runtime:py3.11", "sha256:b")) == "\n".join(
        [
            "image fngw/app:7a97b335f1f011bd7ed58a5d45eb6be2",
            "base fngw/runtime:py3.11 sha256:b",
            f"code sha256:{'a' * 64} at /srv/fngw/app",
        ]
    )


def test_the_image_says_what_it_is() -> None:
    assert plan(REQUEST, "fngw/runtime:py3.11", "sha256:b").labels == {
        "org.fngw.role": "app",
        "org.fngw.key": "7a97b335f1f011bd7ed58a5d45eb6be2",
    }


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"conda": {"dependencies": ["numpy"]}}, "environments_not_supported"),
        ({"pip": ("numpy",)}, "environments_not_supported"),
        ({"python": "../../bin/evil"}, "python_invalid"),
        ({"python": "2.7"}, "python_invalid"),
        ({"bundle": "sha256:../../etc"}, "bundle_invalid"),
        ({"engine": "swarm"}, "engine_unknown"),
    ],
)
def test_what_nobody_can_build_is_refused(change: dict[str, object], code: str) -> None:
    with pytest.raises(BuildFailed) as caught:
        check(dataclasses.replace(REQUEST, **change))  # type: ignore[arg-type]
    assert caught.value.code == code
    assert caught.value.hint


def test_asking_for_no_packages_is_not_asking_for_an_environment() -> None:
    check(dataclasses.replace(REQUEST, conda={}, pip=()))


@pytest.mark.parametrize(
    ("present", "hint"),
    [
        ([], "make images PYTHON=3.12"),
        (["3.9", "3.11"], 'make images PYTHON=3.12, or deploy with python="3.11"'),
    ],
)
def test_a_missing_base_image_says_how_to_make_one(present: list[str], hint: str) -> None:
    error = base_missing("3.12", "fngw/runtime:py3.12", present)
    assert (error.code, error.hint) == ("base_image_missing", hint)
    assert "no base image for Python 3.12" in str(error)
