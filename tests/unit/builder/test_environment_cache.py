"""The caches: what goes when, that builds under way keep theirs, and what killed ones leave."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fngw_builder.environment import claims
from fngw_builder.environment.cache import Cache, Entry, choose, remove, size_of, use

KB = 1 << 10


def entry(name: str, size: int, used: float, *, noted: bool = True, partial: bool = False) -> Entry:
    return Entry(Path(name), "packages", size, used, noted, partial)


# -- what to remove ----------------------------------------------------------------------------------------


def chosen(entries: list[Entry], limit: int, live: float | None = None) -> list[str]:
    return [str(one.path) for one in choose(entries, limit, live)]


def test_what_was_not_used_for_longest_goes_until_the_rest_fits() -> None:
    entries = [entry("b", 40, 2), entry("a", 30, 1), entry("c", 50, 3)]
    assert chosen(entries, 120) == []
    assert chosen(entries, 119) == ["a"]
    assert chosen(entries, 90) == ["a"]
    assert chosen(entries, 89) == ["a", "b"]
    assert chosen(entries, 0) == ["a", "b", "c"]


def test_what_was_used_since_the_oldest_build_stays_above_the_limit() -> None:
    entries = [entry("before", 10, 4.9), entry("at", 10, 5), entry("after", 10, 6)]
    assert chosen(entries, 0, live=5) == ["before"]


def test_what_builds_do_not_note_stays_while_there_is_one() -> None:
    entries = [entry("page", 10, 1, noted=False)]
    assert chosen(entries, 0, live=5) == []
    assert chosen(entries, 0) == ["page"]


def test_leftovers_of_killed_downloads_go_first_and_always() -> None:
    entries = [entry("old", 10, 1), entry(".part", 10, 4, partial=True), entry(".now", 10, 6, partial=True)]
    assert chosen(entries, 1000, live=5) == [".part"]
    assert chosen(entries, 20, live=5) == [".part"]
    assert chosen(entries, 10, live=5) == [".part", "old"]


def test_what_is_chosen_is_enough_and_not_more_than_needed() -> None:
    rnd = random.Random(4)
    for _ in range(300):
        entries = [entry(str(n), rnd.randrange(1, 99), rnd.random()) for n in range(rnd.randrange(9))]
        limit, total = rnd.randrange(300), sum(one.size for one in entries)
        victims = choose(entries, limit, None)
        kept = total - sum(one.size for one in victims)
        assert kept <= limit
        assert not victims or kept + victims[-1].size > limit
        assert all(a.used <= b.used for a in victims for b in entries if b not in victims)


# -- a real folder -----------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def package(folder: Path) -> Callable[..., Path]:
    """Puts an unpacked conda package of some kilobytes into the cache."""

    def make(name: str, kilobytes: int = 64) -> Path:
        path = folder / "packages" / name
        (path / "info").mkdir(parents=True)
        (path / "info" / "data").write_bytes(os.urandom(kilobytes * KB))
        path.with_name(name + ".lock").write_bytes(b"")
        return path

    return make


@pytest.fixture
def wheel(folder: Path) -> Callable[..., Path]:
    """Puts an unpacked wheel into the cache, with uv's notes of it."""

    def make(name: str) -> Path:
        archive = folder / "uv" / "archive-v0" / f"id-{name}"
        archive.mkdir(parents=True)
        (archive / "data").write_bytes(os.urandom(64 * KB))
        notes = folder / "uv" / "wheels-v8" / "index" / "0e71" / name
        notes.mkdir(parents=True)
        (notes / "1.0-py3-none-any").symlink_to(archive)
        for suffix in ("http", "msgpack", "lock"):
            (notes / f"1.0-py3-none-any.{suffix}").touch()
        return archive

    return make


def test_sizes_are_those_on_disk(folder: Path, package: Callable[..., Path], wheel: Callable[..., Path]) -> None:
    assert Cache(folder, 0).sizes() == {"packages": 0, "uv": 0, "bytecode": 0, "repodata": 0}
    package("a-1-0", 100)
    wheel("b")
    (folder / "repodata").mkdir()
    (folder / "repodata" / "x.json").write_bytes(bytes(10 * KB))
    for _ in range(2):  # measured, and remembered
        sizes = Cache(folder, 0).sizes()
        assert 100 * KB <= sizes["packages"] <= 120 * KB
        assert 64 * KB <= sizes["uv"] <= 80 * KB
        assert 10 * KB <= sizes["repodata"] <= 16 * KB


