"""``fngw list``, ``fngw status``, ``fngw versions``, ``fngw logs``: what there is, and how it is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from fngw.cli import report
from fngw.cli.gpus import size_text, use_text
from fngw.cli.options import AsJson, Name, Token, Url, connected
from fngw.errors import FngwError

EXAMPLES = {
    "list": ("fngw list", "fngw list --json"),
    "status": ("fngw status Greeter", "fngw status Greeter --json", "fngw status Model --lock"),
    "versions": ("fngw versions Greeter", "fngw versions Greeter --json"),
    "logs": (
        "fngw logs Greeter -f",
        "fngw logs Greeter --tail 100 --since 10m",
        "fngw logs Greeter --build -f",
    ),
}


def list_(url: Url = None, token: Token = None, as_json: AsJson = False) -> None:
    """List what is deployed.

    With --json: {"deployments": [as `fngw status NAME --json`]}.
    """
    with connected(url, token) as client:
        found = sorted(client.deployments(), key=lambda d: str(d["name"]))
    if as_json:
        report.show_json({"deployments": found})
    elif found:
        print(report.table(("NAME", "VERSION", "STATUS", "REPLICAS", "URL"), map(_row, found)))
    else:
        print("nothing is deployed; fngw deploy FILE changes that")


def _row(status: dict[str, Any]) -> tuple[str, ...]:
    return (
        str(status["name"]),
        status["version"] or "-",
        str(status["status"]),
        f"{_ready(status)}/{status['num_replicas']}",
        status["url"] or "-",
    )


def _ready(status: dict[str, Any]) -> int:
    return sum(r["state"] == "READY" for r in status["replicas"])


def status(
    name: Name,
    lock: Annotated[
        bool, typer.Option("--lock", help="What its dependencies were solved to, as JSON, instead.")
    ] = False,
    url: Url = None,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Show one deployment and its replicas; or, with --lock, all packages that it runs with, and their hashes.

    With --json: {"name", "version", "status", "message", "url", "route_prefix", "num_replicas", "image", "lock",
    "replicas": [{"id", "state", "pid", "gpus", "since", "message", "use": {"memory_mib", "gpus": {UUID:
    {"memory_mib", "percent", "own_mib"}}} or null where nobody measures}],
    "lost": the last five that died by themselves [{"id", "at", "code", "message"}], "options"}.
    """
    with connected(url, token) as client:
        found = client.deployment(name)
        text = client.lock(_lock_of(found)) if lock else ""
    if lock:
        print(text, end="")
    elif as_json:
        report.show_json(found)
    else:
        print("\n".join(_page(found, time.time())))


def _lock_of(status: dict[str, Any]) -> str:
    """Return the digest of a deployment's lock.

    Raises:
        FngwError: it has none (``no_lock``).
    """
    if status["lock"]:
        return str(status["lock"])
    options = status["options"]
    if options.get("conda") is None and not options.get("pip"):
        why, hint = "it asks for no conda or pip packages", "it runs on what the base image has"
    else:
        why, hint = "its environment is not built yet", f"fngw logs {status['name']} --build -f shows how that goes"
    raise FngwError(f"{status['name']} has no lock: {why}", code="no_lock", hint=hint)


def _page(status: dict[str, Any], now: float) -> Iterator[str]:
    shown = ("name", "version", "status", "message", "url", "image", "lock")
    for key in shown:
        if status.get(key):
            yield f"{key:<10}{report.coloured(str(status[key]))}"
    yield f"{'replicas':<10}{_ready(status)} of {status['num_replicas']} ready"
    for lost in reversed(status.get("lost") or ()):
        yield f"{'lost':<10}{ago(lost['at'], now)}: {lost['message']}"
    if status["replicas"]:
        yield ""
        measured = any(r.get("use") for r in status["replicas"])
        heads = ("REPLICA", "STATE", "PID", "GPUS", "SINCE", *(("MEMORY", "GPU MEMORY") if measured else ()))
        rows = [_replica(r, now) + (_use(r.get("use")) if measured else ()) for r in status["replicas"]]
        yield report.table(heads, rows)


def _replica(replica: dict[str, Any], now: float) -> tuple[str, ...]:
    return (
        str(replica["id"]),
        str(replica["state"]),
        str(replica.get("pid") or "-"),
        ",".join(map(str, replica.get("gpus") or ())) or "-",
        ago(replica.get("since"), now),
    )


def _use(use: dict[str, Any] | None) -> tuple[str, ...]:
    """What a replica uses of the host's memory, and of each of its GPUs."""
    if use is None:
        return ("-", "-")
    parts = [f"{use_text(gpu)} of {size_text(gpu['own_mib'])}" for gpu in use["gpus"].values()]
    return (size_text(use["memory_mib"]), "; ".join(parts) or "-")


def ago(since: Any, now: float) -> str:
    """Return how long ago a moment (Unix seconds) was; anything else as it is.

    Example:
        >>> ago(1000.0, now=1090.0)
        '1m ago'
    """
    if not isinstance(since, (int, float)):
        return str(since or "-")
    seconds = max(0, int(now - since))
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size}{unit} ago"
    return f"{seconds}s ago"


def versions(name: Name, url: Url = None, token: Token = None, as_json: AsJson = False) -> None:
    """List the versions that were rolled out, newest first.

    With --json: {"versions": [{"number", "version", "image", "lock", "deployed_at", "serving"}]}.
    """
    with connected(url, token) as client:
        found = client.versions(name)
    if as_json:
        report.show_json({"versions": found})
        return
    rows = [_version(v, time.time()) for v in found]
    print(report.table(("", "NUMBER", "VERSION", "IMAGE", "DEPLOYED"), rows))


def _version(version: dict[str, Any], now: float) -> tuple[str, ...]:
    return (
        "*" if version["serving"] else "",
        str(version["number"]),
        version["version"] or "-",
        version["image"] or "-",
        ago(version["deployed_at"], now),
    )


def logs(
    name: Name,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on with what comes.")] = False,
    since: Annotated[
        str, typer.Option("--since", metavar="T", help="Only younger: 10m, 2h, or a time.", show_default=False)
    ] = "",
    tail: Annotated[
        int | None,
        typer.Option(
            "--tail", min=0, metavar="N", help="Only the last N lines of each replica.", show_default=False
        ),
    ] = None,
    build: Annotated[bool, typer.Option("--build", help="The log of its build instead.")] = False,
    url: Url = None,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Show what the replicas of a deployment log, or what its build did.

    With -f it goes on, also with replicas that start later, until the deployment is deleted. Of replicas that are
    gone the last lines are kept as long as the deployment is there.

    With --build: the log of the build of what was deployed last, whether it went well or not; with -f until that
    build is over.

    With --json: a line {"line": "..."} for each.
    """
    with connected(url, token) as client:
        for line in client.logs(name, tail=tail, since=since, follow=follow, build=build):
            if as_json:
                report.show_json({"line": line})
            else:
                print(line, flush=follow)
