"""The image layer of a bundle: the same bytes for the same bundle, on any machine and at any time.

Nothing is byte-compiled here. `.pyc` files are not quite the same from run to run and from Python to Python
(python/cpython#78274, #92132), so the same sources would get several image ids. And little would be saved: a
replica compiles 4,000 lines in 30 ms, and takes 800 to start.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from dataclasses import dataclass
from pathlib import Path

from fngw_builder.bundle import Member, members, opened

File = io.BufferedRandom | io.BytesIO


@dataclass(frozen=True)
class Layer:
    """A layer's tar in an open file: its size in bytes, and its digest as image configurations name it."""

    file: File
    size: int
    diff_id: str
    files: int


def write(bundle: Path, target: str, file: File) -> Layer:
    """Write the layer that puts a bundle's content under ``target``.

    Args:
        bundle: a file from ``bundle.locate``.
        target: the absolute path in the image.
        file: an empty file, open for writing and reading; it must outlive the layer.

    Raises:
        BuildFailed: ``bad_bundle``.
    """
    root, count = target.strip("/"), 0
    known: set[str] = set()
    with (
        opened(bundle) as source,
        tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as layer,
    ):
        _add_directories(layer, f"{root}/.", known)
        for member in members(source):
            path = f"{root}/{member.path}"
            _add_directories(layer, path, known)
            if path not in known:
                _add(layer, path, member, source)
            known.add(path)
            count += member.info.isfile()
    size = file.tell()
    file.seek(0)
    return Layer(file, size, "sha256:" + hashlib.file_digest(file, "sha256").hexdigest(), count)


def _add_directories(layer: tarfile.TarFile, path: str, known: set[str]) -> None:
    """Add what leads to ``path``: an engine would make it, too, but with a time and modes of its own."""
    parts = path.split("/")
    for n in range(1, len(parts)):
        parent = "/".join(parts[:n])
        if parent not in known:
            known.add(parent)
            layer.addfile(_entry(parent, tarfile.DIRTYPE, 0o755))


def _add(layer: tarfile.TarFile, path: str, member: Member, source: tarfile.TarFile) -> None:
    if member.info.issym():
        entry = _entry(path, tarfile.SYMTYPE, 0o777)
        entry.linkname = member.info.linkname
        layer.addfile(entry)
    elif member.info.isdir():
        layer.addfile(_entry(path, tarfile.DIRTYPE, member.mode))
    else:
        entry = _entry(path, tarfile.REGTYPE, member.mode)
        entry.size = member.info.size
        layer.addfile(entry, source.extractfile(member.info))


def _entry(path: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    """An entry of root's, of no time: TarInfo's defaults but for these three."""
    entry = tarfile.TarInfo(path)
    entry.type = kind
    entry.mode = mode
    return entry
