"""Errands: a real builder looks around, and empties its caches, for who waits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from fngw.errors import FngwError
from fngw_builder import upkeep
from fngw_state import errands
from fngw_state.errands import Workers
from fngw_state.layout import Layout
from fngw_state.records import BuildRequest

NOWHERE = {"DOCKER_HOST": "unix:///nowhere/docker.sock"}


def downloaded(layout: Layout) -> Path:
    """An unpacked conda package in the cache."""
    package = layout.cache / "packages" / "numpy-1.26.4-0"
    package.mkdir(parents=True)
    (package / "data").write_bytes(b"x" * 100_000)
    return package


def test_a_survey(start_builder: Any, connection: Redis, layout: Layout) -> None:
    downloaded(layout)
    layout.locks.mkdir()
    (layout.locks / ("a" * 64 + ".json")).write_text("{}")
    start_builder(**NOWHERE)
    found = errands.run(connection, errands.SURVEY, "process", "3.11", wait_s=30)
    assert found["cache"]["packages"] >= 100_000
    assert (found["cache_limit"], found["locks"]) == (20 << 30, 1)
    assert set(found["stored"]) == {"sources", "environments", "locks"}
    assert "No such file" in found["docker"]["problem"]
    assert found["base"] is None, "the server's own Python can serve"


def test_nothing_to_build_on(start_builder: Any, connection: Redis) -> None:
    start_builder(**NOWHERE)
    found = errands.run(connection, errands.SURVEY, "process", "3.99", wait_s=30)
    assert "no Python 3.99" in found["base"]["problem"]
    assert found["base"]["hint"]


@pytest.mark.docker
def test_a_survey_of_the_docker_engine(monkeypatch: pytest.MonkeyPatch, layout: Layout) -> None:
    monkeypatch.setenv("FNGW_DATA_DIR", str(layout.data))
    found = upkeep.survey("docker", "3.11")
    assert found["base"] is None
    assert found["docker"]["version"]
    assert set(found["docker"]["images"]) == {"functions", "environments"}
    assert upkeep.survey("docker", "3.99")["base"]["problem"].startswith("no base image for Python 3.99")


@pytest.mark.parametrize(
    ("info", "knows"),
    [
        ({"Runtimes": {"runc": {}, "nvidia": {}}}, True),
        ({"Runtimes": {"runc": {}}, "DiscoveredDevices": [{"Source": "cdi", "ID": "nvidia.com/gpu=0"}]}, True),
        ({"Runtimes": {"runc": {}}, "DiscoveredDevices": None}, False),
        ({}, False),
    ],
)
def test_whether_an_engine_knows_nvidia(info: dict[str, Any], knows: bool) -> None:
    assert upkeep.knows_nvidia(info) is knows


def test_the_disk_of_an_engine_elsewhere_cannot_be_seen(tmp_path: Path) -> None:
    assert upkeep.disk(Path()) is None
    assert upkeep.disk(tmp_path / "elsewhere") is None
    assert upkeep.disk(tmp_path)["total"] > 0  # type: ignore[index]


def test_the_caches_are_emptied(start_builder: Any, connection: Redis, layout: Layout) -> None:
    package = downloaded(layout)
    start_builder()
    answer = errands.run(connection, errands.PRUNE, wait_s=30)
    assert answer["freed"] >= 100_000
    assert sum(answer["left"].values()) == 0
    assert not package.exists()
    assert errands.run(connection, errands.PRUNE, wait_s=30)["freed"] == 0


def test_errands_are_run_while_builds_are_under_way(
    start_builder: Any, connection: Redis, client: Any, wait_for: Any
) -> None:
    digest = client.bundle({"app.py": "x = 1"})
    client.stalled(digest)
    start_builder()
    hangs = client.ask(BuildRequest("process", "3.11", digest))
    wait_for("the build", lambda: client.building(hangs))
    assert errands.run(connection, errands.PRUNE, wait_s=30)["freed"] == 0
    wait_for("one busy builder, and others", lambda: (b := errands.workers(connection)).idle and b.busy == 1)


def test_without_a_builder_there_is_no_answer(connection: Redis) -> None:
    assert errands.workers(connection) == Workers(0, 0, 0, 0)
    with pytest.raises(FngwError) as caught:
        errands.run(connection, errands.SURVEY, "process", "3.11", wait_s=1)
    assert caught.value.code == "builder_silent"
    assert errands.workers(connection).waiting == 0, "nobody waits for it any more"


def test_an_errand_that_fails_tells_why(start_builder: Any, connection: Redis, layout: Layout) -> None:
    layout.cache.write_text("a file where a folder should be")
    start_builder()
    with pytest.raises(FngwError) as caught:
        errands.run(connection, errands.PRUNE, wait_s=30)
    assert caught.value.code == "errand_failed"
    assert "NotADirectoryError" in caught.value.detail or "FileExistsError" in caught.value.detail
    layout.cache.unlink()
    assert errands.run(connection, errands.PRUNE, wait_s=30)["freed"] == 0
