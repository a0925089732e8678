"""Linking conda packages from a real channel: what lies in the folder then, and what goes wrong."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.channel.make import Tree, make_tree
from tests.channel.serve import FaultyServer
from tests.integration.builder.locked import PREFIX, Place, Told, conda_lock, content, target

from fngw.errors import BuildFailed
from fngw_builder.environment.link import link
from fngw_builder.environment.lock import Lock


@pytest.fixture(scope="module")
def tree() -> Tree:
    return make_tree()


@pytest.fixture
def server(tree: Tree) -> Iterator[FaultyServer]:
    with FaultyServer(tree.root) as server:
        yield server


@pytest.fixture
def place(tmp_path: Path, server: FaultyServer) -> Place:
    return Place(tmp_path, server.url)


@pytest.fixture
def greeting(tree: Tree) -> Lock:
    return conda_lock(tree, "greeter", "prefixed")


def linked(lock: Lock, place: Place, name: str = "stage") -> tuple[Path, Told]:
    told = Told()
    stage = place.stage(name)
    link(lock, target(), stage, place.sources, told)
    return stage, told


def refused(lock: Lock, place: Place, name: str = "refused") -> BuildFailed:
    with pytest.raises(BuildFailed) as failed:
        linked(lock, place, name)
    return failed.value


def test_packages_are_linked_for_where_they_will_lie(greeting: Lock, place: Place, tree: Tree) -> None:
    stage, _ = linked(greeting, place)
    assert (stage / "bin" / "greet").read_text().startswith(f"#!{PREFIX}/bin/python{tree.pythons[0]}\n")
    done = subprocess.run(
        [stage / "bin" / "python", "-c", "import greeter; greeter.main()"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "hello from greeter\n"
    assert not [path for path, data in content(stage / "share").items() if str(stage).encode() in data]


def test_progress_is_told_in_bytes_and_packages(tree: Tree, place: Place) -> None:
    lock = conda_lock(tree, "greeter", "bulky")
    size = sum(package.size or 0 for package in lock.conda)
    _, told = linked(lock, place)
    downloads = told.of("download")
    assert {total for _, total in downloads} == {size}
    assert downloads == sorted(downloads)
    assert told.of("link")[-1] == (3, 3)
    _, warm = linked(lock, place, "warm")
    assert not warm.of("download")
    assert warm.of("link")[-1] == (3, 3)


def test_nothing_is_downloaded_twice(greeting: Lock, place: Place, server: FaultyServer) -> None:
    first, _ = linked(greeting, place)
    server.forget()
    second, _ = linked(greeting, place, "again")
    assert server.count() == 0
    assert content(first / "lib") == content(second / "lib")


def test_short_failures_of_the_channel_are_waited_for(greeting: Lock, place: Place, server: FaultyServer) -> None:
    server.fail("*greeter*", times=1)
    server.cut("*prefixed*", after=100, times=1)
    stage, _ = linked(greeting, place)
    assert (stage / "bin" / "greet").exists()


def test_an_unreachable_channel_is_named(greeting: Lock, place: Place, server: FaultyServer) -> None:
    server.fail("*greeter*")
    error = refused(greeting, place)
    assert error.code == "channel_unreachable"
    assert "greeter-1.0.0" in str(error)
    assert "the channel conda" in str(error)
    assert "tried 2 times" in error.hint
    server.heal()
    linked(greeting, place)


def test_a_channel_that_is_not_there_at_all(greeting: Lock, tmp_path: Path) -> None:
    assert refused(greeting, Place(tmp_path, "http://127.0.0.1:1")).code == "channel_unreachable"


def test_a_package_that_the_channel_no_longer_has(greeting: Lock, place: Place, server: FaultyServer) -> None:
    server.fail("*greeter*", status=404)
    error = refused(greeting, place)
    assert error.code == "package_gone"
    assert "--upgrade" in error.hint


def test_another_content_than_locked_is_refused_and_not_kept(
    greeting: Lock, place: Place, server: FaultyServer
) -> None:
    server.corrupt("*greeter*")
    error = refused(greeting, place)
    assert error.code == "hash_mismatch"
    assert "greeter-1.0.0" in str(error)
    server.heal()
    linked(greeting, place)


def test_a_package_whose_hash_is_wrong_in_the_channel(tree: Tree, place: Place) -> None:
    assert refused(conda_lock(tree, "badhash"), place).code == "hash_mismatch"


def test_credentials_are_sent_and_never_told(greeting: Lock, place: Place, server: FaultyServer) -> None:
    address = server.url.replace("://", "://me:${CHANNEL_PASSWORD}@") + "/conda"
    lock = replace(greeting, conda=tuple(replace(package, channel=address) for package in greeting.conda))
    sources = replace(place.sources, environ={"CHANNEL_PASSWORD": "s3cret"})
    server.fail("*greeter*")
    with pytest.raises(BuildFailed) as failed:
        link(lock, target(), place.stage(), sources, Told())
    assert "s3cret" not in f"{failed.value} {failed.value.hint} {failed.value.detail}"
    server.heal()
    stage = place.stage("healed")
    link(lock, target(), stage, sources, Told())
    assert (stage / "bin" / "greet").exists()


@pytest.mark.parametrize("damage", ["another content", "removed"])
def test_damage_in_the_cache_is_mended(greeting: Lock, place: Place, damage: str) -> None:
    linked(greeting, place)
    (module,) = place.sources.packages.glob("greeter-*/site-packages/greeter/__init__.py")
    whole = module.read_bytes()
    module.unlink()
    if damage == "another content":
        module.write_bytes(whole.replace(b"hello", b"evil!"))
    stage, _ = linked(greeting, place, "mended")
    assert next(stage.glob("lib/python*/site-packages/greeter/__init__.py")).read_bytes() == whole


def test_scripts_of_packages_do_not_run(tree: Tree, place: Place) -> None:
    stage, _ = linked(conda_lock(tree, "post-link"), place)
    record = json.loads(next((stage / "conda-meta").glob("post-link-*.json")).read_text())
    assert any("post-link" in path for path in record["files"])


class Stop(Exception):
    """What a cancelled build is interrupted with."""


def test_a_cancelled_build_leaves_no_process(tree: Tree, place: Place, server: FaultyServer) -> None:
    class Cancelling(Told):
        def progress(self, step: str, done: int | None = None, total: int | None = None, unit: str = "") -> None:
            raise Stop

    server.throttle("*bulky*", bytes_per_s=100_000)
    with pytest.raises(Stop):
        link(conda_lock(tree, "bulky"), target(), place.stage(), place.sources, Cancelling())
    children = Path("/proc/thread-self/children").read_text().split()
    assert not [child for child in children if b"link_worker" in Path("/proc", child, "cmdline").read_bytes()]
    server.heal()
    linked(conda_lock(tree, "bulky"), place, "next")
