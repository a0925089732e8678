"""Keys and plans: the same request is the same build; what a plan says is compared as a whole."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fngw.errors import BuildFailed
from fngw_builder.plan import app, base_missing, check, environment
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
    assert request_key(request) == request_key(dataclasses.replace(REQUEST, conda=shuffled(conda)))


def test_what_is_for_log_lines_only_does_not_matter() -> None:
    assert request_key(REQUEST) == request_key(dataclasses.replace(REQUEST, deployment="Greeter"))
    assert request_key(REQUEST) == request_key(BuildRequest.from_json(REQUEST.to_json()))


@pytest.mark.parametrize(
    "change",
    [
        {"engine": "process"},
        {"python": "3.12"},
        {"bundle": "sha256:" + "b" * 64},
        {"conda": {"dependencies": []}},
        {"pip": ("numpy",)},
        {"lock": "sha256:" + "c" * 64},
        {"upgrade": "now"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_everything_else_does(change: dict[str, object]) -> None:
    assert request_key(REQUEST) != request_key(dataclasses.replace(REQUEST, **change))  # type: ignore[arg-type]


words = st.text(min_size=1)


@given(words, words, words, st.none() | words)
def test_an_image_is_known_by_what_it_is_made_of(bundle: str, base: str, base_id: str, runtime: str | None) -> None:
    made = app(bundle, base, base_id, runtime)
    assert made.key == app(bundle, "another name of the same base", base_id, runtime).key
    others = [app(bundle + "x", base, base_id, runtime), app(bundle, base, base_id + "x", runtime)]
    others += [app(bundle, base, base_id, (runtime or "") + "x"), environment(base, base_id, bundle)]
    assert made.key not in {other.key for other in others}


def test_keys_never_change_by_accident() -> None:
    """A change here makes every image be built again; raise ``RECIPE`` when that is meant."""
    assert request_key(REQUEST) == "896b8fcab067f26c87fd8efa32c31c36"
    assert app("sha256:a", "fngw/runtime:py3.11", "sha256:b").key == "9fda8218d87e542de7ea460e2c2ce3e2"


def test_plans_as_text() -> None:
    assert str(environment("fngw/base:py3.11", "sha256:b", "sha256:l")) == "\n".join(
        [
            "image fngw/env:c4994874f578caf0e1ebc427427aea3d",
            "base fngw/base:py3.11 sha256:b",
            "packages of sha256:l at /opt/fngw/env",
            "byte-code of sha256:l at /opt/fngw/env",
        ]
    )
    assert str(app("sha256:a", "fngw/env:e", "sha256:e", "sha256:r")) == "\n".join(
        [
            "image fngw/app:bc3075a74c5b5bccc9ec9eaa5aba2594",
            "base fngw/env:e sha256:e",
            "runtime sha256:r at /opt/fngw/runtime",
            "code sha256:a at /srv/fngw/app",
        ]
    )
    assert str(app("sha256:a", "fngw/runtime:py3.11", "sha256:b")) == "\n".join(
        [
            "image fngw/app:9fda8218d87e542de7ea460e2c2ce3e2",
            "base fngw/runtime:py3.11 sha256:b",
            "code sha256:a at /srv/fngw/app",
        ]
    )


def test_a_draft_is_all_but_the_last_part_under_a_name_of_its_own() -> None:
    whole = environment("fngw/base:py3.11", "sha256:b", "sha256:l")
    draft = whole.draft("d00d")
    assert draft.repository == "fngw/draft-d00d"
    assert draft.parts == whole.parts[:1]
    assert draft.key not in {whole.key, app("sha256:l", whole.base, whole.base_id).key}


def test_an_image_says_what_it_is() -> None:
    made = environment("fngw/base:py3.11", "sha256:b", "sha256:l")
    assert made.labels == {"org.fngw.role": "env", "org.fngw.key": made.key}


@pytest.mark.parametrize(
    ("change", "code"),
    [
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
