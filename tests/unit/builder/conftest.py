"""Bundles for the builder's unit tests."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from fngw.spec import digest_of
from fngw_state.layout import Layout

Entry = tuple[str, bytes | None] | tarfile.TarInfo  # name and content (None: a directory), or made by the test
Bundles = Callable[..., str]


class Told:
    """A report that keeps how far the compiler said it was."""

    def __init__(self) -> None:
        self.steps: list[tuple[int | None, int | None]] = []

    def say(self, line: str) -> None:
        raise AssertionError(f"nothing is to be said: {line}")

    def progress(self, step: str, done: int | None = None, total: int | None = None, unit: str = "") -> None:
        assert (step, unit) == ("compile", "files")
        self.steps.append((done, total))


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(data=tmp_path / "data", run=tmp_path / "run")
    made.create()
    return made


def tar_of(*entries: Entry) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                tar.addfile(entry)
                continue
            name, content = entry
            info = tarfile.TarInfo(name)
            info.size = len(content or b"")
            info.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
            tar.addfile(info, io.BytesIO(content or b""))
    return out.getvalue()


@pytest.fixture
def store(layout: Layout) -> Callable[..., str]:
    """Stores bytes as a blob and returns its digest."""

    def store(data: bytes) -> str:
        digest = digest_of(data)
        path = layout.blob(digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return digest

    return store


@pytest.fixture
def bundle(store: Callable[..., str]) -> Bundles:
    """Stores a tar of entries and returns its digest."""
    return lambda *entries: store(tar_of(*entries))


def link(name: str, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    return info


def special(name: str, kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "elsewhere"
    return info


@pytest.fixture
def linked() -> Callable[[str, str], tarfile.TarInfo]:
    return link


@pytest.fixture
def of_kind() -> Callable[[str, bytes], tarfile.TarInfo]:
    return special
