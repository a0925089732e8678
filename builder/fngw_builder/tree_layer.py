"""The image layer of a folder: the same bytes for the same content, wherever it lies and whoever made it.

Sorted, of root's, without times, and with the permissions that everybody gets. Hard links become files of their
own; links that point into the folder by its absolute path point to where it will lie.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fngw.errors import BuildFailed
from fngw_builder.bundle import WHITEOUT
from fngw_builder.report import Report
from fngw_builder.tar_layer import File, Layer, Writer

#: Bytes between two tellings of the progress.
TELL_EVERY = 16 << 20


@dataclass(frozen=True)
class Node:
    """One file, directory or link: ``path`` is relative to the folder, ``link`` where a link points to."""

    path: str
    mode: int
    size: int = 0
    link: str = ""

    @property
    def permissions(self) -> int:
        """``u=rwX,go=rX``: what everybody may do with it; the maker's umask does not matter."""
        return 0o755 if stat.S_ISDIR(self.mode) or self.mode & 0o100 else 0o644


def write(
    stage: Path,
    target_prefix: str,
    file: File,
    report: Report,
    wanted: Callable[[str], bool] = lambda path: True,
) -> Layer:
    """Write the layer that puts the content of ``stage`` under ``target_prefix``.

    Args:
        stage: a folder of which nobody changes what is wanted meanwhile.
        target_prefix: the absolute path in the image.
        file: an empty file, open for writing and reading; it must outlive the layer.
        report: gets the progress of the step ``layer``, in bytes.
        wanted: takes a path relative to the stage, and tells whether it goes in. The folders that lead to what
            does go in as well.

    Raises:
        BuildFailed: ``bad_package``: the folder holds what no image layer can.
        OSError: such as for a full disk.
    """
    nodes = sorted((node for node in walk(stage, target_prefix) if wanted(node.path)), key=lambda node: node.path)
    root, layer = target_prefix.strip("/"), Writer(file)
    total, done, told = sum(node.size for node in nodes), 0, 0
    report.progress("layer", 0, total, "bytes")
    layer.directory(root)
    for node in nodes:
        done += _add(layer, f"{root}/{node.path}", node, stage)
        if done - told >= TELL_EVERY:
            told = done
            report.progress("layer", done, total, "bytes")
    report.progress("layer", total, total, "bytes")
    return layer.finish()


def walk(stage: Path, target_prefix: str) -> Iterator[Node]:
    """Yield what lies in a folder, in no order.

    Raises:
        BuildFailed: ``bad_package``.
    """
    pending = [""]
    while pending:
        folder = pending.pop()
        with os.scandir(stage / folder) as entries:
            for entry in entries:
                node = _node(folder + entry.name, entry, str(stage), target_prefix)
                yield node
                if stat.S_ISDIR(node.mode):
                    pending.append(node.path + "/")


def _node(path: str, entry: os.DirEntry[str], stage: str, target_prefix: str) -> Node:
    if entry.name.startswith(WHITEOUT):
        raise _bad(path, "has a name that removes files in image layers")
    info = entry.stat(follow_symlinks=False)
    if stat.S_ISLNK(info.st_mode):
        return Node(path, info.st_mode, link=_relocated(str(Path(entry.path).readlink()), stage, target_prefix))
    if stat.S_ISREG(info.st_mode):
        return Node(path, info.st_mode, info.st_size)
    if not stat.S_ISDIR(info.st_mode):
        raise _bad(path, "is neither a file nor a directory nor a symbolic link")
    return Node(path, info.st_mode)


def _relocated(link: str, stage: str, target_prefix: str) -> str:
    return target_prefix + link[len(stage) :] if link == stage or link.startswith(stage + "/") else link


def _add(layer: Writer, path: str, node: Node, stage: Path) -> int:
    if stat.S_ISDIR(node.mode):
        layer.directory(path, node.permissions)
    elif stat.S_ISLNK(node.mode):
        layer.symlink(path, node.link)
    else:
        with (stage / node.path).open("rb", buffering=0) as content:
            return layer.regular(path, node.permissions, node.size, content)
    return 0


def _bad(path: str, what: str) -> BuildFailed:
    return BuildFailed(
        f"a package cannot be put into an image: {path!r} {what}",
        code="bad_package",
        hint="use another version of the package that it belongs to",
    )