def test_a_damaged_note_of_sizes_is_written_anew(folder: Path, package: Callable[..., Path]) -> None:
    package("a-1-0")
    (folder / "sizes.json").write_text("{")
    assert Cache(folder, 0).sizes()["packages"] >= 64 * KB


def test_trimming_removes_the_oldest_with_all_that_belongs_to_it(
    folder: Path, package: Callable[..., Path], wheel: Callable[..., Path]
) -> None:
    old, archive = package("old-1-0"), wheel("w")
    pause(folder)
    new = package("new-1-0")
    freed = Cache(folder, 80 * KB).trim()
    assert freed >= 128 * KB
    assert new.exists()
    assert not old.exists()
    assert not old.with_name("old-1-0.lock").exists()
    assert not archive.exists()
    assert not [path for path in (folder / "uv" / "wheels-v8").rglob("*") if not path.is_dir()]
    assert not (folder / "trash").exists()
    assert Cache(folder, 80 * KB).trim() == 0


def test_what_is_used_again_is_new_again(folder: Path, package: Callable[..., Path]) -> None:
    first = package("first-1-0")
    pause(folder)
    second = package("second-1-0")
    pause(folder)
    use(folder, [first, folder / "packages" / "absent"])
    Cache(folder, 80 * KB).trim()
    assert first.exists()
    assert not second.exists()


@pytest.mark.parametrize("claim", ["alone", "slot", "stage"])
def test_what_a_build_under_way_uses_stays(folder: Path, package: Callable[..., Path], claim: str) -> None:
    cache = Cache(folder, 0)
    idle, used = package("idle-1-0"), package("used-1-0")
    pause(folder)
    block = {"alone": lambda: cache.alone("k"), "slot": lambda: cache.slot(1), "stage": cache.stage}[claim]
    with block():
        use(folder, [used])
        loaded = package("loaded-1-0")
        cache.prune()
        assert (used.exists(), loaded.exists(), idle.exists()) == (True, True, False)
    cache.prune()
    assert not used.exists()


def test_pruning_empties_everything(folder: Path, package: Callable[..., Path], wheel: Callable[..., Path]) -> None:
    package("a-1-0")
    wheel("b")
    package(".a-1-0-temporary")
    (folder / "uv" / ".tmpx").mkdir()
    (folder / "repodata").mkdir()
    (folder / "repodata" / "x.json").write_bytes(bytes(10 * KB))
    assert Cache(folder, 1 << 30).prune() >= 200 * KB
    assert Cache(folder, 0).sizes() == {"packages": 0, "uv": 0, "bytecode": 0, "repodata": 0}
    assert not [path for name in ("packages", "uv", "repodata", "trash") for path in folder.glob(name)]


def test_pruning_what_is_not_there(folder: Path) -> None:
    assert Cache(folder, 0).prune() == 0


def test_links_count_once_and_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "big").write_bytes(bytes(100 * KB))
    (tmp_path / "a" / "link").symlink_to(tmp_path / "big")
    (tmp_path / "a" / "folder").symlink_to(tmp_path)
    assert size_of(tmp_path / "a") < 20 * KB


def test_folders_that_may_not_be_written_to_can_be_removed(tmp_path: Path) -> None:
    inner = tmp_path / "gone" / "read-only"
    inner.mkdir(parents=True)
    (inner / "file").touch()
    inner.chmod(0o555)
    remove(tmp_path / "gone")
    assert not (tmp_path / "gone").exists()


def pause(folder: Path) -> None:
    """Let the clock of the file system go on, by as little as it can tell apart."""
    folder.mkdir(exist_ok=True)
    probe = folder / "probe"
    probe.touch()
    first = probe.stat().st_mtime_ns
    while probe.stat().st_mtime_ns == first:
        probe.touch()
    probe.unlink()


