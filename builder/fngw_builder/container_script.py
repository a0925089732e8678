"""Run a command over files that come in on standard input, and send what it makes of them to standard output.

    python -S -c SCRIPT INTO MADE COMMAND…

It is what a container runs that byte-compiles: standard library only, Python >= 3.7. The files are put into the
folder INTO; the command is run; what then lies in the folder MADE goes out. What the command says goes to standard
error. Both streams are files, each after its path's length, its size and its path, and an end: none without it is
whole.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from typing import IO, Iterator, List, Tuple

#: The length of a path and the size of a file, in bytes.
HEADER = struct.Struct("!IQ")
#: No file has no path.
END = HEADER.pack(0, 0)


def main(into: str, made: str, command: List[str]) -> int:
    """Do it all; return the command's exit status."""
    os.makedirs(made, exist_ok=True)  # even if nothing is made
    for path, content in read(sys.stdin.buffer):
        path = os.path.join(into, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content)
    status = subprocess.call(command, stdin=subprocess.DEVNULL, stdout=sys.stderr)
    if status:
        print("%s ended with the status %d" % (command[0], status), file=sys.stderr)
        return 1
    for folder, _, names in os.walk(made):
        for name in names:
            path = os.path.join(folder, name)
            with open(path, "rb") as file:
                sys.stdout.buffer.write(entry(os.path.relpath(path, made), file.read()))
    sys.stdout.buffer.write(END)
    return 0


def entry(path: str, content: bytes) -> bytes:
    """Return a file as it is sent."""
    name = os.fsencode(path)
    return HEADER.pack(len(name), len(content)) + name + content


def read(stream: IO[bytes]) -> Iterator[Tuple[str, bytes]]:
    """Yield the path and the content of each file, until the end.

    Raises:
        EOFError: the stream ended before.
    """
    while True:
        length, size = HEADER.unpack(exactly(stream, HEADER.size))
        if not length:
            return
        yield os.fsdecode(exactly(stream, length)), exactly(stream, size)


def exactly(stream: IO[bytes], size: int) -> bytes:
    """Read so many bytes, or raise EOFError."""
    data = stream.read(size)
    if len(data) < size:
        raise EOFError("the files are cut off")
    return data


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
