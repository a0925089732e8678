"""Moving one folder's content into another, and taking an installed distribution out: what pip does, without pip.

Nothing is written to or removed outside the folder that is worked on, whatever links packages have put into it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection
from pathlib import Path

from fngw.errors import BuildFailed
from fngw_builder.environment import wheel_files


def merge(source: Path, target: Path, root: Path) -> None:
    """Move ``source`` to ``target``; where both have a file, that of ``source`` stays. ``source`` is gone then.

    Args:
        source: a folder.
        target: a folder on the same disk, which may exist.
        root: what must not be left; ``target`` lies in it.

    Raises:
        BuildFailed: ``bad_package``: a file is where a folder should be, or the reverse, or a link leads outside.
    """
    if not os.path.lexists(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        source.rename(target)
        return
    if not target.is_dir() or not target.resolve().is_relative_to(root.resolve()):
        raise _in_the_way(target, root)
    with os.scandir(source) as entries:
        found = [(Path(entry.path), target / entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for path, to, is_folder in found:
        if is_folder:
            merge(path, to, root)
        elif to.is_dir() and not to.is_symlink():
            raise _in_the_way(to, root)
        else:
            path.replace(to)
    source.rmdir()


def uninstall(names: Collection[str], library: Path, root: Path) -> None:
    """Remove installed distributions.

    Args:
        names: normalised; those that are not installed are ignored.
        library: the site-packages that they are in.
        root: what must not be left.
    """
    for info in wheel_files.infos(library):
        if wheel_files.name_of(info) in names:
            for row in wheel_files.read(info):
                _remove_file(library / row.path, root)
            if info.is_dir() and not info.is_symlink():
                shutil.rmtree(info)
            else:
                info.unlink(missing_ok=True)


def remove_empty(folder: Path, root: Path) -> None:
    """Remove a folder and those that it lies in, up to ``root``, as far as they are empty."""
    while folder != root and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


def _remove_file(path: Path, root: Path) -> None:
    folder = path.parent.resolve()
    if folder.is_relative_to(root.resolve()) and (path.is_file() or path.is_symlink()):
        path.unlink()
        remove_empty(folder, root.resolve())


def _in_the_way(path: Path, root: Path) -> BuildFailed:
    return BuildFailed(
        f"a pip package cannot be installed: {path.relative_to(root)} of another package is in its way",
        code="bad_package",
        hint="leave one of the two out, or use another version of it",
    )
