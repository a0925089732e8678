"""What a deploy does, as a story: pack, send what the gateway lacks, ask for it, follow it to its end.

Standard library only, Python >= 3.7; what needs more (packing, the control API's client) is loaded on first use.
"""

from __future__ import annotations

import dataclasses
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Dict, Iterator, Optional, Tuple

from fngw.errors import DeploymentFailed, DeploymentNotFound, FngwError, from_problem
from fngw.progress import Progress, progress_for, size_text
from fngw.rollout import Rollout, short

if TYPE_CHECKING:
    from fngw.client import Accepted, Client, Event
    from fngw.deployments import Deployment
    from fngw.sources import Blob, Prepared

__all__ = [
    "constructor_arguments",
    "delete",
    "delete_all",
    "deploy",
    "finish",
    "follow",
    "prepare",
    "send",
    "upgraded",
    "upload",
]

BIG = 2**20  # bytes; less is sent before anybody could read that it is being sent

OUTCOMES = {
    "new": "{name} is new",
    "replace": "{name} is replaced, replica by replica",
    "update": "{name} is updated in place",
    "unchanged": "{name} is as it was",
}
#: After the outcome of an upgrade that changes nothing.
KEPT = "; this version runs already, so nothing is solved anew: give it another version"


def deploy(
    deployment: Deployment,
    args: Tuple[Any, ...] = (),
    kwargs: Optional[Dict[str, Any]] = None,
    *,
    wait: bool = True,
    timeout: Optional[float] = None,
    upgrade: bool = False,
    progress: Optional[Progress] = None,
    client: Optional[Client] = None,
) -> Accepted:
    """Deploy, telling ``progress`` of it.

    Args:
        args, kwargs: constructor arguments; each overrides the option of its kind when not empty.
        wait: until it is healthy everywhere.
        timeout: seconds to wait; then the deploy is given up.
        upgrade: solve what it depends on anew, instead of from the lock of the last time.
        progress: None: stderr.
        client: None: one for the gateway that this process uses.

    Raises:
        TypeError: the constructor does not take these arguments; nothing was sent.
        DeploymentFailed: it failed, was overtaken (code ``superseded``) or deleted (``deleted``), or is not done
            after ``timeout`` (``timeout``).
        FngwError: as for ``Deployment.deploy``.
    """
    progress = progress_for() if progress is None else progress
    with _opened(client) as client, _resting(progress):
        progress.working(f"packing {deployment.name}", brief=True)
        prepared = prepare(deployment, args, kwargs, client, upgrade)
        if upgrade and not prepared.spec.upgrade:
            progress.step(f"{deployment.name} has neither conda nor pip: there is nothing to solve anew")
        return send(client, deployment, prepared, wait=wait, timeout=timeout, progress=progress)


def prepare(
    deployment: Deployment,
    args: Tuple[Any, ...],
    kwargs: Optional[Dict[str, Any]],
    client: Client,
    upgrade: bool = False,
) -> Prepared:
    """Pack what a deploy needs; sends nothing.

    Args:
        args, kwargs, upgrade: as for ``deploy``.

    Raises:
        TypeError, ValidationError: as for ``Deployment.deploy``.
    """
    arguments = constructor_arguments(deployment, args, kwargs)
    prepared = deployment._source.prepare(deployment._options, *arguments, client)
    return upgraded(prepared) if upgrade else prepared


def upgraded(prepared: Prepared) -> Prepared:
    """Return it with what it depends on to be solved anew, if it depends on anything."""
    spec = prepared.spec
    if spec.conda is None and not spec.pip:
        return prepared
    return dataclasses.replace(prepared, spec=dataclasses.replace(spec, upgrade=os.urandom(16).hex()))


def send(
    client: Client,
    deployment: Deployment,
    prepared: Prepared,
    *,
    wait: bool,
    timeout: Optional[float],
    progress: Progress,
) -> Accepted:
    """Deploy what was prepared, whose files are closed once they are sent; see ``deploy``."""
    name = deployment.name
    with _resting(progress):
        with prepared:
            for blob in prepared.blobs:
                upload(client, blob, progress)
        accepted = client.deploy(prepared.spec, deployment.prev_version)
        kept = KEPT if prepared.spec.upgrade and accepted.outcome in ("update", "unchanged") else ""
        progress.step(OUTCOMES.get(accepted.outcome, "{name} is accepted").format(name=name) + kept)
        if wait:
            replicas = prepared.spec.num_replicas if accepted.outcome in ("new", "replace") else None
            # Of what is as it was, the events are those of the deploy that made it so.
            over = accepted.outcome == "unchanged" and client.deployment(name)["status"] == "HEALTHY"
            told = Progress() if over else progress
            event = follow(client, name, accepted.revision, told, timeout, replicas)
            _raise_unless_done(name, event, accepted.outcome)
            progress.success(*_ending(deployment))
    return accepted


def constructor_arguments(
    deployment: Deployment, args: Tuple[Any, ...] = (), kwargs: Optional[Dict[str, Any]] = None
) -> Tuple[Tuple[Any, ...], Dict[str, Any]]:
    """Return what the constructor is called with: ``args`` and ``kwargs`` where given, else the options' own.

    Raises:
        TypeError: the constructor does not take these, or misses one.
        ValidationError: a function has no constructor.
    """
    options = deployment._options
    chosen = args or options.init_args, kwargs or options.init_kwargs
    deployment._source.check_arguments(*chosen)
    return chosen


