"""``fngw apply``: make what is deployed as a file says."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fngw.cli import report
from fngw.cli.options import AsJson, Timeout, Token, Upgrade, Url, Verbose, Wait, connected
from fngw.errors import FngwError

if TYPE_CHECKING:
    from fngw.cli.difference import Step
    from fngw.cli.manifest import Entry
    from fngw.client import Client
    from fngw.progress import Progress
    from fngw.sources import Prepared

EXAMPLES = {
    "apply": (
        "fngw apply",
        "fngw apply -f production.toml --dry-run",
        "fngw apply -f production.toml --prune",
        "fngw apply --upgrade",
    ),
}


def apply(
    file: Annotated[Path, typer.Option("-f", "--file", metavar="FILE", help="What shall be deployed.")] = Path(
        "fngw.toml"
    ),
    prune: Annotated[bool, typer.Option("--prune", help="Delete deployments that the file does not name.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be done.")] = False,
    upgrade: Upgrade = False,
    timeout: Timeout = None,
    no_wait: Wait = False,
    verbose: Verbose = False,
    url: Url = None,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Make what is deployed as a TOML file says: a table [deployments.NAME] for each.

    A table has target = "FILE:ATTR", args, kwargs, and any option by its name; paths count from the file. All are
    checked and packed before the first is deployed; the first that fails ends it. With a version, only what differs
    is changed; without one, a deployment is replaced at every apply. --prune asks nothing.

    With --json: {"dry_run", "steps": [{"name", "action", "changes", "kept", "revision", "url"}]}; an action is
    create, replace, update, unchanged or remove, a change {"option", "old", "new"}.
    """
    from fngw.cli.manifest import read_manifest
    from fngw.progress import Progress, progress_for

    entries = read_manifest(file)
    with connected(url, token) as client, ExitStack() as blobs:
        progress = Progress() if as_json else progress_for(verbose=verbose)
        prepared = [blobs.enter_context(p) for p in _prepared(entries, client, progress, upgrade)]
        statuses = {s["name"]: s for s in client.deployments() if s["status"] != "DELETING"}
        steps = _plan(client, prepared, statuses, prune)
        if not as_json:
            _show(steps, {p.spec.name for p in prepared if p.spec.upgrade})
        revisions: dict[str, int] = {}
        if not dry_run:
            work = _Work(client, progress, not no_wait, timeout, statuses)
            revisions = work.carry_out(steps, dict(zip((e.name for e in entries), entries, strict=True)), prepared)
    if as_json:
        urls = {e.name: e.deployment.url for e in entries}
        shown = [_document(s, revisions.get(s.name), urls.get(s.name)) for s in steps]
        report.show_json({"dry_run": dry_run, "steps": shown})


def _prepared(entries: Sequence[Entry], client: Client, progress: Progress, upgrade: bool) -> Iterator[Prepared]:
    """Pack them all."""
    from fngw.deploying import prepare

    try:
        for entry in entries:
            progress.working(f"packing {entry.name}", brief=True)
            yield prepare(entry.deployment, entry.args, entry.kwargs, client, upgrade)
    finally:
        progress.rest()


def _plan(
    client: Client, prepared: Sequence[Prepared], statuses: Mapping[str, Mapping[str, Any]], prune: bool
) -> list[Step]:
    """Return what has to be done, in order: what holds a route that another one asks for is removed first."""
    from fngw.cli.difference import Action, Step, compare

    specs = [p.spec for p in prepared]
    steps = [compare(s, client.serving(s.name) if s.name in statuses else None) for s in specs]
    if not prune:
        return steps
    named, routes = {s.name for s in specs}, {s.route_prefix for s in specs} - {None}
    gone = {name: status["route_prefix"] for name, status in statuses.items() if name not in named}
    removals = {name: Step(name, Action.REMOVE) for name in sorted(gone)}
    first = [step for name, step in removals.items() if gone[name] in routes]
    return [*first, *steps, *(step for step in removals.values() if step not in first)]


def _show(steps: Sequence[Step], upgraded: Collection[str]) -> None:
    from fngw.cli.difference import describe

    for step in steps:
        print("\n".join(describe(step)))
    kept = [s.name for s in steps if s.name in upgraded and s.action in ("update", "unchanged")]
    if kept:
        print(f"--upgrade counts only with a new version: {', '.join(kept)} will not be solved anew")
    if not steps:
        print("the file names no deployments")


def _document(step: Step, revision: int | None, url: str | None) -> dict[str, Any]:
    shown = {key: [dataclasses.asdict(c) for c in getattr(step, key)] for key in ("changes", "kept")}
    return {"name": step.name, "action": str(step.action), **shown, "revision": revision, "url": url}


@dataclasses.dataclass(frozen=True)
class _Work:
    """Carries steps out."""

    client: Client
    progress: Progress
    wait: bool
    timeout: float | None
    statuses: Mapping[str, Mapping[str, Any]]

    def carry_out(
        self, steps: Sequence[Step], entries: Mapping[str, Entry], prepared: Sequence[Prepared]
    ) -> dict[str, int]:
        """Return the revisions of what was deployed.

        Raises:
            FngwError: that of the first step which failed; its hint names those that were not reached.
        """
        ready = {p.spec.name: p for p in prepared}
        revisions: dict[str, int] = {}
        for done, step in enumerate(steps):
            try:
                if step.name not in entries:
                    self._remove(step.name)
                elif not self._is_so(step):
                    revisions[step.name] = self._deploy(entries[step.name], ready[step.name])
            except FngwError as error:
                raise _interrupted(error, steps[done + 1 :]) from None
        return revisions

    def _is_so(self, step: Step) -> bool:
        """Whether nothing is to be done. Where the last deploy failed or goes on, another one sees it end well."""
        return step.action == "unchanged" and self.statuses[step.name]["status"] == "HEALTHY"

    def _deploy(self, entry: Entry, prepared: Prepared) -> int:
        from fngw.deploying import send

        accepted = send(
            self.client,
            entry.deployment,
            prepared,
            wait=self.wait,
            timeout=self.timeout,
            progress=self.progress,
        )
        return accepted.revision

    def _remove(self, name: str) -> None:
        from fngw.deploying import delete

        delete(name, client=self.client)
        self.progress.step(f"deleted {name}")


def _interrupted(error: FngwError, left: Sequence[Step]) -> FngwError:
    names = ", ".join(step.name for step in left if step.action != "unchanged")
    if names:
        error.hint = f"{error.hint}; not reached: {names}" if error.hint else f"not reached: {names}"
    return error
