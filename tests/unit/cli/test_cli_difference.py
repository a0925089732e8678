"""What ``fngw apply`` says that it would do is what the gateway does."""

from __future__ import annotations

import dataclasses
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fngw.cli.difference import Action, Change, Step, compare, describe
from fngw.options import LIVE_OPTIONS
from fngw.spec import CodeRef, DeploymentSpec
from fngw_state import deploys

OUTCOMES = {"new": "create", "replace": "replace", "update": "update", "unchanged": "unchanged"}


def spec(**members: Any) -> DeploymentSpec:
    given = {"code": CodeRef("sha256:aaaaaaaaaaaaaaaa", "app:f"), "python": "3.11", "version": "1", **members}
    return DeploymentSpec(name="Greeter", **given)


specs = st.builds(
    spec,
    version=st.sampled_from([None, "1", "2"]),
    num_replicas=st.integers(1, 2),
    user_config=st.sampled_from([None, {"a": 1}]),
    route_prefix=st.sampled_from([None, "/x"]),
    request_timeout_s=st.sampled_from([None, 5.0]),
    num_cpus=st.integers(1, 2),
    env=st.sampled_from([{}, {"A": "b"}]),
    init=st.sampled_from([None, "sha256:i"]),
)


@given(specs, specs)
def test_it_is_what_the_gateway_does(before: DeploymentSpec, asked: DeploymentSpec) -> None:
    desired, outcome = deploys.resolve(None, before, 1, now=0.0)
    assert compare(before, None).action == OUTCOMES[outcome]
    _, outcome = deploys.resolve(desired, asked, 2, now=1.0)
    step = compare(asked, before)
    assert step.action == OUTCOMES[outcome]
    assert (step.action == Action.UPDATE) <= ({c.option for c in step.changes} <= LIVE_OPTIONS)
    assert all(c.old != c.new for c in (*step.changes, *step.kept))


def test_changes_are_named_with_old_and_new() -> None:
    before = spec(num_replicas=1, user_config={"a": 1})
    step = compare(spec(num_replicas=3, user_config={"a": 2}, num_cpus=2), before)
    live = (Change("num_replicas", 1, 3), Change("user_config", {"a": 1}, {"a": 2}))
    assert step == Step("Greeter", Action.UPDATE, live, (Change("num_cpus", 1, 2),))
    replaced = compare(spec(version="2", code=CodeRef("sha256:bbbbbbbbbbbbbbbb", "app:f")), before)
    assert [c.option for c in replaced.changes] == ["code", "version", "user_config"]


def test_what_nobody_asked_for_is_no_difference() -> None:
    asked = spec()
    assert compare(asked, dataclasses.replace(asked, lock="sha256:l")).kept == ()


def test_values_of_variables_are_not_shown() -> None:
    before = spec(env={"TOKEN": "secret", "OLD": "x", "SAME": "y"})
    step = compare(spec(version="2", env={"TOKEN": "hidden", "NEW": "z", "SAME": "y"}), before)
    text = "\n".join(describe(step))
    assert not {"secret", "hidden"} & set(text.replace("\n", " ").split())
    assert text.splitlines() == [
        "replace    Greeter",
        "             version: 1 → 2",
        "             env.NEW: none → set",
        "             env.OLD: set → none",
        "             env.TOKEN: set → set to another value",
    ]


def test_lines_for_people() -> None:
    assert describe(compare(spec(), None)) == ["create     Greeter"]
    assert describe(compare(spec(version=None), spec())) == [
        "replace    Greeter (it has no version)",
        "             version: 1 → none",
    ]
    (head, line) = describe(compare(spec(init="sha256:0123456789abcdef"), spec()))
    assert head == "unchanged  Greeter"
    assert line == "             arguments: none → 0123456789ab counts only with a new version"
    long = describe(compare(spec(user_config={"text": "x" * 100}), spec()))[1]
    assert len(long) < 110 and long.endswith("x…")
    assert describe(Step("Old", Action.REMOVE)) == ["remove     Old"]
