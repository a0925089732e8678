"""What a deploy means, given what was there: the redeploy table of ``docs/updating.md`` as a pure function."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from fngw.errors import DeploymentNotFound, ValidationError, VersionConflict
from fngw.options import LIVE_OPTIONS
from fngw.spec import DeploymentSpec
from fngw_state.records import Desired, Failure, LiveConfig, Revision, Version

#: Live options that the replicas themselves must learn of; the others concern gateways and the controller.
TOLD = LIVE_OPTIONS & {field.name for field in dataclasses.fields(LiveConfig)}


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
    return _update(desired, base, base.spec.with_live(spec), number, now)


def adjust(desired: Desired, changes: Mapping[str, Any], number: int, now: float) -> tuple[Desired, Outcome]:
    """Return the desired state after changing live options only: in place, whatever the version.

    Args:
        desired: what is wanted so far.
        changes: live options (``fngw.options.LIVE_OPTIONS``) and their new values.
        number, now: as for ``resolve``.

    Raises:
        ValidationError: nothing runs that could be changed.
    """
    base = desired.effective
    if base is None:
        raise ValidationError(
            f"{desired.name}: no version of it serves, so there is nothing to change", hint="deploy it first"
        )
    return _update(desired, base, dataclasses.replace(base.spec, **changes), number, now)


def cancel(desired: Desired, number: int, reason: str) -> Desired | None:
    """Return the desired state after giving up revision ``number``, or None when it is over already."""
    if desired.deleting or desired.settled or desired.failed or desired.target.number != number:
        return None
    failure = Failure(number, "cancelled", f"the deploy of {desired.name} was cancelled: {reason}")
    return dataclasses.replace(desired, failure=failure)


def rollback_spec(desired: Desired, versions: Sequence[Version], to: str | None) -> DeploymentSpec:
    """Return the spec to deploy to go back to an earlier version. The number of replicas stays as it is now.

    Args:
        desired: what is wanted so far.
        versions: the history, newest first.
        to: a version, or a revision's number; None: the newest that is not the one that serves.

    Raises:
        DeploymentNotFound: there is no such version (``version_not_found``); the hint lists those that there are.
    """
    current = desired.effective or desired.target
    if to is None:
        ours = (current.spec.version, current.spec.to_dict()["code"])
        found = [v for v in versions if (v.version, v.spec["code"]) != ours]
    else:
        found = [v for v in versions if to in (v.version, str(v.number))]
    if not found:
        known = ", ".join(dict.fromkeys(v.version or str(v.number) for v in versions)) or "none"
        text = (
            f"{desired.name}: no version {to!r} is known" if to else f"{desired.name}: there is no earlier version"
        )
        raise DeploymentNotFound(text, code="version_not_found", hint=f"known: {known}")
    spec = DeploymentSpec.from_dict(found[0].spec)
    return dataclasses.replace(spec, num_replicas=current.spec.num_replicas)


def _update(
    desired: Desired, base: Revision, spec: DeploymentSpec, number: int, now: float
) -> tuple[Desired, Outcome]:
    """Deploy ``spec``, which differs from ``base`` in live options only."""
    if spec == base.spec and not desired.failed:
        return desired, Outcome.UNCHANGED
    told = all(getattr(spec, key) == getattr(base.spec, key) for key in TOLD)
    config = base.config_number if told else number
    revision = Revision(number, base.generation, config, spec, deployed_at=now)
    outcome = Outcome.UNCHANGED if spec == base.spec else Outcome.UPDATE
    return dataclasses.replace(desired, target=revision, failure=None), outcome
