"""Deploy, look, delete."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from fngw.errors import DeploymentNotFound, FngwError, ValidationError
from fngw.options import LIVE_OPTIONS, Options
from fngw.spec import DeploymentSpec
from fngw_gateway.api.blobs import claim
from fngw_gateway.api.gpus import check_fits, describe_use
from fngw_gateway.settings import GatewaySettings
from fngw_state import deploys
from fngw_state.deploys import Outcome
from fngw_state.records import Desired, Replica, Status
from fngw_state.store import Store
from fngw_state.usage import Measured, Usage

router = APIRouter(tags=["deployments"])

#: Writers of one name that may overtake a deploy before it gives up.
SWAP_TRIES = 50
RESOURCES = ("num_cpus", "num_gpus", "memory", "gpu_memory", "python", "conda", "pip", "env")


class DeployRequest(BaseModel):
    """What ``PUT /deployments/{name}`` takes."""

    spec: dict[str, Any] = Field(description="The deployment, as fngw.spec.DeploymentSpec.to_dict() writes it.")
    prev_version: str | None = Field(None, description="Deploy only if this version runs now.")


class Accepted(BaseModel):
    """A change was stored; follow ``/events?revision=…`` to its end."""

    revision: int
    outcome: str


@router.get("/deployments")
async def list_deployments(request: Request) -> dict[str, Any]:
    """All deployments, by name."""
    store: Store = request.app.state.store
    desired, statuses = await store.all_desired(), await store.all_status()
    settings, usage = request.app.state.settings, await Measured(store).get()
    return {"deployments": [describe(desired[n], statuses.get(n), usage, settings) for n in sorted(desired)]}


@router.get("/deployments/{name}")
async def get_deployment(name: str, request: Request) -> dict[str, Any]:
    """One deployment: its status, replicas and options."""
    store: Store = request.app.state.store
    desired, status = await find(store, name), await store.status(name)
    return describe(desired, status, await Measured(store).get(), request.app.state.settings)


@router.get("/deployments/{name}/spec")
async def get_spec(name: str, request: Request) -> dict[str, Any]:
    """The stored spec of what should run, for deploying it again. ``serves`` is false where nothing should."""
    desired = await find(request.app.state.store, name)
    revision = desired.effective or desired.target
    serves = desired.effective is not None
    return {"spec": revision.spec.to_dict(), "revision": revision.number, "serves": serves}


@router.put("/deployments/{name}", status_code=202)
async def deploy(name: str, body: DeployRequest, request: Request) -> Accepted:
    """Deploy a spec under a name. What changes is decided by the redeploy table."""
    spec = parse(name, body.spec)
    claim_blobs(spec, request.app.state.settings)
    await check_fits(request.app.state.store, spec)

    def resolve(before: Desired | None, number: int) -> tuple[Desired, Outcome]:
        deploys.check_prev_version(before, body.prev_version)
        return deploys.resolve(before, spec, number, time.time())

    return await change(request.app.state.store, name, resolve)


@router.patch("/deployments/{name}", status_code=202)
async def adjust(name: str, changes: dict[str, Any], request: Request) -> Accepted:
    """Change live options of what runs, in place: ``{"num_replicas": 3}``."""
    unknown = sorted(set(changes) - LIVE_OPTIONS)
    if unknown:
        known = ", ".join(sorted(LIVE_OPTIONS))
        raise ValidationError(f"{unknown[0]}: needs a new version, or is no option", hint=f"can change: {known}")

    def resolve(before: Desired | None, number: int) -> tuple[Desired, Outcome]:
        after, outcome = deploys.adjust(_present(before, name), changes, number, time.time())
        _check(after.target.spec)
        return after, outcome

    return await change(request.app.state.store, name, resolve)


@router.post("/deployments/{name}/cancel", status_code=202)
async def cancel(name: str, revision: int, request: Request, reason: str = "asked to") -> Accepted:
    """Give up a deploy that is under way: what served before serves on. One that is over stays as it is."""
    store: Store = request.app.state.store
    for _ in range(SWAP_TRIES):
        before = await find(store, name)
        after = deploys.cancel(before, revision, reason)
        if after is None or await store.put_desired(before, after):
            return Accepted(revision=revision, outcome="over" if after is None else "cancelled")
    raise _contended(name)


@router.delete("/deployments/{name}", status_code=202)
async def delete(name: str, request: Request) -> Accepted:
    """Stop a deployment's replicas and forget it."""
    store: Store = request.app.state.store
    for _ in range(SWAP_TRIES):
        before = await find(store, name)
        if before.deleting:
            return Accepted(revision=before.target.number, outcome="delete")
        target = dataclasses.replace(before.target, number=await store.next_number())
        after = dataclasses.replace(before, target=target, deleting=True, failure=None)
        if await store.put_desired(before, after):
            return Accepted(revision=target.number, outcome="delete")
    raise _contended(name)


