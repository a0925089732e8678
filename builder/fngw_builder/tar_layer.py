"""Image layers as tars whose bytes depend on nothing but their content: what all of fngw's layers are made with.

No times and no owners; entries come in the order in which they are given, each after the directories that lead to
it. The digest is computed while the tar is written.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from dataclasses import dataclass
from typing import IO

File = io.BufferedRandom | io.BytesIO
#: Read at once: large enough to copy at the disk's speed, small enough to stay in a processor's cache.
CHUNK = 1 << 18


@dataclass(frozen=True)
class Layer:
    """A layer's tar in an open file: its size in bytes, and its digest as image configurations name it."""

    file: File
    size: int
    diff_id: str
    files: int


class Writer:
    """Writes a layer into an empty file, which must outlive it.

    Paths are relative to the image's root, without a slash at either end. What is added a second time is ignored.

    Args:
        file: open for writing and reading.

    Example:
        >>> writer = Writer(io.BytesIO())
        >>> writer.regular("srv/fngw/app/main.py", 0o644, 3, io.BytesIO(b"x=1"))
        3
        >>> writer.finish().files
        1
    """

    def __init__(self, file: File) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self._known: set[str] = set()
        self._size = 0
        self._files = 0
        self._buffer = bytearray(CHUNK)

    def directory(self, path: str, mode: int = 0o755) -> None:
        """Add a directory."""
        if self._is_new(path):
            self._header(path, tarfile.DIRTYPE, mode)

    def symlink(self, path: str, target: str) -> None:
        """Add a symbolic link."""
        if self._is_new(path):
            self._header(path, tarfile.SYMTYPE, 0o777, target=target)

    def regular(self, path: str, mode: int, size: int, content: IO[bytes] | io.RawIOBase) -> int:
        """Add a file and return how many bytes were copied.

        Args:
            mode: its permissions.
            size: its size in bytes.
            content: open at its beginning.

        Raises:
            ValueError: it has another size; the layer is of no use then.
        """
        if not self._is_new(path):
            return 0
        self._files += 1
        self._header(path, tarfile.REGTYPE, mode, size=size)
        copied = self._copy(content)
        if copied != size:
            raise ValueError(f"/{path} changed while it was read: {copied} bytes instead of {size}")
        self._write(bytes(-size % tarfile.BLOCKSIZE))
        return copied

    def finish(self) -> Layer:
        """End the tar and return the layer, its file at the beginning."""
        self._write(bytes(2 * tarfile.BLOCKSIZE))
        self._write(bytes(-self._size % tarfile.RECORDSIZE))
        self._file.seek(0)
        return Layer(self._file, self._size, "sha256:" + self._hash.hexdigest(), self._files)

    def _is_new(self, path: str) -> bool:
        """Note a path and add what leads to it: an engine would make that with times and modes of its own."""
        if path in self._known:
            return False
        parent = path.rpartition("/")[0]
        if parent:
            self.directory(parent)
        self._known.add(path)
        return True

    def _header(self, path: str, kind: bytes, mode: int, *, size: int = 0, target: str = "") -> None:
        """Write an entry of root's, of no time: TarInfo's defaults."""
        entry = tarfile.TarInfo(path)
        entry.type, entry.mode, entry.size, entry.linkname = kind, mode, size, target
        self._write(entry.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))

    def _copy(self, content: IO[bytes] | io.RawIOBase) -> int:
        before, view = self._size, memoryview(self._buffer)
        while count := content.readinto(view):  # type: ignore[union-attr]  # IO[bytes] lacks it; what is open has it
            self._write(view[:count])
        return self._size - before

    def _write(self, data: bytes | memoryview) -> None:
        self._hash.update(data)
        self._file.write(data)
        self._size += len(data)