# -- builds under way --------------------------------------------------------------------------------------


def test_a_stage_is_empty_and_gone_afterwards(folder: Path) -> None:
    with Cache(folder, 0).stage() as stage:
        assert list(stage.iterdir()) == []
        (stage / "x").touch()
        (stage.parent / "beside").touch()
    assert list((folder / "stage").iterdir()) == []


def test_a_stage_may_be_renamed_away(folder: Path, tmp_path: Path) -> None:
    with Cache(folder, 0).stage() as stage:
        (stage / "x").touch()
        stage.rename(tmp_path / "kept")
    assert (tmp_path / "kept" / "x").exists()
    assert list((folder / "stage").iterdir()) == []


def test_a_stage_is_gone_after_an_exception(folder: Path) -> None:
    with pytest.raises(KeyboardInterrupt), Cache(folder, 0).stage():
        raise KeyboardInterrupt
    assert list((folder / "stage").iterdir()) == []


HOLD = """
import sys
from pathlib import Path
from fngw_builder.environment.cache import Cache

cache = Cache(Path(sys.argv[1]), 0)
with cache.alone("key"), cache.stage() as stage:
    (stage / "half").touch()
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(folder: Path) -> Callable[[], subprocess.Popen[str]]:
    """Starts a process that holds the key ``key`` and a stage."""

    def start() -> subprocess.Popen[str]:
        line = [sys.executable, "-c", HOLD, str(folder)]
        process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    return start


def test_what_a_killed_build_left_is_swept_and_what_others_do_is_not(
    folder: Path, holder: Callable[[], subprocess.Popen[str]]
) -> None:
    with holder() as killed:
        killed.kill()
    with holder() as working:
        stages = {path.name for path in (folder / "stage").glob("*/")}
        with Cache(folder, 0).stage() as mine:
            names = {path.name for path in (folder / "stage").glob("*/")}
            assert len(names) == 2
            assert stages - names == set()
            assert mine.parent.name in names
        working.kill()
    Cache(folder, 0).prune()
    assert list((folder / "stage").iterdir()) == []


def test_a_key_is_free_when_its_holder_was_killed(
    folder: Path, holder: Callable[[], subprocess.Popen[str]]
) -> None:
    with holder() as process:
        with claims.if_free(folder / "locks", "key") as free:
            assert not free
        process.kill()
    with Cache(folder, 0).alone("key"):
        pass
    assert [path.name for path in (folder / "locks").iterdir()] == ["guard"]


def test_one_at_a_time_for_a_key_and_all_at_once_for_others(folder: Path) -> None:
    running: dict[str, int] = {"a": 0, "b": 0}
    most = dict(running)
    both = threading.Barrier(2, timeout=20)
    count = threading.Lock()

    def build(key: str, first: bool) -> None:
        with Cache(folder, 0).alone(key):
            with count:
                running[key] += 1
                most[key] = max(most[key], running[key])
            if first:
                both.wait()  # different keys are in it at the same time
            with count:
                running[key] -= 1

    threads = [threading.Thread(target=build, args=(key, True)) for key in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    threads = [threading.Thread(target=build, args=("a", False)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == {"a": 1, "b": 1}


def test_no_more_slots_than_there_are(folder: Path) -> None:
    running, most, count = 0, 0, threading.Lock()

    def build() -> None:
        nonlocal running, most
        with Cache(folder, 0).slot(2):
            with count:
                running += 1
                most = max(most, running)
            pause(folder.parent / threading.current_thread().name)
            with count:
                running -= 1

    threads = [threading.Thread(target=build) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1 <= most <= 2


def test_claims_are_told_with_their_times(tmp_path: Path) -> None:
    begun = time.time() - 1
    with claims.claimed(tmp_path, "x"):
        held = claims.held_since(tmp_path)
        assert list(held) == ["x"]
        assert begun <= held["x"] <= time.time() + 1
    assert claims.held_since(tmp_path) == {}


@pytest.mark.parametrize("name", ["", "a/b", "../x"])
def test_a_claim_stays_in_its_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="not a name"), claims.claimed(tmp_path, name):
        pass
