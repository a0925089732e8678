"""The source archive: which files of a folder travel, and a tar of them that is the same every time.

``.gitignore`` (nested ones and those of the folders above in the same repository, too) and ``.fngwignore`` (the
same syntax, and the last word) are honoured. Nothing of when, by whom or where it was packed gets in.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional, Tuple

from pathspec import GitIgnoreSpec

from fngw.errors import ValidationError
from fngw.sources import Blob

__all__ = ["Entry", "check_size", "collect", "write_tar"]

IGNORE_FILES = (".gitignore", ".fngwignore")
#: Never shipped: of no use in a replica, and often large.
MARKS = ("pyvenv.cfg", "fngw.lock")  # files that mark a virtual environment, and the data dir of an `fngw up`
SKIPPED = {".git", ".hg", ".svn", ".venv", "__pycache__", ".fngw", ".mypy_cache", ".pytest_cache", ".ruff_cache"}
SKIPPED |= {"node_modules", "fngw.toml"}
HOPELESS = 8  # give up the walk at so many times the limit: somebody deploys from their home folder
MIB = 2**20


@dataclass(frozen=True)
class Entry:
    """One file of a bundle.

    Args:
        name: its path in the bundle, with ``/``.
        path: the file to read, or None with ``data``.
        data: its content, where it is made here.
        link: for a symbolic link, where it points to.
        size: bytes.
        executable: whether it keeps its x bits.
    """

    name: str
    path: Optional[Path] = None
    data: Optional[bytes] = None
    link: Optional[str] = None
    size: int = 0
    executable: bool = False


def collect(root: Path, limit: int, below: str = "") -> Dict[str, Entry]:
    """Return the files of ``root`` that travel, by their names in the bundle.

    Args:
        root: an existing folder.
        limit: the size in bytes that a bundle may have; the walk is given up far beyond it.
        below: only this file or folder of it.

    Raises:
        ValidationError: a link leads out of the folder, or it is hopelessly large.
    """
    start = root / below
    if not start.is_dir():
        return {below: _entry(root, start)}
    rules = _Rules.above(root).inside(root)
    entries: Dict[str, Entry] = {}
    size = 0
    for entry in _walk(root, start, rules.inside(start) if below else rules):
        entries[entry.name] = entry
        size += entry.size
        if size > limit * HOPELESS:
            break
    check_size(entries.values(), limit, root)
    return entries


def check_size(entries: Any, limit: int, root: Optional[Path]) -> None:
    """Refuse a bundle that is too large, naming its largest parts.

    Raises:
        ValidationError: code ``bundle_too_large``.
    """
    sizes: Dict[str, int] = {}
    for entry in entries:
        folder = entry.name.split("/")[0] + ("/" if "/" in entry.name else "")
        sizes[folder] = sizes.get(folder, 0) + entry.size
    total = sum(sizes.values())
    if total <= limit:
        return
    largest = sorted(sizes, key=lambda f: (-sizes[f], f))[:5]
    parts = ", ".join(f"{f} {sizes[f] / MIB:.1f} MiB" for f in largest)
    raise ValidationError(
        f"working_dir: the files of {root} come to {total / MIB:.1f} MiB, more than {limit / MIB:.0f} MiB: {parts}",
        code="bundle_too_large",
        hint=f"list what a replica does not need in {root}/.fngwignore (the syntax of .gitignore), "
        f"set working_dir, or raise FNGW_MAX_BUNDLE of the gateway",
    )


def write_tar(entries: Mapping[str, Entry]) -> Blob:
    """Return the archive of ``entries`` as a blob: the same bytes for the same names, contents and x bits.

    Raises:
        ValidationError: a file cannot be read.
    """
    file = tempfile.TemporaryFile()  # noqa: SIM115  # the blob's; closed by whoever prepared the deploy
    try:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for name in sorted(entries):
                _add(tar, entries[name])
        size = file.tell()
        return Blob("code", "sha256:" + _digest(file), size, file)
    except BaseException:
        file.close()
        raise


def _add(tar: tarfile.TarFile, entry: Entry) -> None:
    info = tarfile.TarInfo(entry.name)  # its defaults: mtime 0, owner 0
    if entry.link is not None:
        info.type, info.linkname, info.mode = tarfile.SYMTYPE, entry.link, 0o777
        tar.addfile(info)
        return
    data = _read(entry)
    info.size, info.mode = len(data), 0o755 if entry.executable else 0o644
    tar.addfile(info, io.BytesIO(data))


def _read(entry: Entry) -> bytes:
    if entry.path is None:
        return entry.data or b""
    try:
        return entry.path.read_bytes()
    except OSError as error:
        hint = "make it readable, or list it in .fngwignore"
        raise ValidationError(f"working_dir: cannot read {entry.path}: {error.strerror}", hint=hint) from None


def _digest(file: Any) -> str:
    file.seek(0)
    digest = hashlib.sha256()
    for chunk in iter(lambda: file.read(MIB), b""):
        digest.update(chunk)
    file.seek(0)
    return digest.hexdigest()


# -- the walk ---------------------------------------------------------------------------------------------


def _walk(root: Path, folder: Path, rules: _Rules) -> Iterator[Entry]:
    try:
        found = sorted(os.scandir(folder), key=lambda e: e.name)
    except OSError as error:
        hint = "make it readable, or list it in .fngwignore"
        raise ValidationError(f"working_dir: cannot read {folder}: {error.strerror}", hint=hint) from None
    for item in found:
        path, is_folder = folder / item.name, item.is_dir(follow_symlinks=False)
        if _skipped(item.name, path, item.is_dir()) or rules.ignore(path, item.is_dir()):
            continue
        if is_folder:
            yield from _walk(root, path, rules.inside(path))
        elif item.is_symlink() or stat.S_ISREG(item.stat().st_mode):  # sockets, pipes, devices stay
            yield _entry(root, path)


def _skipped(name: str, path: Path, is_folder: bool) -> bool:
    if name in SKIPPED or name.endswith(".egg-info"):
        return True
    return is_folder and any((path / mark).is_file() for mark in MARKS)


def _entry(root: Path, path: Path) -> Entry:
    name = path.relative_to(root).as_posix()
    if path.is_symlink():
        return Entry(name, link=_link(root, path))
    about = path.stat()
    return Entry(name, path=path, size=about.st_size, executable=bool(about.st_mode & 0o111))


def _link(root: Path, path: Path) -> str:
    """Return where a link points to, relative, if that is inside ``root`` wherever it is unpacked."""
    text = os.readlink(path)
    real_root, real = os.path.realpath(root), os.path.realpath(path)
    if _inside(real_root, real):
        lexical = os.path.normpath(path.parent / text)
        if not Path(text).is_absolute() and _inside(root, lexical):
            return os.path.relpath(lexical, path.parent)  # the same, but for detours outside
        return os.path.relpath(real, os.path.realpath(path.parent))
    raise ValidationError(
        f"working_dir: the link {path} leads out of {root}, to {text}",
        code="link_leaves_root",
        hint="list it in .fngwignore, or put what it leads to inside the folder",
    )


def _inside(root: Any, path: str) -> bool:
    root = str(root)
    return path == root or path.startswith(root.rstrip("/") + "/")


# -- ignore files -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Rules:
    """The ignore files that apply in one folder, outermost first."""

    layers: Tuple[Tuple[str, GitIgnoreSpec], ...] = ()

    @classmethod
    def above(cls, root: Path) -> _Rules:
        """Those of the folders above ``root`` up to its repository's top, as git reads them; none when they would
        ignore ``root`` itself: whoever deploys from there wants it."""
        repository = next((p for p in (root, *root.parents) if (p / ".git").exists()), None)
        if repository is None or repository == root:
            return cls()
        rules = cls()
        between = [p for p in root.parents if p == repository or repository in p.parents]
        for folder, child in zip(reversed(between), [*reversed(between[:-1]), root]):
            rules = rules.inside(folder)
            if rules.ignore(child, is_folder=True):
                return cls()
        return rules

    def inside(self, folder: Path) -> _Rules:
        """These and those of ``folder``."""
        lines: List[str] = []
        for name in IGNORE_FILES:
            if (folder / name).is_file():
                lines += (folder / name).read_text("utf-8", "replace").splitlines()
        return _Rules((*self.layers, (str(folder), GitIgnoreSpec.from_lines(lines)))) if lines else self

    def ignore(self, path: Path, is_folder: bool) -> bool:
        """Tell whether ``path`` stays behind: the innermost file with an opinion decides."""
        for folder, spec in reversed(self.layers):
            relative = str(path)[len(folder.rstrip("/")) + 1 :]
            verdict = spec.check_file(relative + "/" if is_folder else relative).include
            if verdict is not None:
                return bool(verdict)
        return False