async def change(
    store: Store, name: str, resolve: Callable[[Desired | None, int], tuple[Desired, Outcome]]
) -> Accepted:
    """Write what ``resolve`` makes of the present desired state, trying again when another writer was quicker."""
    for _ in range(SWAP_TRIES):
        before = await store.desired(name)
        after, outcome = resolve(before, await store.next_number())
        if after is before or await store.put_desired(before, after):
            number = after.target.number
            await store.emit(name, number, "accepted", f"revision {number}: {outcome}")
            return Accepted(revision=number, outcome=outcome)
    raise _contended(name)


async def find(store: Store, name: str) -> Desired:
    """Return what is desired under ``name``.

    Raises:
        DeploymentNotFound: nothing is.
    """
    return _present(await store.desired(name), name)


def _present(desired: Desired | None, name: str) -> Desired:
    if desired is None:
        raise DeploymentNotFound(f"no deployment is named {name!r}", hint="`fngw list` shows those that there are")
    return desired


def describe(desired: Desired, status: Status | None, usage: Usage, settings: GatewaySettings) -> dict[str, Any]:
    """Return the contract's JSON for one deployment."""
    spec = (desired.effective or desired.target).spec
    current = status if status and status.number == desired.target.number else None
    message = status.message if status else ""
    return {
        "name": desired.name,
        "version": spec.version,
        "status": _state(desired, current),
        "message": message if current else "accepted; the controller has not acted on it yet",
        "url": None if spec.route_prefix is None else settings.base_url + spec.route_prefix,
        "route_prefix": spec.route_prefix,
        "num_replicas": spec.num_replicas,
        "image": status.image if status else None,
        "lock": status.lock if status else None,
        "replicas": [_replica(r, usage) for r in (status.replicas if status else ())],
        "lost": [
            {"id": r.replica, "at": r.at, "code": r.code, "message": r.message}
            for r in (status.lost if status else ())
        ],
        "options": {key: getattr(spec, key) for key in (*sorted(LIVE_OPTIONS), *RESOURCES)},
    }


def _replica(replica: Replica, usage: Usage) -> dict[str, Any]:
    return {
        "id": replica.id,
        "state": replica.state,
        "pid": replica.pid,
        "gpus": list(replica.gpus),
        "since": replica.since,
        "message": replica.message,
        "use": describe_use(usage.replicas.get(replica.id)),
    }


def _state(desired: Desired, current: Status | None) -> str:
    if desired.deleting:
        return "DELETING"
    return str(current.status) if current else "UPDATING"


def parse(name: str, data: dict[str, Any]) -> DeploymentSpec:
    """Return the spec, checked again: callers other than the SDK may send anything."""
    try:
        spec = DeploymentSpec.from_dict(data)
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        hint = "the SDK writes it: fngw.spec.DeploymentSpec.to_dict()"
        raise ValidationError(f"spec: {_told(error)}", hint=hint) from None
    if spec.name != name:
        text = f"spec.name is {spec.name!r}, but the URL says {name!r}"
        raise ValidationError(text, hint="PUT it under its own name")
    _check(spec)
    return spec


def _told(error: Exception) -> str:
    return f"it lacks {error}" if isinstance(error, KeyError) else str(error)


def _check(spec: DeploymentSpec) -> None:
    """Hold a spec's options to the same rules as the SDK does."""
    names = {f.name for f in dataclasses.fields(Options)}
    try:
        Options(**{k: v for k, v in spec.to_dict().items() if k in names})
    except TypeError as error:
        raise ValidationError(str(error), hint="docs/reference/options.md has the type of each option") from None
    if spec.user_config is not None and not spec.code.has_reconfigure:
        raise ValidationError(
            "user_config: given, but there is no reconfigure method to take it",
            hint="define `def reconfigure(self, config)` on the class",
        )


def claim_blobs(spec: DeploymentSpec, settings: GatewaySettings) -> None:
    """Keep a spec's blobs while it is on its way into the desired state.

    Raises:
        ValidationError: one of them is not there (``blob_missing``).
    """
    for digest in spec.blobs:
        if not claim(settings.layout.blob(digest)):
            text = f"blob {digest} is not there: it was never uploaded, or its version was pruned"
            raise ValidationError(
                text, code="blob_missing", hint="deploy from the sources; or PUT it to /blobs first"
            )


def _contended(name: str) -> FngwError:
    text = f"{name}: too many deploys of this name at the same time; nothing was changed"
    return FngwError(text, code="contended", status=409, hint="try again when they have ended")


__all__ = ["Accepted", "change", "claim_blobs", "describe", "find", "router"]