def finish(client: Client, name: str, revision: int, progress: Progress, timeout: Optional[float] = None) -> None:
    """Follow a revision, which was asked for without a spec, to its end.

    Raises:
        DeploymentFailed: as for ``deploy``.
    """
    with _resting(progress):
        _raise_unless_done(name, follow(client, name, revision, progress, timeout))


def follow(
    client: Client,
    name: str,
    revision: int,
    progress: Progress,
    timeout: Optional[float] = None,
    replicas: Optional[int] = None,
) -> Event:
    """Tell ``progress`` of a revision's events until the terminal one, and return that.

    Args:
        timeout: seconds.
        replicas: how many new ones there shall be, where that is known.

    Raises:
        DeploymentFailed: code ``timeout``: not done after ``timeout`` seconds. The message has the last event; the
            deploy is given up, so that nothing is left half-done.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    rollout = Rollout(progress, replicas)
    try:
        for event in client.events(name, revision, deadline):
            rollout.hear(event)
            if event.terminal:
                return event
    except TimeoutError:
        client.cancel(name, revision, f"not done after {timeout:g} s")
        raise DeploymentFailed(
            f"{name} is not done after {timeout:g} s, and given up; the last was: {rollout.last}",
            code="timeout",
            hint="what served before serves on; `fngw logs` and a longer timeout may help",
        ) from None
    except KeyboardInterrupt:
        progress.trouble(f"stopped waiting; the deploy of {name} goes on: `fngw status {name}` tells how")
        raise
    raise AssertionError("client.events ends with a terminal event")


def delete(name: str, *, client: Optional[Client] = None) -> bool:
    """Delete a deployment and wait until it is gone; tell whether there was one.

    Raises:
        DeploymentFailed: code ``superseded``: it was deployed again meanwhile.
    """
    with _opened(client) as client:
        try:
            revision = client.delete(name)
        except DeploymentNotFound:
            return False
        _wait_until_gone(client, name, revision)
        return True


def delete_all(*, client: Optional[Client] = None) -> None:
    """Delete all deployments, at once, and wait until they are gone."""
    with _opened(client) as client:
        begun = []
        for status in client.deployments():
            try:
                begun.append((status["name"], client.delete(status["name"])))
            except DeploymentNotFound:  # somebody else's delete was quicker
                continue
        for name, revision in begun:
            _wait_until_gone(client, name, revision)


def _wait_until_gone(client: Client, name: str, revision: int) -> None:
    try:
        event = follow(client, name, revision, Progress())
    except DeploymentNotFound:  # gone, and its events with it
        return
    if event.kind not in ("deleted", "done"):
        raise _failure(name, event)


@contextmanager
def _resting(progress: Progress) -> Iterator[None]:
    """Whatever happens within it, nothing is told to go on after it."""
    try:
        yield
    finally:
        progress.rest()


@contextmanager
def _opened(client: Optional[Client]) -> Iterator[Client]:
    if client is not None:
        yield client
        return
    from fngw.client import Client as New

    with New() as client:
        yield client


def upload(client: Client, blob: Blob, progress: Progress) -> None:
    """Send a blob unless the gateway has it."""
    gone = 0

    def sent(size: int) -> None:
        nonlocal gone
        gone += size
        progress.working(f"sending {blob.what}", gone, blob.size, "bytes", brief=blob.size < BIG)

    new = client.upload(blob, sent)
    size = size_text(blob.size)
    progress.step(f"sent {blob.what} ({size})" if new else f"reused {blob.what} {short(blob.digest)} ({size})")


def _raise_unless_done(name: str, event: Event, outcome: str = "") -> None:
    if event.kind != "done":
        raise _failure(name, event, outcome)


def _failure(name: str, event: Event, outcome: str = "") -> FngwError:
    if event.kind == "failed" and isinstance(event.fields.get("problem"), dict):
        return _told(name, from_problem(event.fields["problem"]), outcome)
    hints = {
        "superseded": "somebody deployed it again; what runs now is theirs",
        "deleted": "somebody deleted it before it was done",
    }
    what = {"superseded": "was overtaken by a later one", "deleted": "ended as it was deleted"}
    text = what.get(event.kind) or f"failed: {event.message}"
    code = event.kind if event.kind in what else None
    return DeploymentFailed(f"the deploy of {name} {text}", code=code, hint=hints.get(event.kind, ""))


def _told(name: str, error: FngwError, outcome: str) -> FngwError:
    """Return a replica's or a build's failure as that of a deploy: of what, and what serves now."""
    left = "nothing runs under this name" if outcome == "new" else "what served before serves on"
    message = f"the deploy of {name} failed: {error.message}"
    hint = f"{error.hint}; {left}" if error.hint else f"{left}; `fngw logs {name}` has all that was said"
    return type(error)(message, code=error.code, hint=hint, status=error.status, detail=error.detail)


def _ending(deployment: Deployment) -> Tuple[str, ...]:
    if deployment.url is None:
        return (f"{deployment.name} runs; it has no route: call it by its handle",)
    return (f"{deployment.name} runs at {deployment.url}", f"curl {deployment.url}")
