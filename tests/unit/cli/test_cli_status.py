"""The page of ``fngw status NAME``: what its replicas use."""

from __future__ import annotations

from typing import Any

from fngw.cli.inspect import _page

REPLICA: dict[str, Any] = {"state": "READY", "pid": 7, "gpus": ["GPU-0"], "since": 940.0}
OVER = {"memory_mib": 1536, "gpus": {"GPU-0": {"memory_mib": 12288, "percent": 70, "own_mib": 10240}}}


def page(*replicas: dict[str, Any], **found: Any) -> list[str]:
    status = {"name": "A", "num_replicas": len(replicas), "replicas": list(replicas), **found}
    return "\n".join(_page(status, now=1000.0)).split("\n")


def test_what_a_replica_uses_beside_what_is_its_own():
    message = "a: over its GPU memory: it uses 12 GiB of GPU-0, and 10 GiB are its own"
    known, unknown = {**REPLICA, "id": "a", "use": OVER}, {**REPLICA, "id": "b", "use": None}
    assert page(known, unknown, message=message) == [
        "name      A",
        f"message   {message}",
        "replicas  2 of 2 ready",
        "",
        "REPLICA  STATE  PID  GPUS   SINCE   MEMORY   GPU MEMORY",
        "a        READY  7    GPU-0  1m ago  1.5 GiB  12 GiB, 70% of 10 GiB",
        "b        READY  7    GPU-0  1m ago  -        -",
    ]


def test_where_nothing_is_known_of_use_there_are_no_columns_for_it():
    assert page({**REPLICA, "id": "a", "use": None})[-2:] == [
        "REPLICA  STATE  PID  GPUS   SINCE",
        "a        READY  7    GPU-0  1m ago",
    ]


def test_who_was_killed_for_memory():
    lost = {"at": 970.0, "message": "replica a was killed: out of memory (it may have 4 GiB)"}
    assert page(lost=[lost]) == ["name      A", "replicas  0 of 0 ready", f"lost      30s ago: {lost['message']}"]
