"""``fngw calls`` and ``fngw call --async``: how the command line is read. What they do is in tests/e2e."""

from __future__ import annotations

import pytest

from .conftest import Run, StatusGateway


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["calls"], "Missing argument"),
        (["calls", "lost"], "lost"),
        (["calls", "get"], "takes one id"),
        (["calls", "result", "a", "b"], "takes one id"),
        (["calls", "cancel"], "takes the ids"),
        (["calls", "list", "a"], "takes no id"),
        (["calls", "list", "--status", "odd"], "odd"),
        (["calls", "list", "--limit", "0"], "limit"),
    ],
)
def test_what_cannot_be_meant(gateway: StatusGateway, run: Run, argv: list[str], told: str) -> None:
    done = run(*argv)
    assert done.code == 2
    assert told in done.err


@pytest.mark.parametrize("action", ["get", "result", "cancel", "retry"])
def test_what_is_no_id(gateway: StatusGateway, run: Run, action: str) -> None:
    done = run("calls", action, "../x", "--json")
    assert (done.code, done.json["error"]["code"]) == (3, "call_not_found")
