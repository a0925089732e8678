"""``fngw apply`` against a fake gateway: what is sent, in which order, and what is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fngw.errors import RouteConflict, Unauthorized

from ..sdk.fake_gateway import event
from .conftest import Run, StatusGateway

Write = Callable[..., str]


@pytest.fixture
def write(app: str) -> Write:
    """Write a file with these deployments beside the app: name → more lines. Returns its path."""

    def write(**tables: str) -> str:
        path = Path(app).with_name("fngw.toml")
        path.write_text("".join(f"[deployments.{n}]\ntarget = 'cliapp.py:{t}\n" for n, t in tables.items()))
        return str(path)

    return write


GREETER = "Greeter'\nargs = ['hi']\n"
HIDDEN = "hidden'\nversion = '1'\n"


def actions(shown: dict[str, Any]) -> list[tuple[str, str]]:
    return [(step["name"], step["action"]) for step in shown["steps"]]


def test_new_unchanged_updated_replaced_removed(gateway: StatusGateway, run: Run, write: Write) -> None:
    first = run("apply", "-f", write(a=GREETER, b=HIDDEN))
    assert (first.code, first.out) == (0, "create     a\ncreate     b\n")
    assert list(gateway.specs) == ["a", "b"] and gateway.specs["a"]["version"] == "1"
    assert f"a runs at {gateway.url}/a" in first.err

    again = run("apply", "-f", write(a=GREETER, b=HIDDEN), "--json")
    assert actions(again.json) == [("a", "unchanged"), ("b", "unchanged")]
    assert again.err == "" and gateway.revision == 2  # nothing was asked for

    done = run(
        "apply", "-f", write(c=GREETER, a=GREETER + "num_replicas = 3\nmemory = '1KiB'"), "--json", "--prune"
    )
    assert actions(done.json) == [("c", "create"), ("a", "update"), ("b", "remove")]
    assert done.json["dry_run"] is False
    step = done.json["steps"][1]
    assert step["changes"] == [{"option": "num_replicas", "old": 1, "new": 3}]
    assert step["kept"] == [{"option": "memory", "old": None, "new": 1024}]
    assert (step["revision"], step["url"]) == (4, f"{gateway.url}/a")
    assert list(gateway.specs) == ["a", "c"]


def test_a_dry_run_changes_nothing(gateway: StatusGateway, run: Run, write: Write) -> None:
    run("apply", "-f", write(a=GREETER, old=GREETER))
    blobs, revision = dict(gateway.blobs), gateway.revision
    told = run("apply", "-f", write(a=GREETER + "version = '2'", b=HIDDEN), "--prune", "--dry-run")
    assert told.code == 0 and told.err == ""
    lines = ["replace    a", "             version: 1 → 2", "create     b", "remove     old"]
    assert told.out.splitlines() == lines
    assert (gateway.blobs, gateway.revision) == (blobs, revision)
    assert list(gateway.specs) == ["a", "old"]
    without = run("apply", "-f", write(a=GREETER), "--dry-run", "--json").json
    assert actions(without) == [("a", "unchanged")] and without["dry_run"] is True


def test_without_a_version_each_apply_replaces(gateway: StatusGateway, run: Run, write: Write) -> None:
    path = write(b="hidden'\n")
    run("apply", "-f", path)
    again = run("apply", "-f", path)
    assert again.out == "replace    b (it has no version)\n"
    assert gateway.revision == 2


def test_what_holds_a_route_that_is_asked_for_goes_first(gateway: StatusGateway, run: Run, write: Write) -> None:
    run("apply", "-f", write(a=GREETER + "route_prefix = '/x'", b=GREETER))
    shown = run("apply", "-f", write(c=GREETER + "route_prefix = '/x'"), "--prune", "--dry-run", "--json").json
    assert actions(shown) == [("a", "remove"), ("c", "create"), ("b", "remove")]


def test_all_is_checked_before_anything_is_sent(gateway: StatusGateway, run: Run, write: Write) -> None:
    done = run("apply", "-f", write(a=GREETER, b="Greeter'\n"))
    assert done.code == 2 and "deployments.b: Greeter(msg, loud=False): missing" in done.err
    link = Path(write(a=GREETER, b=HIDDEN)).with_name("leads_out")
    link.symlink_to("/etc/hostname")
    done = run("apply", "-f", write(a=GREETER, b=HIDDEN), "--json")
    assert done.code == 1 and done.json["error"]["code"] == "link_leaves_root"
    assert not gateway.blobs and not gateway.specs


def test_the_first_that_fails_ends_it(gateway: StatusGateway, run: Run, write: Write) -> None:
    gateway.refuse = RouteConflict("no", hint="choose another")
    done = run("apply", "-f", write(a=GREETER, b=HIDDEN, c=GREETER), "--json")
    assert done.code == 1
    error = done.json["error"]
    assert (error["code"], error["hint"]) == ("route_conflict", "choose another; not reached: b, c")
    gateway.refuse = None
    gateway.script = [event("superseded")]
    done = run("apply", "-f", write(a=GREETER))
    assert done.code == 1 and "overtaken" in done.err and "not reached" not in done.err


def test_an_unchanged_one_that_is_not_healthy_is_seen_to_its_end(
    gateway: StatusGateway, run: Run, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(a=GREETER)
    run("apply", "-f", path)
    document = gateway.document
    monkeypatch.setattr(gateway, "document", lambda name: {**document(name), "status": "UPDATING"})
    again = run("apply", "-f", path)
    assert again.out == "unchanged  a\n" and gateway.revision == 2
    assert "a runs at" in again.err


def test_exit_codes(gateway: StatusGateway, run: Run, write: Write, tmp_path: Path) -> None:
    gone = run("apply", "-f", str(tmp_path / "gone.toml"))
    assert gone.code == 2 and "no such file" in gone.err
    path = write(a=GREETER)
    assert run("apply", "-f", path, "--url", "http://localhost:9").code == 4
    gateway.refuse = Unauthorized("no")
    assert run("apply", "-f", path).code == 5
    gateway.refuse = None
    assert run("apply", "-f", write()).out == "the file names no deployments\n"
