"""Compile the modules of an environment: the same bytes for the same sources, wherever, whenever, however parallel.

    PYTHONHASHSEED=0 PYTHONDONTWRITEBYTECODE=1 python -s -S -W ignore -c SCRIPT STAGE PREFIX JOBS [MADE]

It is run by the interpreter that will load the modules: standard library only, Python >= 3.7. What marshal writes
depends on what else the interpreter holds: a string that somebody else refers to, too, is written otherwise
(python/cpython#78274). So nothing is compiled here: each part is compiled by a child, forked from this process,
which loads nothing more and does the same each time. No garbage is collected, as that comes when it likes and lets
go of strings; and the cache of attributes, which refers to names or not by their addresses, is emptied before
anything is written. Files are known by their final paths.

Constant sets are written in the order of their members' hashes, which are addresses for None and Ellipsis (until
Python 3.11, which sorts them; bpo-37596): until then, such sets are made when they are needed.

Packages are compiled apart, so that what one comes to does not depend on which others are there: it can be kept.
A module that has byte-code already is left alone; of a package, all modules have it or none. Byte-code goes beside
the modules, or, by its path, into the folder MADE.

Each line of output is a number of files done, and their total. A file that cannot be compiled is left out, as pip
does: templates and Python 2's leftovers are not meant to be. It ends with 1 when a file cannot be written.
"""

from __future__ import annotations

import ast
import gc
import importlib.machinery
import importlib.util
import os
import py_compile
import signal
import sys
from types import CodeType
from typing import Any, Dict, List

#: Of sources, for one child: large enough that starting it costs little, small enough that none is late.
PART_BYTES = 512 * 1024
UNCHECKED = py_compile.PycInvalidationMode.UNCHECKED_HASH


def main(stage: str, prefix: str, jobs: int, made: str) -> None:
    """Compile what has no byte-code in ``stage``, with ``jobs`` processes, as if it lay in ``made``."""
    waiting = parts(stage, modules(stage))
    total, done = sum(map(len, waiting)), 0
    running: Dict[int, int] = {}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    gc.disable()
    gc.collect()
    gc.freeze()  # children then share the memory with what is there
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                part = waiting.pop()
                running[start(part, stage, prefix, made)] = len(part)
            done += finished(running)
            print(done, total, flush=True)
    finally:
        for child in running:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def modules(stage: str) -> List[str]:
    """List what is to be compiled, relative to ``stage``."""
    found = []
    for folder, _, names in os.walk(os.path.join(stage, "lib")):
        for path in (os.path.join(folder, name) for name in names if name.endswith(".py")):
            inside, cached = path[len(stage) + 1 :], importlib.util.cache_from_source(path)
            if package(inside) and os.path.isfile(path) and not os.path.islink(path) and not os.path.exists(cached):
                found.append(inside)
    return found


def package(path: str) -> str:
    """Return what a module belongs to: the standard library, or what is at the top of site-packages.

    Args:
        path: relative to the environment's root.

    Returns:
        a path likewise, ``lib/python3.11`` or ``lib/python3.11/site-packages/numpy``; or empty: no library's.
    """
    steps = path.split("/")
    if len(steps) < 3 or steps[0] != "lib" or not steps[1].startswith("python"):
        return ""
    return "/".join(steps[:4] if steps[2] == "site-packages" else steps[:2])


def parts(stage: str, paths: List[str]) -> List[List[str]]:
    """Split modules into parts of about the same work; each package decides for itself where."""
    found: List[List[str]] = []
    now, left = "", 0
    for mine, path in sorted((package(path), path) for path in paths):
        if mine != now or left <= 0:
            found.append([])
            now, left = mine, PART_BYTES
        found[-1].append(path)
        left -= os.stat(os.path.join(stage, path)).st_size
    return found


def start(part: List[str], stage: str, prefix: str, made: str) -> int:
    """Compile some modules in a child, and return its process id."""
    parent = os.getpid()
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for path in part:
            if os.getppid() != parent:
                break  # it was killed: nobody waits for this
            compile_one(os.path.join(stage, path), os.path.join(prefix, path), os.path.join(made, path))
        else:
            status = 0
    except OSError as error:
        print(error, file=sys.stderr, flush=True)
    finally:
        os._exit(status)


def compile_one(source: str, final: str, made: str) -> None:
    """Write the byte-code of one file as if it lay at ``made``, and for it to lie at ``final``."""
    try:
        target = importlib.util.cache_from_source(made)
        py_compile.compile(source, target, final, doraise=True, invalidation_mode=UNCHECKED)
    except py_compile.PyCompileError:
        pass  # Python says why, should anybody import it


def finished(running: Dict[int, int]) -> int:
    """Wait for a child, and return how many files it was given."""
    child, status = os.wait()
    count = running.pop(child)
    if status:
        raise SystemExit("a compiling process ended with the status %d" % status)
    return count


class SteadyLoader(importlib.machinery.SourceFileLoader):
    """Compiles, and leaves nothing of what is written to chance."""

    def source_to_code(  # type: ignore[override]  # typeshed knows of no `_optimize`
        self, data: Any, path: Any, *, _optimize: int = -1
    ) -> Any:
        code = super().source_to_code(data, path, _optimize=_optimize)
        if sys.version_info < (3, 11) and not is_steady(code):
            code = compile(MadeLate().visit(ast.parse(data)), path, "exec", dont_inherit=True, optimize=_optimize)
        sys._clear_type_cache()
        return code


class MadeLate(ast.NodeTransformer):
    """Writes `{1, *()}` for `{1}`, which means the same and is no constant."""

    def visit_Set(self, node: ast.Set) -> ast.Set:
        self.generic_visit(node)
        nothing = ast.Starred(value=ast.Tuple(elts=[], ctx=ast.Load()), ctx=ast.Load())
        node.elts.append(ast.fix_missing_locations(ast.copy_location(nothing, node)))
        return node


def is_steady(value: Any) -> bool:
    """Whether a constant, or a code object's constants, are written in the same order by every process."""
    if isinstance(value, CodeType):
        return all(map(is_steady, value.co_consts))
    return not (isinstance(value, frozenset) and holds_address_hash(value))


def holds_address_hash(value: Any) -> bool:
    """Whether the hash of a constant, or of a member of it, is an address."""
    if isinstance(value, (tuple, frozenset)):
        return any(map(holds_address_hash, value))
    return value is None or value is ...


if __name__ == "__main__":
    importlib.machinery.SourceFileLoader = SteadyLoader  # type: ignore[misc]  # py_compile looks it up there
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4] if sys.argv[4:] else sys.argv[1])
