"""The commands as data, and the top help page made of it. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """One command: the module of ``fngw.cli`` and the function that do it, and what it does in a few words."""

    name: str
    module: str
    function: str
    group: str
    summary: str


COMMANDS = (
    Command("up", "up", "up", "This machine", "start fngw and keep it running"),
    Command("down", "up", "down", "This machine", "stop it"),
    Command("doctor", "doctor", "doctor", "This machine", "look whether all is well, and what takes space"),
    Command("prune", "build", "prune", "This machine", "empty the builder's caches of downloads"),
    Command("gpus", "gpus", "gpus", "This machine", "show its GPUs and memory, and who holds them"),
    Command("deploy", "deploy", "deploy", "Deployments", "deploy the functions and classes of a file"),
    Command("apply", "apply", "apply", "Deployments", "make what is deployed as a file says"),
    Command("build", "build", "build", "Deployments", "build what a deployment runs from, without deploying"),
    Command("list", "inspect", "list_", "Deployments", "list what is deployed"),
    Command("status", "inspect", "status", "Deployments", "show one deployment and its replicas"),
    Command("logs", "inspect", "logs", "Deployments", "show what a deployment logs, or its build"),
    Command("call", "call", "call", "Deployments", "call a deployment and print the result"),
    Command("calls", "calls", "calls", "Deployments", "look at queued calls, their results; cancel, try again"),
    Command("versions", "inspect", "versions", "Deployments", "list the versions that were rolled out"),
    Command("rollback", "change", "rollback", "Deployments", "go back to an earlier version"),
    Command("scale", "change", "scale", "Deployments", "change the number of replicas"),
    Command("config", "change", "config", "Deployments", "change the user_config"),
    Command("delete", "deploy", "delete", "Deployments", "delete deployments"),
    Command("completion", "completion", "completion", "This shell", "print a script that completes what is typed"),
)

BY_NAME = {command.name: command for command in COMMANDS}

_HEAD = """\
Usage: fngw COMMAND [ARGUMENTS]

fngw: decorate a Python function or class, deploy it, and it runs as replica
containers behind HTTP."""

_TAIL = """\
Every command takes:
  --json        JSON on stdout; an error as {"error": {"code", "message", "hint"}}
  --help        what it does, with examples
and those that ask a gateway:
  --url URL     where it is (FNGW_URL; default http://localhost:8000)
  --token TEXT  its token (FNGW_TOKEN)
What neither says is read from ~/.config/fngw/config.toml: url = "...", token = "...".

Exit codes: 0 done, 1 the operation failed, 2 usage, 3 not found, 4 unreachable, 5 unauthorized

Examples:
  fngw up
  fngw deploy app.py
  fngw call Greeter --data '"Ada"'
  fngw logs Greeter -f"""


def overview() -> str:
    """Return the top help page."""
    lines = [_HEAD]
    for group in dict.fromkeys(command.group for command in COMMANDS):
        lines += ["", f"{group}:"]
        lines += [f"  {c.name:<10} {c.summary}" for c in COMMANDS if c.group == group]
    return "\n".join([*lines, "", _TAIL])
