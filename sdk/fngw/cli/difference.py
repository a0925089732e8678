"""What a deploy would change: the redeploy table of docs/updating.md, told before it happens.

Pure. The gateway decides by ``fngw_state.deploys.resolve``; a test holds the two to the same outcomes.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from fngw.options import LIVE_OPTIONS
from fngw.spec import CodeRef, DeploymentSpec, digest_of

__all__ = ["Action", "Change", "Step", "compare", "describe"]

#: Members of a spec that nobody sets in a deploy, or that name it.
_NOT_ASKED = frozenset({"name", "lock", "upgrade"})
#: Told by their digests: nobody reads them on one line.
_OPAQUE = {"code": "code", "init": "arguments", "conda": "conda"}
#: Longer values are cut where they are shown to people.
WIDTH = 60


class Action(StrEnum):
    """What happens to one deployment."""

    CREATE = "create"
    REPLACE = "replace"
    UPDATE = "update"
    UNCHANGED = "unchanged"
    REMOVE = "remove"


@dataclass(frozen=True)
class Change:
    """One option: what it is, and what it shall be."""

    option: str
    old: Any
    new: Any


@dataclass(frozen=True)
class Step:
    """What happens to one deployment.

    Args:
        changes: what becomes different.
        kept: what is different in what was asked for, but counts only with a new version.
        versioned: whether it was asked for with a version; without one it is always replaced.
    """

    name: str
    action: Action
    changes: tuple[Change, ...] = field(default=())
    kept: tuple[Change, ...] = field(default=())
    versioned: bool = True


def compare(asked: DeploymentSpec, deployed: DeploymentSpec | None) -> Step:
    """Return what deploying ``asked`` would do.

    Args:
        asked: what shall run.
        deployed: what runs under its name, or None.

    Example:
        >>> compare(spec, None).action
        <Action.CREATE: 'create'>
    """
    versioned = asked.version is not None
    if deployed is None:
        return Step(asked.name, Action.CREATE, versioned=versioned)
    found = _differences(deployed, asked)
    if not versioned or asked.version != deployed.version:
        return Step(asked.name, Action.REPLACE, found, versioned=versioned)
    live = tuple(c for c in found if c.option in LIVE_OPTIONS)
    kept = tuple(c for c in found if c.option not in LIVE_OPTIONS)
    return Step(asked.name, Action.UPDATE if live else Action.UNCHANGED, live, kept)


def _differences(old: DeploymentSpec, new: DeploymentSpec) -> tuple[Change, ...]:
    found: list[Change] = []
    for member in dataclasses.fields(DeploymentSpec):
        before, after = getattr(old, member.name), getattr(new, member.name)
        if member.name in _NOT_ASKED or before == after:
            continue
        if member.name == "env":
            found += _variables(before, after)
        elif member.name in _OPAQUE:
            found.append(Change(_OPAQUE[member.name], _digest(before), _digest(after)))
        else:
            found.append(Change(member.name, before, after))
    return tuple(found)


def _variables(old: Mapping[str, str], new: Mapping[str, str]) -> list[Change]:
    """Name the variables that differ. Their values may be secrets, and this is shown."""
    names = [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
    said = {True: "set", False: None}
    return [
        Change(f"env.{n}", said[n in old], "set to another value" if n in old and n in new else said[n in new])
        for n in names
    ]


def _digest(value: Any) -> str | None:
    """Return a short name for a value that is too long to be shown, and is a digest where it is a text."""
    if value is None:
        return None
    plain = dataclasses.asdict(value) if isinstance(value, CodeRef) else value
    digest = plain if isinstance(plain, str) else digest_of(json.dumps(plain, sort_keys=True).encode())
    return digest.rpartition(":")[2][:12]


# -- for people -------------------------------------------------------------------------------------------


def describe(step: Step) -> list[str]:
    """Return the lines that tell of a step.

    Example:
        >>> describe(Step("Greeter", Action.UPDATE, (Change("num_replicas", 1, 3),)))
        ['update     Greeter', '             num_replicas: 1 → 3']
    """
    unversioned = step.action == Action.REPLACE and not step.versioned
    head = f"{step.action:<10} {step.name}" + (" (it has no version)" if unversioned else "")
    lines = [f"{c.option}: {_shown(c.old)} → {_shown(c.new)}" for c in step.changes]
    lines += [f"{c.option}: {_shown(c.old)} → {_shown(c.new)} counts only with a new version" for c in step.kept]
    return [head, *(" " * 13 + line for line in lines)]


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= WIDTH else text[: WIDTH - 1] + "…"
