"""The processes of one fngw, as data."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from fngw_state.layout import Layout
from fngw_supervisor.parts import Part, Site, Stage, plan_parts

SITE = Site(
    layout=Layout(data=Path("/d"), run=Path("/r")),
    redis_url="unix://:secret@/r/shared/redis.sock",
    engine="process",
    host="127.0.0.1",
    port=8000,
    tcp_fd=7,
    unix_fd=8,
    workers=1,
)


def test_one_of_each() -> None:
    assert [p.name for p in plan_parts(SITE)] == ["controller", "builder", "gateway", "dispatcher"]


def test_workers_share_the_sockets() -> None:
    gateways = [p for p in plan_parts(dataclasses.replace(SITE, workers=3)) if p.stage is Stage.GATEWAY]
    assert [p.name for p in gateways] == ["gateway-1", "gateway-2", "gateway-3"]
    assert {p.fds for p in gateways} == {(7, 8)}
    assert {(p.env["FNGW_FD"], p.env["FNGW_UNIX_FD"]) for p in gateways} == {("7", "8")}
    assert {p.env["FNGW_ACCEPTS"] for p in gateways} == {"4"}
    assert len({p.log for p in gateways}) == 3


@pytest.mark.parametrize("part", plan_parts(SITE), ids=lambda p: p.name)
def test_secrets_are_in_no_arguments_and_the_current_folder_is_not_imported_from(part: Part) -> None:
    assert "secret" not in " ".join(part.argv)
    assert "-P" in part.argv
    assert part.env["FNGW_REDIS_URL"] == SITE.redis_url
    assert part.env["FNGW_ENGINE"] == "process"


def test_as_many_dispatchers_as_asked_for() -> None:
    names = {
        n: [p.name for p in plan_parts(dataclasses.replace(SITE, dispatchers=n)) if p.stage is Stage.DISPATCHER]
        for n in (0, 2)
    }
    assert names == {0: [], 2: ["dispatcher-1", "dispatcher-2"]}


def test_redis_is_stopped_last_and_dispatchers_first() -> None:
    assert sorted(Stage) == [Stage.DISPATCHER, Stage.CONTROLLER, Stage.GATEWAY, Stage.BUILDER, Stage.REDIS]
