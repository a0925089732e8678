"""Conda packages and repodata from memory: what a channel consists of, written the same way every time.

The formats are those of conda's documentation: a `.conda` is a zip of two zstd tars ("conda package format 2"), a
`.tar.bz2` is one tar; `info/paths.json` says which files hold the placeholder that an installer replaces.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import zstandard

# As long as conda-build's: a prefix written into a binary may be no longer than what it replaces.
PLACEHOLDER = "/opt/placeholder" + "_placehold" * 23
_BUILT_MS = 1_700_000_000_000  # every package claims this moment, so that archives depend on their content alone


@dataclass(frozen=True)
class File:
    """A file of a package: its bytes and mode, or where it links to."""

    data: bytes = b""
    mode: int = 0o644
    target: str | None = None


@dataclass(frozen=True)
class Package:
    """One package: its files by path (relative to the prefix, or to site-packages' parent if noarch Python).

    Args:
        noarch: "python" (files under `site-packages/`), "generic", or None for a package of `linux-64`.
        entry_points: console scripts, such as `greet = greeter:main` (noarch Python only).
    """

    name: str
    version: str
    files: Mapping[str, File] = field(default_factory=dict)
    build: str = "0"
    number: int = 0
    noarch: str | None = "python"
    depends: tuple[str, ...] = ()
    constrains: tuple[str, ...] = ()
    entry_points: tuple[str, ...] = ()

    @property
    def subdir(self) -> str:
        """The channel's folder it goes to."""
        return "noarch" if self.noarch else "linux-64"

    @property
    def stem(self) -> str:
        """Its file name without the suffix."""
        return f"{self.name}-{self.version}-{self.build}"


# A record of repodata.json: the subdir it belongs to, the archive's file name, and what is said of it.
Listed = tuple[str, str, dict[str, Any]]


@dataclass(frozen=True)
class Archive:
    """A package as a file of a channel, and its repodata record."""

    subdir: str
    file_name: str
    data: bytes
    record: dict[str, Any]


def conda_archive(package: Package) -> Archive:
    """The package in the `.conda` format."""
    parts = {
        f"pkg-{package.stem}.tar.zst": _zstd(_tar(package.files)),
        f"info-{package.stem}.tar.zst": _zstd(_tar(_info(package))),
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in {"metadata.json": b'{"conda_pkg_format_version": 2}', **parts}.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return _archive(package, ".conda", buffer.getvalue())


def tar_archive(package: Package) -> Archive:
    """The package in the older `.tar.bz2` format."""
    return _archive(package, ".tar.bz2", _tar({**_info(package), **package.files}, "w:bz2"))


def write_channel(root: Path, archives: Iterable[Archive], records: Iterable[Listed]) -> None:
    """Write the archives, and repodata for them and for `records` of archives that are there already."""
    listed = list(records)
    for archive in archives:
        _write(root / archive.subdir / archive.file_name, archive.data)
        listed.append((archive.subdir, archive.file_name, archive.record))
    for subdir in ("noarch", "linux-64"):
        data = repodata(subdir, {name: record for where, name, record in listed if where == subdir})
        _write(root / subdir / "repodata.json", data)
        _write(root / subdir / "repodata.json.zst", _zstd(data))


def repodata(subdir: str, records: Mapping[str, dict[str, Any]]) -> bytes:
    """`repodata.json`: the records by file name, old and new formats apart."""
    sections: dict[str, dict[str, Any]] = {"packages": {}, "packages.conda": {}}
    for name in sorted(records):
        sections["packages.conda" if name.endswith(".conda") else "packages"][name] = records[name]
    document = {"info": {"subdir": subdir}, **sections, "removed": [], "repodata_version": 1}
    return json.dumps(document, indent=1, sort_keys=True).encode()


def text(content: str, mode: int = 0o644) -> File:
    """A file of this text."""
    return File(content.encode(), mode)


def _archive(package: Package, suffix: str, data: bytes) -> Archive:
    digests = {
        "md5": hashlib.md5(data, usedforsecurity=False).hexdigest(),
        "sha256": hashlib.sha256(data).hexdigest(),
        "size": len(data),
    }
    return Archive(package.subdir, package.stem + suffix, data, {**_index(package), **digests})


def _index(package: Package) -> dict[str, Any]:
    index: dict[str, Any] = {
        "name": package.name,
        "version": package.version,
        "build": package.build,
        "build_number": package.number,
        "depends": list(package.depends),
        "constrains": list(package.constrains),
        "license": "Apache-2.0",
        "subdir": package.subdir,
        "timestamp": _BUILT_MS,
    }
    if package.noarch:
        return {**index, "noarch": package.noarch}
    return {**index, "arch": "x86_64", "platform": "linux"}


def _info(package: Package) -> dict[str, File]:
    documents: dict[str, Any] = {
        "index.json": _index(package),
        "paths.json": {"paths": [_path(n, package.files[n]) for n in sorted(package.files)], "paths_version": 1},
        "about.json": {},
    }
    if package.noarch == "python":
        noarch = {"type": "python", "entry_points": list(package.entry_points)}
        documents["link.json"] = {"noarch": noarch, "package_metadata_version": 1}
    files = {f"info/{name}": text(json.dumps(document, indent=1)) for name, document in documents.items()}
    return {**files, "info/files": text("".join(f"{name}\n" for name in sorted(package.files)))}


def _path(name: str, file: File) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "_path": name,
        "path_type": "hardlink" if file.target is None else "softlink",
        "sha256": hashlib.sha256(file.data).hexdigest(),
        "size_in_bytes": len(file.data),
    }
    if PLACEHOLDER.encode() not in file.data:
        return entry
    return {**entry, "prefix_placeholder": PLACEHOLDER, "file_mode": "binary" if b"\0" in file.data else "text"}


def _tar(files: Mapping[str, File], mode: Literal["w", "w:bz2"] = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for name in sorted(files):
            tar.addfile(_member(name, files[name]), io.BytesIO(files[name].data))
    return buffer.getvalue()


def _member(name: str, file: File) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.mode = file.mode
    if file.target is None:
        member.size = len(file.data)
    else:
        member.type, member.linkname = tarfile.SYMTYPE, file.target
    return member


def _zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=3).compress(data)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
