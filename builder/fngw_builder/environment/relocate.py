"""Making what uv unpacked independent of the interpreter that uv ran with, and of the place.

Libraries get the target's X.Y, scripts the final interpreter; what tells of paths and times goes; and the records
of all that are corrected.
"""

from __future__ import annotations

import posixpath
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from fngw_builder.environment import merge, wheel_files
from fngw_builder.environment.wheel_files import Row

#: What uv leaves in each .dist-info that differs from machine to machine: whether it was named on the command line,
#: where a wheel lay, and when it was written.
MACHINES_OWN = ("REQUESTED", "direct_url.json", "uv_cache.json", "uv_build.json")
#: Linux cuts longer first lines off, and takes what is after a blank for an argument.
LONGEST_SHEBANG = 127
#: A script that is read twice: by a shell, which hands it to Python, to which the shell's lines are a string.
TRAMPOLINE = "#!/bin/sh\n'''exec' {quote}{python}{quote} \"$0\" \"$@\"\n' '''\n"


def relocate(prefix: Path, final: str, library: str) -> None:
    """Correct what uv unpacked into ``prefix``.

    Args:
        prefix: the folder.
        final: the absolute path that its content will lie under.
        library: the final site-packages, relative to that: ``"lib/python3.11/site-packages"``.
    """
    moves = dict(_moves(prefix, library))
    records = dict(_records(prefix, moves))
    for old, new in moves.items():
        if old != new:
            merge.merge(prefix / old, prefix / new, prefix)
            merge.remove_empty((prefix / old).parent, prefix)
    corrected = {row.path: row for row in _rewritten_scripts(prefix, final)}
    for info, rows in records.items():
        for name in MACHINES_OWN:
            (prefix / library / info / name).unlink(missing_ok=True)
        kept = (corrected.get(row.path, row) for row in rows if not _is_machines_own(row.path))
        wheel_files.write(
            prefix / library / info, [replace(row, path=posixpath.relpath(row.path, library)) for row in kept]
        )


def shebang(python: str) -> str:
    """Return the first line, or lines, of a script that this interpreter is to run."""
    line = f"#!{python}\n"
    if len(line) <= LONGEST_SHEBANG and " " not in python:
        return line
    return TRAMPOLINE.format(python=python, quote="'")


def _moves(prefix: Path, library: str) -> Iterator[tuple[str, str]]:
    """Yield what lies where the builder's interpreter would look for it, and where the target's will."""
    for old in wheel_files.libraries(prefix):
        yield old.relative_to(prefix).as_posix(), library
    for old in (prefix / "include" / "site").glob("python*"):
        yield f"include/site/{old.name}", f"include/site/{library.split('/')[-2]}"


def _records(prefix: Path, moves: dict[str, str]) -> Iterator[tuple[str, list[Row]]]:
    """Yield the names of the .dist-infos, and what they record, with final paths relative to the prefix."""
    for library in wheel_files.libraries(prefix):
        inside = library.relative_to(prefix).as_posix()
        for info in wheel_files.infos(library):
            if info.is_dir():
                rows = wheel_files.read(info)
                paths = (posixpath.normpath(posixpath.join(inside, row.path)) for row in rows)
                yield (
                    info.name,
                    [replace(row, path=_moved(path, moves)) for row, path in zip(rows, paths, strict=True)],
                )


def _moved(path: str, moves: dict[str, str]) -> str:
    for old, new in moves.items():
        if path.startswith(f"{old}/"):
            return new + path[len(old) :]
    return path


def _is_machines_own(path: str) -> bool:
    folder, _, name = path.rpartition("/")
    return folder.endswith(".dist-info") and name in MACHINES_OWN


def _rewritten_scripts(prefix: Path, final: str) -> Iterator[Row]:
    """Give scripts the final interpreter, and yield their new rows, relative to the prefix."""
    mine = [f"#!{sys.executable}\n", *(TRAMPOLINE.format(python=sys.executable, quote=q) for q in ("", "'", '"'))]
    headers = tuple(text.encode() for text in mine)
    for script in sorted(path for path in (prefix / "bin").glob("*") if path.is_file()):
        data = script.read_bytes()
        header = next((header for header in headers if data.startswith(header)), None)
        if header is not None:
            wheel_files.replace(script, shebang(f"{final}/bin/python").encode() + data[len(header) :])
            yield wheel_files.row_of(prefix, script)
