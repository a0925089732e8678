"""The image layer of a bundle: the same bytes for the same bundle, on any machine and at any time.

Nothing is byte-compiled here. `.pyc` files are not quite the same from run to run and from Python to Python
(python/cpython#78274, #92132), so the same sources would get several image ids. And little would be saved: a
replica compiles 4,000 lines in 30 ms, and takes 800 to start.
"""

from __future__ import annotations

import tarfile
from pathlib import Path

from fngw_builder.bundle import Member, members, opened
from fngw_builder.tar_layer import File, Layer, Writer

__all__ = ["File", "Layer", "write"]


def write(bundle: Path, target: str, file: File) -> Layer:
    """Write the layer that puts a bundle's content under ``target``.

    Args:
        bundle: a file from ``bundle.locate``.
        target: the absolute path in the image.
        file: an empty file, open for writing and reading; it must outlive the layer.

    Raises:
        BuildFailed: ``bad_bundle``.
    """
    root, layer = target.strip("/"), Writer(file)
    layer.directory(root)
    with opened(bundle) as source:
        for member in members(source):
            _add(layer, f"{root}/{member.path}", member, source)
    return layer.finish()


def _add(layer: Writer, path: str, member: Member, source: tarfile.TarFile) -> None:
    if member.info.issym():
        layer.symlink(path, member.info.linkname)
    elif member.info.isdir():
        layer.directory(path, member.mode)
    else:
        content = source.extractfile(member.info)
        assert content is not None  # it is a regular file: `members` lets no other kind through
        layer.regular(path, member.mode, member.info.size, content)
