"""What a deploy means, given what was there: the redeploy table of ``docs/updating.md`` as a pure function."""

from __future__ import annotations

import dataclasses
from enum import StrEnum

from fngw.errors import VersionConflict
from fngw.spec import DeploymentSpec
from fngw_state.records import Desired, Revision

#: Live options that the replicas themselves must learn of; the others concern gateways and the controller.
TOLD = ("user_config", "max_concurrent_queries")


class Outcome(StrEnum):
    """What a deploy did to the desired state."""

    NEW = "new"  # nothing ran under this name
    REPLACE = "replace"  # rolling replacement
    UPDATE = "update"  # scale, route, user_config, limits: in place
    UNCHANGED = "unchanged"


def check_prev_version(desired: Desired | None, prev_version: str | None) -> None:
    """Refuse a deploy whose ``prev_version`` is not what runs now.

    Raises:
        VersionConflict: another version runs, or none.
    """
    if prev_version is None:
        return
    current = desired.effective if desired else None
    running = current.spec.version if current else None
    if current is None or running != prev_version:
        what = f"version {running!r}" if current else "nothing"
        raise VersionConflict(
            f"prev_version is {prev_version!r}, but {what} runs now",
            hint="deploy again with the version that runs as prev_version, or without prev_version",
        )


def resolve(desired: Desired | None, spec: DeploymentSpec, number: int, now: float) -> tuple[Desired, Outcome]:
    """Return the desired state after deploying ``spec`` as revision ``number``, and what that means.

    Args:
        desired: what was wanted so far, or None.
        spec: what the deploy asks for.
        number: the new revision's number.
        now: Unix seconds.
    """
    base = desired.effective if desired else None
    if base is None:
        revision = Revision(number, generation=number, config_number=number, spec=spec, deployed_at=now)
        return Desired(spec.name, revision), Outcome.NEW
    assert desired is not None
    if spec.version is None or spec.version != base.spec.version:
        revision = Revision(number, generation=number, config_number=number, spec=spec, deployed_at=now)
        return dataclasses.replace(desired, target=revision, failure=None), Outcome.REPLACE
    merged = base.spec.with_live(spec)
    if merged == base.spec and not desired.failed:
        return desired, Outcome.UNCHANGED
    told = all(getattr(merged, key) == getattr(base.spec, key) for key in TOLD)
    config = base.config_number if told else number
    revision = Revision(number, base.generation, config, merged, deployed_at=now)
    outcome = Outcome.UNCHANGED if merged == base.spec else Outcome.UPDATE
    return dataclasses.replace(desired, target=revision, failure=None), outcome
