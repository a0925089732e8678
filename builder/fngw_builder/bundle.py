"""A source archive as the SDK stored it, checked: it is what its digest says, and nothing in it leaves its root.

A bundle is a tar whose members lie at its root: files, directories and links among them.
"""

from __future__ import annotations

import hashlib
import posixpath
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from fngw.errors import BuildFailed
from fngw_state.layout import Layout

#: In an image layer a file of this prefix removes one of the layers below.
WHITEOUT = ".wh."


@dataclass(frozen=True)
class Member:
    """One entry: ``path`` is relative, normal and inside the root; ``info`` is the archive's own description."""

    path: str
    info: tarfile.TarInfo

    @property
    def mode(self) -> int:
        """What everybody may do with it; whose it is does not matter."""
        return 0o755 if self.info.isdir() or self.info.mode & 0o100 else 0o644


def locate(layout: Layout, digest: str) -> Path:
    """Return the file of a bundle whose content is what its digest says.

    Raises:
        BuildFailed: ``bundle_missing`` or ``bundle_corrupt``.
    """
    path = layout.blob(digest)
    try:
        with path.open("rb") as file:
            found = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise BuildFailed(
            f"the sources {digest} are not in the data directory",
            code="bundle_missing",
            hint="deploy again, which uploads them; builder and gateway must share FNGW_DATA_DIR",
        ) from None
    if found != digest:
        raise BuildFailed(
            f"the stored sources {digest} have another content, {found}",
            code="bundle_corrupt",
            hint=f"remove {path} and deploy again, which uploads them; then check the disk",
        )
    return path


@contextmanager
def opened(path: Path) -> Iterator[tarfile.TarFile]:
    """Open a bundle for reading.

    Raises:
        BuildFailed: ``bad_bundle``: it is no tar, or cut short.
    """
    try:
        with tarfile.open(path, "r:*") as tar:
            yield tar
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise _bad(f"not a readable tar ({error})") from error


def members(tar: tarfile.TarFile) -> Iterator[Member]:
    """Yield the entries in the archive's order, each once its path and kind are known to be harmless.

    Raises:
        BuildFailed: ``bad_bundle``.
    """
    kinds: dict[str, bool] = {}  # path -> whether it is a directory
    for info in tar:
        path = _inside(info)
        if path == ".":
            continue
        for parent in _parents(path):
            if not kinds.setdefault(parent, True):
                raise _bad(f"{info.name!r} lies under {parent!r}, which is not a directory")
        if path in kinds and not (kinds[path] and info.isdir()):
            raise _bad(f"{info.name!r} is in it twice")
        kinds[path] = info.isdir()
        yield Member(path, info)


def extract(bundle: Path, folder: Path, suffix: str) -> None:
    """Put the files of a bundle whose names end with ``suffix`` where they belong below ``folder``.

    Raises:
        BuildFailed: ``bad_bundle``.
    """
    with opened(bundle) as tar:
        for member in members(tar):
            if member.info.isfile() and member.path.endswith(suffix):
                path = folder / member.path
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("wb") as file:
                    shutil.copyfileobj(opened_member(tar, member), file)


def opened_member(tar: tarfile.TarFile, member: Member) -> IO[bytes]:
    """Open the content of a regular file."""
    content = tar.extractfile(member.info)
    if content is None:
        raise _bad(f"{member.path!r} has no content")
    return content


def _inside(info: tarfile.TarInfo) -> str:
    path = posixpath.normpath(info.name)
    if path.startswith(("/", "../")) or path == "..":
        raise _bad(f"{info.name!r} leaves its root")
    if any(part.startswith(WHITEOUT) for part in path.split("/")):
        raise _bad(f"{info.name!r} has a name that removes files in image layers")
    if info.issym():
        _check_link(path, info)
    elif not (info.isfile() or info.isdir()):
        raise _bad(f"{info.name!r} is neither a file nor a directory nor a symbolic link")
    return path


def _check_link(path: str, info: tarfile.TarInfo) -> None:
    target = posixpath.normpath(posixpath.join(posixpath.dirname(path), info.linkname))
    if target.startswith(("/", "../")) or target == "..":
        raise _bad(f"the link {info.name!r} points to {info.linkname!r}, outside its root")


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:n]) for n in range(1, len(parts))]


def _bad(what: str) -> BuildFailed:
    return BuildFailed(
        f"the source archive cannot be used: {what}",
        code="bad_bundle",
        hint="keep it out of the sources with a .fngwignore file, then deploy again",
    )
