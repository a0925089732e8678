"""The redeploy table, row by row, on the pure function that decides it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from fngw.errors import VersionConflict
from fngw.spec import CodeRef, DeploymentSpec
from fngw_state.deploys import Outcome, check_prev_version, resolve
from fngw_state.records import Desired, Failure


def spec(version: str | None = "1", code: str = "a", **live: Any) -> DeploymentSpec:
    return DeploymentSpec(name="f", code=CodeRef(f"sha256:{code}"), python="3.11", version=version, **live)


def running(first: DeploymentSpec) -> Desired:
    desired, outcome = resolve(None, first, 1, now=0.0)
    assert outcome == Outcome.NEW
    return dataclasses.replace(desired, stable=desired.target)


def test_no_version_always_replaces():
    before = running(spec(None))
    after, outcome = resolve(before, spec(None), 2, now=0.0)
    assert outcome == Outcome.REPLACE and after.target.generation == 2


def test_same_version_and_configuration_changes_nothing_even_with_new_code():
    before = running(spec())
    after, outcome = resolve(before, spec(code="b", num_cpus=4, env={"A": "1"}, init="sha256:x"), 2, now=0.0)
    assert outcome == Outcome.UNCHANGED and after is before


@pytest.mark.parametrize(
    ("live", "told"),
    [
        ({"num_replicas": 3}, False),
        ({"route_prefix": "/new"}, False),
        ({"request_timeout_s": 3.0}, False),
        ({"user_config": {"a": 1}}, True),
        ({"max_concurrent_queries": 5}, True),
        ({"graceful_shutdown_timeout_s": 5.0}, True),
        ({"graceful_shutdown_wait_loop_s": 5.0}, True),
        ({"health_check_period_s": 5.0}, False),
    ],
)
def test_same_version_with_other_live_options_keeps_the_replicas(live: dict[str, Any], told: bool):
    after, outcome = resolve(running(spec()), spec(code="b", **live), 2, now=0.0)
    assert outcome == Outcome.UPDATE
    assert after.target.generation == 1 and after.target.spec.code.bundle == "sha256:a"
    assert after.target.config_number == (2 if told else 1)
    for key, value in live.items():
        assert getattr(after.target.spec, key) == value


def test_a_new_version_replaces():
    after, outcome = resolve(running(spec("1")), spec("2", code="b"), 2, now=0.0)
    assert outcome == Outcome.REPLACE and after.target.generation == 2
    assert after.stable and after.stable.number == 1


def test_after_a_failed_deploy_the_version_that_serves_is_what_counts():
    broken, _ = resolve(running(spec("1")), spec("2", code="b"), 2, now=0.0)
    broken = dataclasses.replace(broken, failure=Failure(2, "constructor_failed", "no"))
    back, outcome = resolve(broken, spec("1"), 3, now=0.0)
    assert outcome == Outcome.UNCHANGED
    assert back.target.generation == 1 and not back.failed
    again, outcome = resolve(broken, spec("2", code="c"), 3, now=0.0)
    assert outcome == Outcome.REPLACE and again.target.generation == 3


def test_deploying_over_a_deletion_starts_anew():
    gone = dataclasses.replace(running(spec()), deleting=True)
    after, outcome = resolve(gone, spec(), 2, now=0.0)
    assert outcome == Outcome.NEW and not after.deleting and after.target.generation == 2


def test_prev_version_is_what_serves():
    check_prev_version(None, None)
    check_prev_version(running(spec("1")), "1")
    with pytest.raises(VersionConflict, match="version '1' runs now"):
        check_prev_version(running(spec("1")), "0")
    with pytest.raises(VersionConflict, match="nothing runs now"):
        check_prev_version(None, "1")
