"""What Redis wrote is synced from outside."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from fngw_supervisor import syncing


def files(tmp_path: Path) -> Path:
    folder = tmp_path / "appendonlydir"
    folder.mkdir()
    (folder / "appendonly.aof.1.incr.aof").write_bytes(b"x")
    (folder / "appendonly.aof.manifest").write_bytes(b"x")
    return folder


def test_the_newest_writes_are_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files(tmp_path)
    synced: list[str] = []
    monkeypatch.setattr(os, "fdatasync", lambda file: synced.append(str(Path(f"/proc/self/fd/{file}").readlink())))
    syncing.sync(tmp_path)
    assert [Path(path).name for path in synced] == ["appendonly.aof.1.incr.aof"]
    syncing.sync(tmp_path / "nothing")


async def test_a_disk_that_fails_is_told_of_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files(tmp_path)
    monkeypatch.setattr(syncing, "EVERY_S", 0.001)
    tries, told = [0], []
    enough, loop = asyncio.Event(), asyncio.get_running_loop()

    def fail(file: int) -> None:
        tries[0] += 1
        if tries[0] == 3:
            loop.call_soon_threadsafe(enough.set)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fail)
    task = asyncio.create_task(syncing.keep_synced(tmp_path, lambda *words: told.append(words)))
    async with asyncio.timeout(60):
        await enough.wait()
    task.cancel()
    assert [kind for kind, _ in told] == ["warning"]
    assert "Input/output error" in told[0][1]
