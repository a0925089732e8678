"""What installed wheels record of their files: reading it, checking the files against it, and writing it anew.

See the specification "Recording installed projects": a RECORD is CSV of path, hash and size, relative to its
site-packages.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import canonicalize_name

RECORD = "RECORD"
_SUFFIXES = (".dist-info", ".egg-info")


@dataclass(frozen=True, order=True)
class Row:
    """One file: ``path`` relative to site-packages; hash and size as written, or empty."""

    path: str
    hash: str = ""
    size: str = ""


def infos(library: Path) -> list[Path]:
    """Return the folders and files that describe what is installed in a site-packages."""
    if not library.is_dir():
        return []
    return sorted(path for path in library.iterdir() if path.name.endswith(_SUFFIXES))


def name_of(info: Path) -> str:
    """Return the normalised name of what a ``.dist-info`` or ``.egg-info`` describes."""
    return canonicalize_name(info.name.rpartition(".")[0].partition("-")[0])


def names(library: Path) -> set[str]:
    """Return the normalised names of what is installed in a site-packages."""
    return {name_of(info) for info in infos(library)}


def read(info: Path) -> list[Row]:
    """Return what a ``.dist-info`` records, but of the record itself; nothing if it has none."""
    path = info / RECORD
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = [Row(*(*row, "", "")[:3]) for row in csv.reader(file) if row]
    return [row for row in rows if row.path != f"{info.name}/{RECORD}"]


def write(info: Path, rows: Iterable[Row]) -> None:
    """Give a ``.dist-info`` another record, sorted, and with itself."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows((row.path, row.hash, row.size) for row in sorted([*rows, Row(f"{info.name}/{RECORD}")]))
    replace(info / RECORD, text.getvalue().encode("utf-8", "surrogateescape"))


def row_of(folder: Path, path: Path) -> Row:
    """Return the row of a file as it is, its path relative to a folder that it lies in."""
    return Row(path.relative_to(folder).as_posix(), _hash(path), str(path.stat().st_size))


def replace(path: Path, data: bytes) -> None:
    """Give a file another content, and leave those that it is a hard link of alone."""
    new = path.with_name(path.name + ".fngw-new")
    new.write_bytes(data)
    if path.exists():
        new.chmod(path.stat().st_mode & 0o777)
    new.replace(path)


def damaged(prefix: Path) -> list[str]:
    """Return the names of what is installed in a prefix and is not what it records."""
    found = [info for library in libraries(prefix) for info in infos(library) if info.is_dir()]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return sorted(
            name_of(info) for info, whole in zip(found, pool.map(_is_whole, found), strict=True) if not whole
        )


def libraries(prefix: Path) -> Iterator[Path]:
    """Yield every site-packages of a prefix; some systems keep compiled packages apart, in lib64."""
    for folder in (prefix / "lib", prefix / "lib64"):
        if not folder.is_symlink():
            yield from sorted(folder.glob("python*/site-packages"))


def _is_whole(info: Path) -> bool:
    return all(_is_as_recorded(info.parent / row.path, row) for row in read(info))


def _is_as_recorded(path: Path, row: Row) -> bool:
    if not path.is_file():
        return False
    if row.size.isdigit() and int(row.size) != path.stat().st_size:
        return False
    return not row.hash.startswith("sha256=") or row.hash == _hash(path)


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
    return "sha256=" + base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
